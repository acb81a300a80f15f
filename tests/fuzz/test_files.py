"""Random damage to every kind of file that is read: a command does its work, or names the file, and nothing else."""

import copy
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from in_process import TRACES, call, listing
from world import DEPTHS, SMALL, TRAINER, isolated, make, pairs

pytestmark = pytest.mark.slow
CASES = 200
TOKENS = [
    *(
        "",
        " ",
        "-1",
        "0",
        "1e400",
        "9" * 400,
        "NaN",
        "Infinity",
        "-0.0",
        "true",
        "null",
        "None",
        "[" * 100_000,
        '"',
        "\0",
    ),
    *(
        "../../outside.png",
        "/etc/hostname",
        "/dev/zero",
        "~",
        "${oc.env:HOME}",
        "${seed}",
        "\ufeff",
        "\r",
        "\u2028",
        "'",
    ),
    *(
        "Küche",
        "e\u0301",
        "a" * 300,
        "{}",
        "[]",
        "a,b",
        "\t",
        "val",
        "train",
        "rgb",
        "s3://bucket/x",
        "%s",
        "\\",
        "{a}",
    ),
]
"""What takes the place of a word in a text."""
LEAVES = [
    *(None, True, -1, 0, 2**70, 1e308, float("nan"), float("inf"), "", "word", "../../outside", "${oc.env:HOME}", []),
    *({}, [[]], {"_target_": "os.getcwd"}, {"a": {"b": [1]}}, "http://127.0.0.1:9/x", "a" * 300, [float("nan")] * 4),
]
"""What takes the place of a value in a tree."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        isolated(patch, folder)
        make(folder)
        yield folder


def readers(name):
    """The commands that read a file, given by its path below the world."""
    folder, checkpoint = Path(name).parts[0], "checkpoint=run/checkpoints/best.ckpt"
    train = ("train", "model=tiny", *TRAINER, "self_check=false", "hydra.run.dir=out")
    if folder in ("rgb", "depth"):
        data = pairs(".", Path(name).suffix[1:] if folder == "depth" else "png")
        predict = [("predict", checkpoint, "input=rgb", "device=cpu", "output=out")] if folder == "rgb" else []
        return [(*train, *data), (*train, *data, "data.on_error=skip"), ("doctor", *data), ("show", *data), *predict]
    if folder == "mask" or name.startswith("table."):
        manifest = "data.manifest=" + ("table.csv" if folder == "mask" else name)
        return [("doctor", "data=pairs", manifest, *SMALL), (*train, "data=pairs", manifest, *SMALL)]
    if folder == "nyu":
        return [("doctor", "data=nyu", "data.root=nyu", *SMALL), (*train, "data=nyu", "data.root=nyu", *SMALL)]
    if folder == "shards":
        shards = ("data=shards", "data.root=shards", "data.cache=cache", *SMALL)
        return [("doctor", *shards), (*train, *shards), ("evaluate", checkpoint, *shards, "trainer=cpu")]
    if folder == "broken":
        return [("replay", str(Path(*Path(name).parts[:3])))]
    if folder == "scores":
        return [("compare", "scores", "run"), ("export", checkpoint, "metrics_file=scores/metrics.json", "output=out")]
    resumed = (*train[:-1], "hydra.run.dir=run", *pairs("."), "checkpoint=auto", "trainer.max_epochs=2")
    return {
        "val.txt": [(*train, *pairs("."), "data.split_list=val.txt")],
        "photos.txt": [("predict", checkpoint, "input=photos.txt", "device=cpu", "output=out")],
        "run/checkpoints/best.ckpt": [
            ("evaluate", checkpoint, "trainer=cpu", "report=true"),
            ("predict", checkpoint, "input=rgb", "device=cpu"),
            ("export", checkpoint, "output=out"),
        ],
        "run/checkpoints/last.ckpt": [resumed],
        "run/config.yaml": [resumed],
        "run/metrics.csv": [resumed, ("evaluate", checkpoint, "trainer=cpu", "report=true")],
        "sweep/0/metrics.json": [("compare", "sweep")],
        "sweep/0/.hydra/overrides.yaml": [("compare", "sweep")],
        "photos/predict.json": [("predict", checkpoint, "input=rgb", "device=cpu", "output=photos", "save=npy")],
    }[name]


FILES = [
    *("rgb/3.png", *(f"depth/3.{suffix}" for suffix in DEPTHS), "mask/3.png", "nyu/train/scene/00003.h5", "photos.txt"),
    *("table.csv", "table.jsonl", "val.txt", "shards/index.json", "shards/train/000000.tar", "shards/val/000000.tar"),
    *("run/checkpoints/best.ckpt", "run/checkpoints/last.ckpt", "run/metrics.csv", "run/config.yaml"),
    *(f"broken/incidents/step_000000/{name}" for name in ("incident.json", "weights.safetensors")),
    *("broken/incidents/step_000000/batch_0.safetensors", "scores/metrics.json", "scores/per_image.parquet"),
    *("sweep/0/metrics.json", "sweep/0/.hydra/overrides.yaml", "photos/predict.json"),
]


LARGE = (".ckpt", ".safetensors")


def damage(rng, path, world):
    """Change a file at random."""
    content = path.read_bytes()
    path.unlink()
    choice = rng.integers(10)
    if choice == 0:
        [path.mkdir, lambda: os.mkfifo(path), lambda: path.symlink_to("nowhere"), lambda: path.symlink_to(path.name)][
            rng.integers(4)
        ]()
    elif choice == 1:
        path.write_bytes((world / FILES[rng.integers(len(FILES))]).read_bytes())
    elif choice == 2:
        path.write_bytes([b"", b"hello", bytes(len(content)), b"\xff" * 100, content + content][rng.integers(5)])
    elif choice == 3:
        path.write_bytes(content[: rng.integers(len(content))])
    elif path.suffix in (".json", ".ckpt") and choice < 8:
        in_tree(rng, path, content)
    elif path.suffix in (".csv", ".jsonl", ".txt", ".yaml") and choice < 9:
        words = content.decode().replace(",", " , ").split(" ")
        words[rng.integers(len(words))] = TOKENS[rng.integers(len(TOKENS))]
        path.write_text(" ".join(words).replace(" , ", ","), errors="surrogatepass")
    else:  # in the header, or anywhere
        changed = bytearray(content)
        for _ in range(rng.integers(1, 9)):
            at = rng.integers(min(len(changed), 400) if choice % 2 else len(changed))
            changed[at : at + 4] = rng.choice([rng.bytes(1), b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
        path.write_bytes(changed)


def in_tree(rng, path, content):
    """Change a value, or the name of one, in a JSON file or the configuration of a checkpoint."""
    path.write_bytes(content)
    checkpoint = path.suffix == ".ckpt" and torch.load(path, weights_only=True)
    tree = copy.deepcopy(checkpoint["config"]) if checkpoint else json.loads(content)
    node = tree
    while True:
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = keys[rng.integers(len(keys))]
        if not (isinstance(node[key], dict | list) and node[key]) or rng.random() < 0.1:
            break
        node = node[key]
    node[key] = LEAVES[rng.integers(len(LEAVES))]
    if isinstance(node, dict) and rng.random() < 0.2:
        node[["_target_", "_args_", "x", "", "a.b", "${seed}"][rng.integers(6)]] = node.pop(key)
    path.unlink()
    if checkpoint:
        torch.save({**checkpoint, "config": tree}, path)
    else:
        path.write_text(json.dumps(tree))


def damaged(rng, world, folder):
    """A world with a damaged file, and a command that reads it."""
    shutil.copytree(world, folder, copy_function=lambda a, b: (os.link if a.endswith(LARGE) else shutil.copy2)(a, b))
    name = FILES[rng.integers(len(FILES))]
    damage(rng, folder / name, world)
    commands = readers(name)
    words = commands[rng.integers(len(commands))]
    # What is remembered of a shard, is remembered by its path.
    return name, [word.replace("data.root=shards", f"data.root={folder}/shards") for word in words]


@pytest.mark.parametrize("number", range(CASES))
def test_a_file(number, world, tmp_path):
    name, words = damaged(np.random.default_rng([1, number]), world, tmp_path / "there")
    before, beside = listing(world), {*tmp_path.iterdir()}
    outcome = call(*words, cwd=tmp_path / "there")
    assert not TRACES.search(outcome.printed), f"{name} {words}\n{outcome.printed}"
    assert listing(world) == before and {*tmp_path.iterdir()} == beside
    assert outcome.status in ((0, 1, 2) if words[0] == "doctor" else (0, 1))
    if outcome.status == 1:
        assert names_it(outcome, name), f"{words}\n{outcome.message}"


def names_it(outcome, name):
    """Whether a message names the file, its folder, the image that a list names, a checkpoint's key, or a table."""
    named = Path(name).name in outcome.printed or Path(name).parts[0] in outcome.message
    key = name.endswith(".ckpt") and re.search(r"\b(seed|(model|data|protocol)\.\w+) is ", outcome.message)
    table = name.startswith("table.") and "manifest" in outcome.message
    return bool(named or key or table or name == "photos.txt")
