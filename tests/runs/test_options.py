"""Every option that conf/ has refuses what cannot be right, under its own key; so does every key that nothing reads."""

import math
import os
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from depth_lightning.commands import calibrate, download, export, predict
from depth_lightning.data.object_store import ObjectStore
from depth_lightning.inference import Predictor
from depth_lightning.inference.labels import Labels
from depth_lightning.models import DepthAnythingV2
from depth_lightning.runs import objects
from depth_lightning.runs.options import COMMANDS, CORES, MOST_WORKERS, check
from depth_lightning.settings import SettingError, number

CONF = Path(__file__).resolve().parents[2] / "conf"
GROUPS = sorted({folder.name for folder in CONF.iterdir() if folder.is_dir()} - {"hydra", "experiment", "download"})
PARTS = ("data/default", "data/mixture_base", "loss/default", "model/default", "adapter/none")
"""What others extend, and a choice without options."""
TYPED = {
    **{command: ["input=photos"] for command in ("predict", "label")},
    "pack": ["output=packed"],
    "download": ["download=oakd", "output=data"],
    "data=hub": ["data.path=nowhere"],
    "hparams_search=optuna": ["callbacks.median_pruning.folder=sweep"],
    "data=mixture": [
        *("~data.parts.nyu", "~data.parts.pairs", "+data@data.parts.rooms=rooms"),
        *("data.parts.rooms.root=${run_dir}", "data.parts.rooms.train_images=1"),
    ],
    **{command: ["trainer=cpu"] for command in ("train", "evaluate", "batch_size")},
}
"""Without which a command, or an option, cannot be composed here."""
FREE = {
    *("run_dir", "checkpoint", "input", "output", "metrics_file", "endpoint_url", "device"),
    *("model.weights", "data.root", "data.image", "data.depth", "data.mask", "data.depth_key", "data.manifest"),
    *("data.split_list", "data.cache", "data.endpoint_url"),
    *("data.path", "data.train_split", "data.val_split"),
    *(f"download.{key}" for key in ("title", "page", "licence", "citation", "note", "next", "prepare")),
    "download.files.images.url",
    *("callbacks.checkpoints.folder", "callbacks.checkpoints.monitor", "callbacks.early_stopping.monitor"),
    *("callbacks.watch.folder", "callbacks.median_pruning.folder", "callbacks.median_pruning.run_dir"),
    *(
        "callbacks.median_pruning.monitor",
        "logger.csv.save_dir",
        "logger.tensorboard.save_dir",
        "logger.wandb.save_dir",
    ),
}
"""Texts that are no choice between words: any is taken, but no number, and not an empty one."""
UNCHECKED = {
    *(f"logger.{name}.{key}" for name in ("csv", "tensorboard") for key in ("name", "version")),
    "logger.wandb.project",
}
"""What a logger calls its folder and its project."""
OF_DA2K = {"data.root", "data.size", "data.num_workers", "data.on_error"}
"""What is read where point pairs are scored."""
RIGHT = {
    "trainer.deterministic": [None],
    "logger.wandb.offline": [True],
    "data.depth_offset": [-7, -0.5],
    **{key: [-7, -0.5, math.inf, -math.inf, math.nan] for key in ("data.invalid", "data.sky_value")},
    "trainer.devices": [3],
    "data.split_list": ["words", *([name, name] for name in ("Scene20", "dslr_images", "rgb", "Validation"))],
    "download.files.images.only": [["stereodemo/datasets/oak-d/*"] * 2],
    "data.augmentation": [{"a": 1}],  # refused under the key in it
}
"""Values that would be wrong elsewhere."""


def wrong_values(key, value):
    """Of the other types, and of the same type where none is right."""
    if isinstance(value, bool):
        wrong = ["no", "yes", "maybe", 1, 0, math.nan, None]
    elif isinstance(value, int | float):
        wrong = ["many", "", True, False, {"a": 1}, -7, -0.5, math.nan, math.inf, -math.inf]
    elif isinstance(value, str):
        wrong = ["", 3, True, {"a": 1}, math.nan, *([] if key in FREE else [f"{value}x", value.upper()])]
    elif isinstance(value, list):
        wrong = ["words", 3, True, [math.nan] * len(value), [*value, *value], {"a": 1}]
    else:
        wrong = [True, {"a": 1}, math.nan]
    rights = [value, *RIGHT.get(key, [])]
    return [each for each in wrong if not any(each is right or each == right for right in rights)]


