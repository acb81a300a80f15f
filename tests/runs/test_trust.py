"""What a stranger's file can make the commands do: nothing but score, predict and export its network."""

import copy

import pytest
import torch
from omegaconf import OmegaConf

from depth_lightning.commands.evaluate import evaluate
from depth_lightning.runs.checkpoint import chosen_network, describe, overlay, read_run_checkpoint
from depth_lightning.runs.record import Origin, find_origin
from depth_lightning.runs.trust import UntrustedConfigError, refuse_resolvers, refuse_strangers
from depth_lightning.settings import SettingError

RUNS = "open('{proof}', 'w').close()"


def shared_error(prediction, target, mask):
    """Of `trust=[test_trust]`."""
    return prediction.new_zeros(len(prediction))


@pytest.fixture(scope="module")
def recorded(compose_config):
    """The configuration in a checkpoint of the rooms."""
    return describe(compose_config("train", ["experiment=rooms", "data.root=rooms"]))


@pytest.fixture
def checkpoint(recorded, tmp_path):
    """checkpoint(change): a file whose configuration was changed."""

    def write(change):
        config = copy.deepcopy(recorded)
        change(config)
        torch.save({"config": config, "state_dict": {"a": torch.zeros(1)}, "global_step": 1}, tmp_path / "a.ckpt")
        return tmp_path / "a.ckpt"

    return write


@pytest.fixture(scope="module")
def plain(compose_config):
    """What `evaluate.py checkpoint=…` alone is given."""
    return compose_config("evaluate", ["checkpoint=a.ckpt"])


@pytest.fixture
def chosen(compose_config, checkpoint, plain):
    """chosen(change, *typed): what `evaluate.py` would build from such a checkpoint."""

    def choose(change, *typed):
        cfg = compose_config("evaluate", list(typed)) if typed else plain.copy()
        cfg.checkpoint = str(checkpoint(change))
        return chosen_network(cfg, typed, "evaluate")[0]

    return choose


def call(target, **arguments):
    return {"_target_": target, **arguments}


RUN_CODE = {
    "model.recompute_blocks": lambda c: c["model"].update(recompute_blocks=call("os.system", command="true")),
    "model.freeze_encoder": lambda c: c["model"].update(freeze_encoder=call("sympy.sympify", a=RUNS)),
    "model.max_depth": lambda c: c["model"].update(max_depth=[call("numpy.load", file="x", allow_pickle=True)]),
    "model": lambda c: c["model"].update(_target_="builtins.dict"),
    "adapter": lambda c: c.update(adapter=call("peft.PeftModel.from_pretrained")),
    "adapter.linears": lambda c: c.update(adapter=call("depth_lightning.models.LoRA", linears=[call("os.system")])),
    "model.adapter": lambda c: c["model"].update(adapter=call("os.system", command="true")),
    "data.dataset": lambda c: c["data"]["dataset"].update(_target_="subprocess.run"),
    "data.dataset.count": lambda c: c["data"]["dataset"].update(count=call("sympy.sympify", a=RUNS)),
    "data.dataset.count.train": lambda c: c["data"]["dataset"]["count"].update(
        train=call("depth_lightning.data.RenderedRooms")
    ),
    "data.parts.a.dataset": lambda c: c["data"].update(parts={"a": {"dataset": call("pathlib.Path.unlink")}}),
    "data.augmentation.0": lambda c: c["data"].update(augmentation=[call("albumentations.load", filepath="x")]),
    "data.augmentation.0.image": lambda c: c["data"].update(
        augmentation=[call("albumentations.Lambda", image=call("hydra.utils.get_method", path="os.system"))]
    ),
    "protocol.crop": lambda c: c["protocol"].update(crop=call("pathlib.Path.write_text")),
    "protocol": lambda c: c.update(protocol=call("depth_lightning.metrics.DepthMetrics")),
    "metrics.x": lambda c: c.update(metrics={"x": "builtins.eval"}),
    "metrics.y": lambda c: c.update(metrics={"y": "antigravity.geohash"}),
    "metrics.z": lambda c: c.update(metrics={"z": call("depth_lightning.metrics.errors.abs_rel")}),
    "metrics.torch": lambda c: c.update(metrics={"x": "depth_lightning.metrics.errors.torch.os.system"}),
    "metrics.errors": lambda c: c.update(metrics={"errors": "depth_lightning.metrics.errors_of_mine.x"}),
    "node interpolation": lambda c: c["model"].update(recompute_blocks="${trainer}"),
}


