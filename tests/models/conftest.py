import json

import pytest
import torch
from torch import Tensor

State = dict[str, Tensor]


@pytest.fixture(scope="session")
def golden_state(golden, golden_weights):
    """golden_state(encoder) makes the golden weights under the published keys."""

    def make(encoder):
        shapes = json.loads((golden / f"state_dict_metric_{encoder}.json").read_text())
        return {key: torch.from_numpy(golden_weights.parameter(key, tuple(shape))) for key, shape in shapes.items()}

    return make


@pytest.fixture(scope="session")
def vits_file(golden_state, tmp_path_factory):
    """The golden weights of vits as a complete .pth file."""
    path = tmp_path_factory.mktemp("weights") / "golden_vits.pth"
    torch.save(golden_state("vits"), path)
    return path
