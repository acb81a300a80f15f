import pytest
from omegaconf import OmegaConf

from depth_lightning.runs.checkpoint import overlay
from depth_lightning.runs.options import COMMANDS, PATH, PATH_OR_NONE
from depth_lightning.runs.overrides import PATHS, as_typed, references, typed, typed_key
from depth_lightning.settings import SettingError


@pytest.mark.parametrize(
    "override, expected",
    [
        ("optimizer.lr=5e-6", {"optimizer.lr": "5e-6"}),
        ("+metrics.mine=a.b", {"metrics.mine": "a.b"}),
        ("++data.size=84", {"data.size": "84"}),
        ("data.root='a=b, c'", {"data.root": "a=b, c"}),
        ('data.root="it\'s"', {"data.root": "it's"}),
        ("data.crop=[84,112]", {"data.crop": "[84,112]"}),
        ("checkpoint=", {"checkpoint": ""}),
        ("model=vits", {"model": "vits"}),
        ("seed=1,2", {"seed": "1,2"}),
        ("~callbacks.panels", {"callbacks.panels": None}),
        ("~model.features=16", {"model.features": None}),
    ],
)
def test_overrides_are_read_as_hydra_reads_them(override, expected):
    assert typed([override]) == expected


def test_the_last_counts():
    assert typed(["seed=1", "data=nyu", "seed=2"]) == {"seed": "2", "data": "nyu"}


def test_a_key_is_followed_to_the_one_it_refers_to():
    raw = {"root": "${..root}", "count": {"train": "${...train_images}"}, "depth": {"kind": "metres"}}
    assert typed_key("data.dataset", raw, "root") == "data.root"
    assert typed_key("data.dataset", raw, "count.train") == "data.train_images"
    assert typed_key("data.dataset", raw, "depth.kind") == "data.dataset.depth.kind"
    assert typed_key("callbacks.step_seed", {"seed": "${seed}"}, "seed") == "seed"
    loss = {"metres": {"loss": "${..disparity}"}, "up_to_scale": "${.metres}"}
    assert typed_key("loss", loss, "up_to_scale.variance_focus") == "loss.metres.variance_focus"
    assert typed_key("loss", loss, "metres.loss.trim") == "loss.disparity.trim"
    assert set(references({"a": "${b}/x", "c": {"d": ["${..e}", "${oc.env:HOME}"]}})) == {"b", "c.e"}


def test_what_was_deleted_is_deleted_from_what_the_run_says():
    model = {"encoder": "tiny", "features": 16}
    rest = {"data": {"size": 84}, "protocol": {"clip": True}, "metrics": {}, "seed": 1}
    saved = OmegaConf.create({"model": model, **rest})
    composed = OmegaConf.create({"model": {}, "data": {"size": 518}, "protocol": {}, "metrics": {}, "seed": 0})
    composed.update(checkpoint="a.ckpt", trust=[])
    merged = overlay(saved, composed, ["~model.features", "~protocol.clip", "data.size=518"])
    assert merged.model == {"encoder": "tiny"} and merged.protocol == {} and merged.data.size == 518
    assert merged.seed == 1 and saved.model == model


NAMES = ["2011_09_26", "20240101", "1e5", "true", "nan", "[2024]", "IMG (1).png", "a=b", "a#b", "a, b=c", "a,b", "it's"]
NAMES += [
    "epoch=03-val_loss=0.12.ckpt",
    "Köln/ü.png",
    "~/x",
    "{scene}/rgb/*.png",
    " a ",
    "a;b&c!",
    "a\udcffb",
    "choice(a)",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", ["input", "data.root", "+data.parts.mine.root", "hydra.run.dir"])
def test_a_path_is_taken_as_typed(key, name):
    (word,) = as_typed([f"{key}={name}"])
    assert typed([word]) == {key.lstrip("+"): name}
    assert as_typed([word]) == [word]


@pytest.mark.parametrize(
    "word",
    [
        "checkpoint=auto",
        "checkpoint=null",
        "data.root=",
        "data.root=${oc.env:HOME}/data",
        "hydra.run.dir=outputs/${now:%Y-%m-%d}",
        "data.image='{scene}/rgb/*.png'",
        'data.root="20240101"',
        r"input=a\,b",
        "data.split_list=['1','2']",
        "data.limits=[null,80]",
        "~data.root",
        "seed=1_0",
    ],
)
def test_what_hydra_reads_as_meant_stays(word):
    assert as_typed([word]) == [word]


def test_scenes_and_sweeps_of_paths():
    assert as_typed(["data.split_list=[1, 02,b]"]) == ["data.split_list=['1',02,b]"]
    swept = ["-m", "data.root=2011_09_26,b", "model.weights=glob(*.pth)", "seed=1,2", "input=IMG (1).png"]
    quoted = ["-m", "data.root='2011_09_26',b", "model.weights=glob(*.pth)", "seed=1,2", "input='IMG (1).png'"]
    assert as_typed(swept) == quoted
    assert as_typed(["--config-dir", "a=(1)", "--multirun", "input=1"]) == [
        *("--config-dir", "a=(1)"),
        *("--multirun", "input='1'"),
    ]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        (
            "logger.wandb.name=run (1).b",
            """cannot be read as 'run (1).b'. Quote it twice: "logger.wandb.name='run (1).b'\"""",
        ),
        ("photos/", "photos/ is not key=value. A value with spaces takes quotes: 'input=my photo.jpg'"),
    ],
)
def test_what_needs_quotes(word, message):
    with pytest.raises(SettingError) as error:
        as_typed([word])
    assert str(error.value).endswith(message)


def test_every_option_that_is_a_path_is_known_before_the_configuration_is_read():
    options = {name for command in COMMANDS.values() for name, rule in command.items() if rule in (PATH, PATH_OR_NONE)}
    assert options - {"run_dir"} <= {*PATHS}