@pytest.mark.parametrize("change", RUN_CODE.values(), ids=RUN_CODE)
def test_code_that_a_checkpoint_names_is_not_run(change, chosen):
    with pytest.raises(UntrustedConfigError, match=r"a\.ckpt: [\w.]+ in its configuration names .*not of this project"):
        chosen(change)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda c: c["model"].update(_args_=["vits"]), r"model\._args_ in its configuration does not belong there"),
        (lambda c: c["model"].update(_partial_=True), r"model\._partial_ in its configuration does not belong"),
        (lambda c: c["data"].update(mine={"_args_": []}), r"data\.mine\._args_ in its configuration does not belong"),
        (lambda c: c.update(seed="x"), r"seed in its configuration is a whole number, 0 to 4294967295, found 'x'\."),
        (lambda c: c.update(seed=2**70), r"seed in its configuration is a whole number, 0 to 4294967295, found 118"),
        (lambda c: c.update(protocol=[]), r"protocol in its configuration is a group of settings, found \[\]\."),
        (
            lambda c: c.update(adapter=call("depth_lightning.models.LoRA", note=1)),
            r"adapter\.note in its configuration is",
        ),
        (lambda c: c["model"].update(note="x"), r"model\.note in its configuration is not an argument of depth"),
        (lambda c: c["data"]["dataset"].update(hook=1), r"data\.dataset\.hook in its configuration is not an argument"),
        (lambda c: c["data"].update(root="${oc.env:HOME}"), r"data\.root in its configuration is '\$\{oc\.env:HOME\}'"),
        (lambda c: c["model"].update(encoder="${oc.decode:tiny}"), r"model\.encoder in its configuration is"),
        (lambda c: c.update(seed="${hydra:runtime.cwd}"), r"seed in its configuration is"),
        (lambda c: c["data"].update(root="$${seed}{oc.env:HOME}"), r"data\.root in its configuration is"),
        (lambda c: c["data"].update(root="${data.${oc.env:HOME}}"), r"data\.root in its configuration is"),
        (lambda c: c["trainer"].update(devices=["${oc.env:HOME}"]), r"trainer\.devices\.0 in its configuration is"),
        (
            lambda c: c["data"].update(image=("${oc.env:HOME}",)),
            r"data\.image\.0 in its configuration is '\$\{oc\.env:",
        ),
        (
            lambda c: c["model"].update({"max_depth.x": {}}),
            r"model\.max_depth\.x in its .* has a dot in its name",
        ),
        (lambda c: c["data"].update(root="s3://bucket/x"), r"data\.root in its configuration is the address s3://buck"),
        (lambda c: c["data"].update(endpoint_url="http://127.0.0.1:1"), r"endpoint_url in its configuration is the"),
        (
            lambda c: c["data"].update(root="s3${data.a}${data.b}", a=":/", b="/x"),
            r"data\.root in its .* address s3://x",
        ),
        (
            lambda c: (c["model"].update(weights="s3://x"), c["data"].update(root="${model.weights}")),
            "model.weights in",
        ),
        (lambda c: c["data"].update(image=["http://x/a.png"]), r"data\.image\.0 in its configuration is the address"),
        (lambda c: c["data"].update(path="org/name"), r"data\.path in its configuration is the address org/name\."),
        (
            lambda c: (c["data"].update(root="org/name"), c["data"]["dataset"].update(path="${data.root}")),
            r"data\.dataset\.path in its configuration is the address org/name\.",
        ),
        (lambda c: c["data"].update(root="//host/share"), r"data\.root in its configuration is the address //host"),
        (
            lambda c: c["data"].update(parts={"a": {"root": "\\\\host\\x"}}),
            r"parts\.a\.root in its configuration is th",
        ),
    ],
)
def test_what_does_not_belong_is_named(change, match, chosen):
    with pytest.raises(UntrustedConfigError, match=match):
        chosen(change)


@pytest.mark.parametrize("config", [None, [], "text", {"model": torch.zeros(2)}, {1: {2: object}}])
def test_a_configuration_that_is_none(config, tmp_path):
    torch.save(
        {"config": config if config != {1: {2: object}} else {1: {2: {3}}}, "state_dict": {}}, tmp_path / "b.ckpt"
    )
    with pytest.raises(ValueError, match=r"b\.ckpt"):
        read_run_checkpoint(tmp_path / "b.ckpt")


def test_an_environment_variable_reaches_no_file(checkpoint, compose_config, monkeypatch, tmp_path):
    monkeypatch.setenv("SECRET", "xyzzy")
    typed = [f"checkpoint={checkpoint(lambda c: c['data'].update(root='${oc.env:SECRET}'))}", "report=true"]
    with pytest.raises(UntrustedConfigError) as error:
        evaluate(compose_config("evaluate", typed, tmp_path / "run"), typed)
    assert "xyzzy" not in str(error.value) and not (tmp_path / "run").exists()