def leaves(raw, path=""):
    """Key → value of everything that may be typed: neither what builds an object, nor what refers to another key."""
    for key, value in raw.items():
        own = f"{path}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from leaves(value, own)
        elif not key.startswith("_") and not (isinstance(value, str) and "${" in value and own not in FREE):
            yield own, value


@pytest.fixture(scope="module")
def tiny():
    return DepthAnythingV2("tiny")


def build(cfg, command, key, tiny):
    """What a command builds of a key before anything is fetched, read or trained."""
    check(cfg, command)
    part = key.split(".")[0]
    if part == "model":
        with torch.device("meta"):
            objects.build_network(cfg.model)
    elif part == "adapter":
        with torch.device("meta"):
            objects.build_network(cfg.model, cfg.adapter)
    elif command == "predict":
        predict.build_outputs(cfg, video=False, metric=True, max_depth=1.0)
        Predictor(tiny, cfg.data.size, cfg.device, cfg.precision)
    elif command == "calibrate":
        calibrate.camera_options(cfg)
    elif command == "label":
        Labels(Path(cfg.output), True, cfg.format, cfg.max_disagreement, cfg.sky)
        Predictor(tiny, cfg.data.size, cfg.device, cfg.precision, flip_average=cfg.flip_average)
    elif command == "export":
        export._chosen_layout(cfg)
    elif command == "download":
        for name, entry in objects.plain(cfg.download)["files"].items():
            download._files(name, entry)
    elif command == "pack":
        ObjectStore("/nowhere", cfg.endpoint_url)
    elif part == "data" and "parts" not in cfg.data and objects.is_point_pairs(cfg.data):
        objects.dataset_of(cfg.data)()
    elif part in ("data", "augmentation"):
        objects.build_data(cfg).dataset(split="train")
    elif part in ("protocol", "metrics", "loss", "optimizer", "scheduler"):
        objects.build_module(cfg, tiny)
    elif part == "trainer":
        objects.build_trainer(cfg, [], [])
    elif part in ("callbacks", "logger"):
        objects.build_all(cfg, part)


def assert_refused(cfg, command, key, value, tiny):
    for wrong in wrong_values(key, value):
        typed = cfg.copy()
        OmegaConf.update(typed, key, wrong, merge=False)
        try:
            build(typed, command, key, tiny)
        except SettingError as error:
            assert str(error).startswith(f"{key} is "), f"{key}={wrong!r}: {error}"
            found = f"found {wrong!r}" in str(error) or f"but {wrong} failed" in str(error)
            assert isinstance(wrong, dict | list) or found, error
        else:
            pytest.fail(f"{key}={wrong!r} was taken")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_of_a_command(command, compose_config, tiny, tmp_path):
    cfg = compose_config(command, TYPED.get(command, []), tmp_path)
    groups = set(GROUPS) - ({"data"} if command in ("predict", "label") else set())
    raw = OmegaConf.to_container(cfg, resolve=False)
    keys = {key: value for key, value in leaves(raw) if key.split(".")[0] not in groups}
    assert {"seed", "run_dir"} < set(keys)
    for key, value in keys.items():
        assert_refused(cfg, command, key, value, tiny)


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group(group, compose_config, tiny, tmp_path):
    part = {"encoder": "model", "head": "model", "hparams_search": "callbacks", "debug": "trainer"}.get(group, group)
    seen = set()
    for option in (f"{group}={file.stem}" for file in (CONF / group).glob("*.yaml")):
        if option.replace("=", "/") in PARTS:
            continue
        command = "evaluate" if option == "data=da2k" else "train"
        trainer = [] if group == "trainer" else ["trainer=cpu"]
        cfg = compose_config(command, [option, *trainer, *TYPED.get(option, [])], tmp_path)
        raw = OmegaConf.to_container(cfg, resolve=False)[part]
        for key, value in leaves({part: raw}):
            own = (key, type(value), str(raw.get("dataset")))  # the same key of another data set is another option
            if own in seen or key in UNCHECKED or key.startswith("data.parts."):
                continue
            if option != "data=da2k" or key in OF_DA2K:
                seen.add(own)
                assert_refused(cfg, command, key, value, tiny)


