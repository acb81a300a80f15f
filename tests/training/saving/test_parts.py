"""Checkpoints that are folders: recognised, kept, and named where a file is needed."""

import pytest
import torch

from depth_lightning.runs.checkpoint import read_run_checkpoint, run_config
from depth_lightning.training.saving.checkpoint_files import WholeFiles, keep_as, newest_whole, put, whole_step


def _parts(path, step):
    path.mkdir(parents=True)
    (path / "__0_0.distcp").write_bytes(b"weights")
    (path / ".metadata").write_bytes(b"index")
    torch.save({"global_step": step, "config": {"seed": step}}, path / "meta.pt")
    return path


def test_the_newest_is_found_and_one_without_all_parts_passed_over(tmp_path):
    last, previous = _parts(tmp_path / "last.ckpt", 8), _parts(tmp_path / "previous.ckpt", 6)
    assert whole_step(last) == 8 and run_config(last).seed == 8
    assert newest_whole(tmp_path).path == last
    (last / "meta.pt").unlink()
    found = newest_whole(tmp_path)
    assert found.path == previous
    assert found.passed_over == [f"{last} is a folder that lacks parts of a checkpoint."]


def test_folders_and_files_take_each_others_place(tmp_path):
    last, new = _parts(tmp_path / "last.ckpt", 2), _parts(tmp_path / "new.ckpt", 4)
    keep_as(last, tmp_path / "previous.ckpt")
    put(new, last)
    assert (whole_step(last), whole_step(tmp_path / "previous.ckpt")) == (4, 2)
    assert not new.exists()
    torch.save({"global_step": 6}, new)
    put(new, last)
    assert whole_step(last) == 6
    put(_parts(new, 8), last)
    assert whole_step(last) == 8


def test_parts_are_named_where_a_file_is_needed(tmp_path):
    last = _parts(tmp_path / "last.ckpt", 2)
    with pytest.raises(ValueError, match=r"last.ckpt is in parts.*best.ckpt, which is complete"):
        read_run_checkpoint(last)
    with pytest.raises(ValueError, match=r"is in parts, one from each process of trainer=fsdp.*best.ckpt, which"):
        WholeFiles().load_checkpoint(last)
