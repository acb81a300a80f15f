"""Every option of every group composes, and becomes the object it describes where this machine allows it."""

import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from depth_lightning.commands.train import train
from depth_lightning.metrics import directions
from depth_lightning.runs import objects
from depth_lightning.runs.options import check
from depth_lightning.settings import SettingError
from depth_lightning.training.optimizer import adamw

CONF = Path(__file__).resolve().parents[2] / "conf"
EVALUATE = ["model", "encoder", "data", "protocol", "trainer"]
TRAIN = [*EVALUATE, "augmentation", "loss", "optimizer", "scheduler", "callbacks", "logger", "experiment"]
TRAIN += ["head", "adapter", "camera", "metrics", "hparams_search", "debug"]
OPTIONS = [
    (name, group, file.stem)
    for name, groups in (("train", TRAIN), ("evaluate", EVALUATE))
    for group in groups
    for file in sorted((CONF / group).glob("*.yaml"))
    if (group, file.stem)
    not in {("model", "default"), ("data", "default"), ("data", "mixture_base"), ("loss", "default")}
]
NEEDS_GPU = {"fp16", "ddp_fp16", "nyu_vits"}


def test_every_folder_of_conf_is_tested():
    elsewhere = {"hydra", "download"}  # test_download tests the latter
    assert {folder.name for folder in CONF.iterdir() if folder.is_dir()} - elsewhere == set(TRAIN)


@pytest.mark.parametrize("name, group, option", OPTIONS)
def test_option_becomes_objects(name, group, option, compose_config, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    # hydra.* is composed by the programs alone; the search is run by a test of its own.
    overrides = [] if group == "hparams_search" else [f"{group}={option}"]
    cfg = compose_config(name, overrides, tmp_path)
    check(cfg, name)
    with torch.device("meta"):
        network = objects.build_network(cfg.model, cfg.get("adapter"))
    objects.build_metrics(cfg)
    if group == "data" and not OmegaConf.missing_keys(cfg):
        objects.build_data(cfg)
    if name == "train":
        module = objects.build_module(cfg, network)
        assert module.optimizer(network.parameter_groups()).param_groups
        assert 0 < module.schedule(0, 100) <= 1
    if option in NEEDS_GPU and not torch.cuda.is_available():
        return
    if group in ("trainer", "callbacks", "experiment", "debug"):
        objects.build_trainer(cfg, list(objects.build_all(cfg, "callbacks").values()), [])
    elif group == "logger":
        assert objects.build_all(cfg, "logger")


@pytest.mark.parametrize("encoder", ["vits", "vitb", "vitl", "vitg", "tiny"])
def test_encoder_swaps_the_encoder_and_the_head_follows(encoder, compose_config):
    swapped, chosen = (compose_config("train", [f"{group}={encoder}"]).model for group in ("encoder", "model"))
    assert swapped == chosen


def test_the_articles_recipe(compose_config):
    """FIELD: batch 11, 5e-6 and ten times that, AdamW 0.01, cosine with half an epoch of ten, fp16, metres up to 10."""
    cfg = compose_config("train", ["experiment=nyu_vits"])
    assert (cfg.data.batch_size, cfg.trainer.max_epochs, cfg.trainer.precision) == (11, 10, "16-mixed")
    network = torch.nn.ParameterDict({"encoder": torch.zeros(1), "head": torch.zeros(1)})
    optimizer = objects.build_module(cfg, _tiny()).optimizer({name: [p] for name, p in network.items()})
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-6, 5e-5])
    assert cfg.scheduler.warmup * cfg.trainer.max_epochs == 0.5
    assert isinstance(optimizer, torch.optim.AdamW)


def test_the_authors_recipe(compose_config):
    cfg = compose_config("train", ["experiment=nyu_paper"])
    assert cfg.data.batch_size * cfg.trainer.accumulate_grad_batches == 32
    schedule = objects.build_module(cfg, _tiny()).schedule
    assert [schedule(step, 10) for step in range(10)] == pytest.approx([(1 - step / 10) ** 0.9 for step in range(10)])
    assert (cfg.data.size, cfg.data.augmentation, cfg.trainer.precision) == (518, "authors", "32-true")


@pytest.mark.parametrize(
    "key, value",
    [
        ("optimizer.lr", -1),
        ("scheduler.warmup", 1),
        ("data.batch_size", 0),
        ("data.eval_batch_size", 0),
        ("data.num_workers", -1),
        ("data.size", None),
        ("seed", -1),
        ("trainer.max_epochs", 0),
        ("trainer.max_epochs", 1.5),
        ("trainer.max_steps", 0),
        ("trainer.accumulate_grad_batches", 0),
        ("trainer.check_val_every_n_epoch", 0),
        ("trainer.limit_train_batches", 0),
        ("callbacks.panels.images", -1),
        ("callbacks.panels.every_n_epochs", 0),
        ("callbacks.worst.images", 0),
        ("callbacks.checkpoints.monitor", "val/nope"),
        ("model.max_depth", "inf"),
        ("model.max_depth", 0),
        ("model.init", "neck"),
        ("report", "no"),
    ],
)
def test_values_that_cannot_be_right_are_refused_before_anything_is_loaded(key, value, compose_config, tmp_path):
    typed = f"{key}={'null' if value is None else value}"
    absent = ["experiment=rooms", f"data.root={tmp_path}/rooms", f"model.weights={tmp_path}/none.pth"]
    with pytest.raises(SettingError, match=rf"^{re.escape(key)} is .*found '?{value}'?\."):
        train(compose_config("train", [*absent, typed], tmp_path / "run"))
    assert not (tmp_path / "rooms").exists()


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "null"])
def test_weights_of_another_type_are_refused(precision, compose_config, tmp_path):
    cfg = compose_config("evaluate", ["trainer=cpu", f"trainer.precision={precision}"], tmp_path)
    with pytest.raises(SettingError, match=r"^trainer\.precision is one of auto, 32-true, bf16-mixed, 16-mixed, found"):
        check(cfg, "evaluate")


def test_a_run_may_be_as_long_as_its_steps(compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", "trainer.max_epochs=-1", "trainer.max_steps=5"], tmp_path)
    assert objects.build_trainer(cfg, [], []).max_steps == 5


def test_metrics_of_your_own(compose_config):
    cfg = compose_config("train", ["+metrics.mine=depth_lightning.metrics.errors.mae"])
    metrics = objects.build_metrics(cfg)
    target = torch.ones(1, 4, 4)
    metrics.update(target + 0.5, target, target > 0)
    assert metrics.compute()["mine"] == 0.5 and not directions(metrics.errors)["mine"]


def _tiny():
    from depth_lightning.models import DepthAnythingV2

    return DepthAnythingV2("tiny")


def test_adamw_is_the_default(compose_config):
    assert objects.build_module(compose_config("train", []), _tiny()).optimizer.func is adamw
