"""Random values of every option: a command does its work, or says what is wrong with which key, and nothing else."""

import re

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from in_process import ROOT, TRACES, call, listing
from omegaconf import OmegaConf
from world import TRAINER, isolated, make, pairs

from depth_lightning.runs.options import COMMANDS

pytestmark = pytest.mark.slow
CASES = 200
FUZZED = ("train", "evaluate", "predict", "export", "doctor", "show", "pack")
"""Not `download` and `batch_size`, which fetch files and fill memory."""
SKIPPED = re.compile(r"hydra\.|run_dir|compile$|.*url|.*_target_|.*_convert_|trainer\.(devices|num_nodes|strategy)$")
"""Keys whose right values take minutes, contact a server or start processes, and those that name code, which runs."""
VALUES = [
    *("", "null", "true", "false", "no", "on", "None", "auto", "nan", ".nan", "inf", "-inf", "???", "0", "1", "2"),
    *(
        "-1",
        "3",
        "28",
        "0.5",
        "-0.5",
        "1e-30",
        "1e30",
        "-1e30",
        "1e3",
        "1e400",
        "1_0",
        "0x1f",
        f"1{30 * '0'}",
        "9" * 400,
    ),
    *(
        "[]",
        "[1]",
        "[1,2]",
        "[nan,nan]",
        "[2,1]",
        "[28,28]",
        "[null]",
        "[[1],[2]]",
        "{}",
        "{a:1}",
        "{a:{b:[1]}}",
        "1,2",
    ),
    *("word", "Küche", "e\u0301", "\u202egnp", "two words", "'quoted'", '"', "'", "\\", "(", "a=b", "a#b", "a:b", "%s"),
    *("{0}", "${seed}", "${nothing}", "${..seed}", "${oc.env:NOTHING}", "${", "${hydra:job.name}", "*", "a,b", "0,1"),
    *("range(1,3)", "/dev/null", "/dev/zero", "nowhere/x.png", "sub/folder", "n" * 300, "\t", "-", "--help"),
    *(
        "{_target_:os.getcwd}",
        "{_target_:nowhere.x}",
        "[{_target_:os.getcwd}]",
        "{_args_:[1]}",
        "best",
        "val",
        "2.0",
        "1,2",
    ),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        isolated(patch, folder)
        make(folder)
        yield folder


def base(command, world):
    """The words with which a command succeeds within a second or two."""
    checkpoint, data = f"checkpoint={world}/run/checkpoints/best.ckpt", pairs(world)
    return {
        "train": ("model=tiny", *data, *TRAINER),
        "evaluate": (checkpoint, "trainer=cpu"),
        "predict": (checkpoint, f"input={world}/rgb", "device=cpu", "data.size=28"),
        "export": (checkpoint,),
        "doctor": data,
        "show": data,
        "pack": (*data, "output=packed"),
    }[command]


def options(command, words):
    """Every key that may be typed, and its value; None for those that stand only in the declared table."""

    def leaves(node, path, known):
        for key, value in node.items():
            at = f"{path}.{key}".lstrip(".")
            if key == "*":  # any name
                continue
            if isinstance(value, dict) and value:
                yield from leaves(value, at, known)
            elif not SKIPPED.match(at):
                yield at, value if known else None

    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = OmegaConf.to_container(compose(command, [*words, "run_dir=x"]), resolve=False)
    return {**dict(leaves(COMMANDS[command], "", False)), **dict(leaves(cfg, "", True))}


def groups():
    return {
        folder.name: [file.stem for file in folder.glob("*.yaml")]
        for folder in (ROOT / "conf").iterdir()
        if folder.is_dir() and folder.name not in ("hydra", "download", "hparams_search", "model", "encoder")
    }


def value(rng, present):
    """A value that is typed: of the list, or one near to the present one, which may be right."""
    if rng.random() < 0.5 or present is None:
        return VALUES[rng.integers(len(VALUES))]
    if isinstance(present, bool):
        return str(rng.random() < 0.5).lower()
    if isinstance(present, int | float):
        return f"{present * rng.choice([-1, 0, 0.5, 1, 2, 10]):.12g}"
    return str(present).replace("'", "").replace(" ", "")


def configuration(rng, world):
    """A command, and up to three random settings."""
    command = str(rng.choice(FUZZED))
    words = base(command, world)
    known = options(command, words)
    typed = []
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.15:
            group, names = sorted(groups().items())[rng.integers(len(groups()))]
            typed.append(f"{group}={rng.choice(sorted(names))}")
            continue
        key = sorted(known)[rng.integers(len(known))]
        if rng.random() < 0.1:  # a slip
            key = key[:-1] if rng.random() < 0.5 else f"{key}s"
        mark = "~" if rng.random() < 0.05 else "+" if rng.random() < 0.1 else "++" if rng.random() < 0.1 else ""
        typed.append(f"{mark}{key}" if mark == "~" else f"{mark}{key}={value(rng, known.get(key))}")
    return command, (*words, *typed, "hydra.run.dir=run"), typed


def names_one(message, typed, command):
    """Whether a message names a key that was typed, or the option with which it does not agree."""
    keys = {word.lstrip("~+").partition("=")[0] for word in typed}
    others = "|".join(re.escape(key) for key in options(command, ()))
    return any(key.rpartition(".")[2] in message for key in keys) or re.search(rf"\b({others})( is |=)", message)


@pytest.mark.parametrize("number", range(CASES))
def test_a_configuration(number, world, tmp_path):
    command, words, typed = configuration(np.random.default_rng([0, number]), world)
    before = listing(world)
    outcome = call(command, *words, cwd=tmp_path)
    assert not TRACES.search(outcome.printed), f"{command} {typed}\n{outcome.printed}"
    assert listing(world) == before
    if outcome.status not in ((0, 2) if command == "doctor" else (0,)):
        assert outcome.status == 1
        assert names_one(outcome.printed, typed, command), f"{command} {typed}\n{outcome.message}"