@pytest.mark.parametrize(
    "typed, message",
    [
        ("+data.batchsize=4", "data.batchsize is not an option. Did you mean data.batch_size?"),
        ("+trainer.max_epoch=3", "trainer.max_epoch is not an option. Did you mean trainer.max_epochs?"),
        ("+optimizer.lrr=1", "optimizer.lrr is not an option. Did you mean optimizer.lr?"),
        ("+callbacks.panels.image=3", "callbacks.panels.image is not an option. Did you mean callbacks.panels.images?"),
        ("+loss.metres.variance=1", "loss.metres.variance is not an option. Did you mean loss.metres.variance_focus?"),
        ("loss=affine_invariant +loss.disparity.trims=1", "loss.disparity.trims is not an option. Did you mean "),
        (
            "+loss.variance_focus=0.7",
            "loss.variance_focus is not an option. Options of loss: across_devices, ",
        ),
        ("+data.dataset.layot=h5", "data.dataset.layot is not an option. Did you mean data.dataset.layout?"),
        ("+data.layot=h5", "data.layot is not an option. Did you mean data.layout?"),
        ("+reports=true", "reports is not an option. Did you mean report?"),
        ("+data.depth_scale=1000", "data.depth_scale is not an option. Options of data: "),
        ("+trainer.foo=1", "trainer.foo is not an option. Options of trainer: accelerator, "),
        ("+callbacks.panel.images=3", "callbacks.panel has no _target_, the class that it is to be. Did you mean "),
        ("+callbacks.own.images=3", "callbacks.own has no _target_, the class that it is to be."),
        (
            "+callbacks.mine._target_=nope.Mine",
            "callbacks.mine._target_ cannot be imported: no module named 'nope'. Install it, or type PYTHONPATH=. "
            "before the command.",
        ),
        (
            "+callbacks.mine._target_=lightning.pytorch.Mine",
            "callbacks.mine._target_ cannot be imported: lightning.pytorch has no 'Mine'.",
        ),
        ("+trainer.logger=false", "trainer.logger is set by the command"),
    ],
)
def test_a_key_that_nothing_reads_is_refused_with_the_nearest(typed, message, compose_config, tmp_path):
    with pytest.raises(SettingError) as caught:
        check(compose_config("train", ["trainer=cpu", *typed.split()], tmp_path), "train")
    assert str(caught.value).startswith(message)


def test_what_something_reads_may_be_added(compose_config, tmp_path):
    typed = [
        *("trainer=cpu", "model=tiny", "+model.features=16", "+loss.metres.per_image=true", "callbacks.worst=null"),
        *("+trainer.val_check_interval=0.5", "+callbacks.watch.window=50", "data.layout=h5"),
        *("+callbacks.mine._target_=lightning.pytorch.callbacks.Timer", "+callbacks.mine.duration=00:00:01:00"),
        *("+logger.wandb._target_=depth_lightning.reporting.loggers.wandb_logger", "+logger.wandb.entity=mine"),
        *("+data.mine=/data", "data.root=${.mine}/nyu", "+rate=1e-5", "optimizer.lr=${rate}"),
        "+metrics.mine=depth_lightning.metrics.errors.mae",
    ]
    cfg = compose_config("train", typed, tmp_path)
    check(cfg, "train")
    assert objects.build_network(cfg.model).head.scratch.output_conv1.in_channels == 16
    assert cfg.optimizer.lr == 1e-5 and objects.dataset_node(cfg.data)["root"] == "/data/nyu"


