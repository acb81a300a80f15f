"""Processes that could not start, or would wait for others that never come, are refused before anything begins."""

import os

import pytest
import torch

from depth_lightning.runs import objects
from depth_lightning.runs.processes import LAUNCHERS, check_processes
from depth_lightning.settings import SettingError


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in [*LAUNCHERS, *(name for name in os.environ if name.startswith("SLURM"))]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 6)


@pytest.mark.parametrize("devices", [7, 100, "100", -1, "-1", [0], "0,1", [0, 1]])
def test_a_cpu_runs_as_many_processes_as_it_has_cores(devices, compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu"], tmp_path)
    cfg.trainer.devices = devices
    with pytest.raises(SettingError) as error:
        objects.build_trainer(cfg, [], [])
    assert str(error.value) == (
        f"trainer.devices is the number of processes where there is no GPU, 1 to 6 with 6 cores, found {devices!r}."
    )


@pytest.mark.parametrize("devices", [1, 4, 6, "6", "auto"])
def test_that_many_are_fine(devices):
    check_processes({"accelerator": "cpu", "devices": devices})


@pytest.mark.parametrize(
    ("devices", "allowed"), [(1, True), (2, True), (3, False), ("auto", True), (-1, True), ([1], True), ("0, 2", False)]
)
def test_gpus_exist(devices, allowed, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    if allowed:
        check_processes({"devices": devices})
        return
    with pytest.raises(SettingError) as error:
        check_processes({"devices": devices})
    expected = f"trainer.devices is 1 to 2 with the GPUs that torch sees here, found {devices!r}."
    assert str(error.value) == expected


def test_a_node_does_not_wait_for_others_that_nobody_started(compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", "trainer.num_nodes=2"], tmp_path)
    with pytest.raises(
        SettingError, match=r"^trainer\.num_nodes is 2, but this process was started alone\. .*torchrun "
    ):
        objects.build_trainer(cfg, [], [])


def test_nodes_that_know_one_another_have_half_an_hour(monkeypatch, caplog):
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    with caplog.at_level("INFO"):
        check_processes({"accelerator": "cpu", "devices": 1, "num_nodes": 2})
    assert "The 2 nodes have half an hour to find one another." in caplog.text
