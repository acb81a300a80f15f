"""What is typed wrong for Hydra itself."""

import sys

import pytest

from depth_lightning.runs.program import program


@pytest.mark.parametrize("group", ["model", "data", "callbacks", "augmentation", "hparams_search"])
def test_a_group_is_not_null(group, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "seed=1", f"{group}=null"])
    with pytest.raises(SystemExit) as end:
        program("train")
    assert end.value.code == f"{group}=null: a group has no empty option. Leave it out, or delete it with ~{group}"