@pytest.mark.parametrize(
    "typed, key",
    [
        ("loss=scale_invariant loss.up_to_scale.variance_focus=2", "loss.up_to_scale.variance_focus"),
        ("loss=affine_invariant loss.disparity.trim=1", "loss.disparity.trim"),
        ("trainer=fsdp_cpu trainer.strategy.in_parts=no", "trainer.strategy.in_parts"),
        ("data=rooms data.train_images=0", "data.train_images"),
        ("data=pairs data.kind=inches", "data.kind"),
        ("data=mixture_base +data@data.parts.mine=pairs data.parts.mine.kind=inches", "data.parts.mine.kind"),
        ("model.max_depth=1e-30", "model.max_depth"),
        ("protocol.max_depth=1e-4", "protocol.min_depth"),
    ],
)
def test_the_key_is_the_one_that_was_typed(typed, key, compose_config, tiny, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", *typed.split()], tmp_path)
    with pytest.raises(SettingError) as caught:
        build(cfg, "train", key, tiny)
    assert caught.value.name == key


@pytest.mark.parametrize("word", ["no", "off", "yes", "On", "0", "null"])
def test_words_that_hydra_takes_for_text_or_numbers_are_no_booleans(word, compose_config, tmp_path):
    found = repr({"0": 0, "null": None}.get(word, word))
    with pytest.raises(SettingError, match=rf"^report is true or false, found {found}\.$"):
        check(compose_config("train", ["trainer=cpu", f"report={word}"], tmp_path), "train")
    cfg = compose_config("train", [f"model.freeze_encoder={word}"], tmp_path)
    with pytest.raises(SettingError, match=rf"^model\.freeze_encoder is true or false, found {found}\.$"):
        objects.build_network(cfg.model)
    check(compose_config("train", ["trainer=cpu", "report=FALSE", "baseline=True"], tmp_path), "train")


@pytest.mark.parametrize(
    "path, message",
    [
        ("os.path.join", r"^metrics\.mine is f\(prediction, target, mask\) → \(b,\), but os\.path\.join failed: "),
        (
            "nope.nothing",
            r"^metrics\.mine is the import path of a function, found 'nope\.nothing', which cannot be imported: no "
            r"module named 'nope'\. Install it, or type PYTHONPATH=\. before the command\.$",
        ),
        ("torch.addcmul", r"^metrics\.mine .* torch\.addcmul gave tensor"),
        ("3", r"^metrics\.mine is the import path of a function, found 3\."),
    ],
)
def test_a_metric_that_is_none_is_refused_before_training(path, message, compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", f"+metrics.mine={path}"], tmp_path)
    with pytest.raises(SettingError, match=message):
        check(cfg, "train")
        objects.build_metrics(cfg)


def test_a_standard_error_is_not_replaced(compose_config, tmp_path):
    cfg = compose_config("train", ["+metrics.rmse=depth_lightning.metrics.errors.mae"], tmp_path)
    with pytest.raises(
        SettingError, match=r"^metrics\.rmse is the name of a standard metric\. Give yours another name\.$"
    ):
        objects.build_metrics(cfg)


@pytest.mark.parametrize("monitor", ["val/nope", "abs_rel"])
def test_what_is_not_validated_is_not_monitored(monitor, compose_config, tiny, tmp_path):
    typed = ["callbacks=early_stopping", f"callbacks.early_stopping.monitor={monitor}"]
    cfg = compose_config("train", typed, tmp_path)
    with pytest.raises(SettingError, match=rf"^callbacks\.early_stopping\.monitor is one of val/abs_rel.*'{monitor}'"):
        objects.check_monitors(cfg, objects.build_module(cfg, tiny))


def test_a_callback_of_ones_own_may_log_what_is_monitored(compose_config, tiny, tmp_path):
    typed = ["callbacks.checkpoints.monitor=val/mine", "+callbacks.mine._target_=my_package.MyCallback"]
    cfg = compose_config("train", typed, tmp_path)
    objects.check_monitors(cfg, objects.build_module(cfg, tiny))


def test_a_group_may_be_left_out(compose_config, tiny, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", "~callbacks", "~logger"], tmp_path)
    check(cfg, "train")
    assert objects.build_all(cfg, "callbacks") == objects.build_all(cfg, "logger") == {}
    objects.check_monitors(cfg, objects.build_module(cfg, tiny))


@pytest.mark.parametrize("deleted", ["loss.metres", "protocol", "trainer", "data.dataset"])
def test_an_object_cannot_be_left_out(deleted, compose_config, tmp_path):
    with pytest.raises(SettingError, match=rf"^{deleted} is missing: it cannot be left out\.$"):
        check(compose_config("train", [f"~{deleted}"], tmp_path), "train")


@pytest.mark.parametrize("typed", ["trainer.max_epochs=-1", "~trainer.max_epochs"])
def test_a_run_has_an_end(typed, compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", typed], tmp_path)
    with pytest.raises(SettingError, match=r"^trainer\.max_epochs is -1, no limit\. Then set trainer\.max_steps"):
        objects.build_trainer(cfg, [], [])


def test_what_lightning_refuses_is_said_of_the_trainer(compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", "+trainer.max_time=soon"], tmp_path)
    with pytest.raises(ValueError, match=r"^trainer: "):
        objects.build_trainer(cfg, [], [])


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "ddp_notebook", "ddp_spawn_find_unused_parameters_true"])
def test_strategies_whose_processes_keep_their_results_are_refused(strategy, compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", f"trainer.strategy={strategy}"], tmp_path)
    with pytest.raises(SettingError, match=rf"^trainer\.strategy is one of auto, ddp, .* found '{strategy}'\.$"):
        check(cfg, "train")


def test_metrics_may_be_none(compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu"], tmp_path)
    cfg.metrics = None
    check(cfg, "train")
    assert "abs_rel" in objects.build_metrics(cfg).errors


def test_workers_are_not_without_number(compose_config, tmp_path):
    cfg = compose_config("train", ["trainer=cpu", "data.num_workers=1000"], tmp_path)
    most, cores = max(32, 8 * os.cpu_count()), os.cpu_count()
    with pytest.raises(SettingError) as error:
        check(cfg, "train")
    assert str(error.value) == (
        f"data.num_workers is a whole number, 0 to {most}, found 1000. This machine has {cores} cores; null: one for "
        "each, at most 8."
    )


def test_a_checkpoint_of_a_machine_with_more_cores_starts_no_more_workers_than_this_one_bears(compose_config, tmp_path):
    cfg = compose_config("evaluate", ["data=rooms", f"data.root={tmp_path}"])
    cfg.data.num_workers = 10**6
    assert objects.build_data(cfg).num_workers == MOST_WORKERS
    assert objects.worker_count(None) == min(8, CORES) and objects.worker_count(0) == 0


def test_a_number_beyond_all_floats_is_none():
    with pytest.raises(SettingError, match=r"^optimizer\.lr is a number, found 1000"):
        number("optimizer.lr", 10**400)
    assert number("optimizer.lr", 10**300) == 10**300


@pytest.mark.parametrize(
    ("key", "value", "match"),
    [
        ("scheduler._partial_", "val", r"^scheduler\._partial_ is true or false, found 'val'\.$"),
        ("model._convert_", "x", r"^model\._convert_ is one of none, partial, object, all, found 'x'\.$"),
        ("protocol._args_", 3, r"^protocol\._args_ is a list, found 3\.$"),
        ("data.dataset", "nyu", r"^data\.dataset is a group of settings, found 'nyu'\.$"),
        ("callbacks.watch", 3, r"^callbacks\.watch is a group of settings, found 3\.$"),
        ("data.size", {}, r"^data\.size is a whole number, 14 to 4096, found \{\}\.$"),
    ],
)
def test_how_an_object_is_built(key, value, match, compose_config, tmp_path):
    cfg = compose_config("train", TYPED["train"], tmp_path)
    OmegaConf.update(cfg, key, value, force_add=True)
    with pytest.raises(SettingError, match=match):
        check(cfg, "train")


def test_an_object_that_lacks_an_argument_is_named(compose_config, tiny):
    cfg = compose_config("train", [*TYPED["train"], "scheduler._partial_=false"])
    with pytest.raises(SettingError, match=r"^scheduler cannot be built: poly\(\) missing 2 required positional arg"):
        objects.build_module(cfg, tiny)
