"""The search for the largest batch, on the CPU, where a limit of the process's memory stands in for that of a GPU."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from depth_lightning.commands.batch_size import Fit, in_own_process, largest_that, search
from depth_lightning.runs.objects import build_data, plain

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("limit", [1, 2, 3, 11, 16, 40])
def test_the_largest_is_found_in_few_trials(limit):
    for largest in range(limit + 5):
        tried = []

        def fits(size, largest=largest, tried=tried):
            tried.append(size)
            return size <= largest

        assert largest_that(fits, limit) == min(largest, limit)
        assert all(1 <= size <= limit for size in tried) and len(set(tried)) == len(tried) <= 12


@pytest.fixture
def tiny(compose_config, small, tmp_path):
    def composed(*overrides):
        return compose_config("batch_size", [*small, "trainer=cpu", *overrides], tmp_path / "run")

    return composed


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit of a CPU process is Linux'")
def test_memory_ends_the_search_and_what_fits_trains(tiny, caplog, monkeypatch):
    cfg = tiny("memory_gib=0.13")
    tried = {}

    def recorded(settings, sample, batch_size):
        tried[batch_size] = in_own_process(settings, sample, batch_size)
        return tried[batch_size]

    monkeypatch.setattr("depth_lightning.commands.batch_size.in_own_process", recorded)
    with caplog.at_level(logging.INFO):
        largest = search(cfg)
    assert 1 < largest < cfg.max_batch_size
    assert tried[largest] is not None and tried[largest + 1] is None
    memory = [fit.memory_gib for _, fit in sorted(tried.items()) if fit is not None]
    assert memory == sorted(memory) and memory[-1] < 0.25
    assert all(fit.images_per_s > 0 for fit in tried.values() if fit)
    assert f"The largest is data.batch_size={largest}, and one more does not fit." in caplog.text
    assert not (Path(cfg.run_dir) / "checkpoints").exists()
    with pytest.raises(ValueError, match="Not one image fits"):
        search(tiny("memory_gib=0.001"))


def test_an_average_and_accumulation_are_trained_with(tiny):
    cfg = tiny("memory_gib=2", "callbacks=ema", "trainer.accumulate_grad_batches=8", "max_batch_size=1")
    assert isinstance(in_own_process(plain(cfg), build_data(cfg).train_data[0], 1), Fit)


def test_data_that_is_not_there_is_named_before_a_process_starts(compose_config, tmp_path, monkeypatch):
    monkeypatch.setattr("depth_lightning.commands.batch_size.in_own_process", lambda *_: pytest.fail("started"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        search(compose_config("batch_size", ["trainer=cpu", "memory_gib=2", f"data.root={tmp_path}/nowhere"]))


@pytest.mark.parametrize(
    "overrides, message",
    [
        ([], "memory_gib must say"),
        (["memory_gib=2", "trainer=fsdp_cpu"], r"trainer\.strategy"),
        (["memory_gib=2", "optimizer.lr=-1"], r"optimizer\.lr"),
    ],
    ids=["no limit", "sharded", "a value that cannot be right"],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has a limit of its own")
def test_what_cannot_be_searched_is_refused(tiny, overrides, message):
    with pytest.raises(ValueError, match=message):
        search(tiny(*overrides))


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nOf the allocated memory …"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory: 2.00 GiB.\n…"),
    ],
)
def test_a_run_without_enough_memory_says_what_takes_less(error, compose_config, small, tmp_path, monkeypatch):
    from depth_lightning.commands.train import train
    from depth_lightning.training import DepthModule

    def full(*_):
        raise error

    monkeypatch.setattr(DepthModule, "training_step", full)
    with pytest.raises(ValueError, match=r"2.00 GiB\. To use less memory, .*data.batch_size below 4") as caught:
        train(compose_config("train", [*small, "self_check=false"], tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_the_command_answers(small, tmp_path):
    command = [sys.executable, "-m", "depth_lightning", "batch-size", *small, "trainer=cpu", "memory_gib=4"]
    command += ["max_batch_size=2", f"hydra.run.dir={tmp_path}/run"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert lines[-1] == "The largest is data.batch_size=2, the limit set by max_batch_size."
    assert [line.partition(":")[0] for line in lines[:-1]] == ["data.batch_size=1", "data.batch_size=2"]
