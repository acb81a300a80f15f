"""tests/golden holds what the reference implementations computed: part of what is kept beside a checkout."""

from pathlib import Path

import numpy as np
import pytest


def test_the_numbers_are_those_of_the_reference(golden):
    originals = Path(__file__).resolve().parents[2] / "shared" / "golden"
    if not originals.is_dir():
        pytest.skip("needs ../shared/golden, which is not beside this checkout")
    for copied in golden.glob("*.json"):
        assert copied.read_text() == (originals / copied.name).read_text(), copied.name
    for copied in golden.glob("*.npz"):
        with np.load(copied) as part, np.load(originals / copied.name) as whole:
            stride = int(part.get("stride", 1))
            for name in whole:
                strided = name in ("depth", "network_input")
                expected = whole[name][..., ::stride, ::stride] if strided else whole[name]
                assert np.array_equal(part[name], expected), f"{copied.name}: {name}"


def test_it_stays_small(golden):
    assert sum(file.stat().st_size for file in golden.iterdir()) < 3.5e6