def test_what_is_typed_is_the_users_own(chosen, tmp_path):
    strange = lambda c: c["data"]["dataset"].update(_target_="my_package.MyData")  # noqa: E731
    assert chosen(strange, "data=nyu").data.dataset._target_ == "depth_lightning.data.NYUDepthV2"
    shards = ("data=shards", "data.root=s3://bucket/x", "data.endpoint_url=http://h")
    typed = chosen(lambda c: None, "+metrics.mine=builtins.len", *shards)
    assert typed.metrics.mine == "builtins.len" and typed.data.endpoint_url == "http://h"
    own = "data.dataset._target_=collections.UserList"
    assert chosen(lambda c: None, own).data.dataset._target_ == "collections.UserList"


def test_a_data_set_of_the_hub_is_only_loaded_if_it_is_typed(chosen, tmp_path):
    typed = chosen(lambda c: c["data"].update(path="org/name"), "data=hub", "data.path=org/name")
    assert typed.data.path == "org/name"
    assert chosen(lambda c: c["data"].update(path=str(tmp_path))).data.path == str(tmp_path)  # a folder


def test_what_is_typed_beside_a_checkpoint_is_checked_before_it(chosen):
    with pytest.raises(SettingError, match=r"^trust is a list of packages, found 1\.$"):
        chosen(lambda c: None, "trust=1")
    with pytest.raises(
        SettingError, match=r"^protocol is missing\. Leave out protocol=\[\] to take the checkpoint's\.$"
    ):
        chosen(lambda c: None, "protocol=[]")


def test_the_losses_of_an_incident_are_known_ones(compose_config):
    saved = OmegaConf.create({"loss": describe(compose_config("train", []))["loss"]})
    saved.loss.mine = {}
    with pytest.raises(UntrustedConfigError, match=r"^incident: loss\.mine in its configuration does not belong there"):
        refuse_strangers(saved, ("loss",), "incident")


def test_trust_names_packages_whole(chosen):
    metric = lambda c: c.update(metrics={"mine": "test_trust.shared_error"})  # noqa: E731
    with pytest.raises(
        UntrustedConfigError, match=r"metrics\.mine.*names test_trust\.shared_error.*trust=\[test_trust\]"
    ):
        chosen(metric)
    assert chosen(metric, "trust=[test_trust]").metrics.mine == "test_trust.shared_error"
    with pytest.raises(UntrustedConfigError):
        chosen(metric, "trust=[test]")
    with pytest.raises(UntrustedConfigError):  # a checkpoint cannot widen it
        chosen(lambda c: (metric(c), c.update(trust=["test_trust"])))


def test_all_that_the_project_writes_itself_passes(compose_config, plain):
    for typed in (
        ["data=nyu"], ["data=pairs", "data.image=a", "data.depth=b"], ["data=kitti"], ["data=mixture"], ["data=shards"],
        ["data=hub", "data.path=/"], ["data=eth3d"], ["data=sunrgbd"], ["data=tum"], ["data=ibims1"],
        ["adapter=lora", "head=log_depth"], ["experiment=relative", "data.manifest=a.csv"],
        ["loss=affine_invariant", "data=vkitti2"], ["loss=l1"],
        ["data.augmentation=[{_target_: albumentations.OneOf, transforms: [{_target_: albumentations.Blur}]}]"],
    ):  # fmt: skip
        has_root = typed[0] not in ("data=mixture", "data=hub")
        train = compose_config("train", ["data.root=x" if has_root else "seed=1", *typed])
        saved = OmegaConf.create(describe(train))
        overlay(saved, plain, ["checkpoint=a.ckpt"])
        refuse_strangers(saved, ("model", "loss", "optimizer", "scheduler", "protocol", "metrics"), "incident")


def test_weights_that_name_themselves_come_from_nowhere(checkpoint, tmp_path):
    path = checkpoint(lambda c: c["model"].update(weights=str(tmp_path / "a.ckpt")))
    assert find_origin(path) == Origin(None, None)


def test_what_a_resolver_gave_a_run_stands_in_its_checkpoint(compose_config, plain):
    typed = ["data=nyu", "data.root=${oc.decode:frames}/${seed}", "data.layout=${model.output}"]
    saved = describe(compose_config("train", typed))
    assert saved["data"]["root"] == "frames/0" and saved["data"]["layout"] == "${model.output}"
    refuse_resolvers({"data": saved["data"]}, "a.ckpt")
