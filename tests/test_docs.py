"""Every command and snippet of README.md and the pages is tried, as the comment before it says; see CONTRIBUTING.md."""

import hashlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf, open_dict

from depth_lightning.__main__ import CONFIGURED, PLAIN
from depth_lightning.commands import compare, replay
from depth_lightning.data import RenderedRooms
from depth_lightning.models import DepthAnythingV2, save_weights
from depth_lightning.runs.options import check
from depth_lightning.runs.overrides import as_typed

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"^(?:<!-- (?P<how>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
INLINE = re.compile(r"`(depth-lightning \w[^`]*=[^`]*)`")
SAVED = re.compile(r"# ([\w./]+\.(?:py|yaml))")
WEIGHTS = "depth-anything/Depth-Anything-V2-Metric-Hypersim-Small"
SMALL = {
    "train": (
        "model=tiny data.size=42 data.batch_size=2 data.num_workers=0 trainer=cpu trainer.max_epochs=1 "
        "trainer.limit_train_batches=2 callbacks.panels.images=1"
    ),
    "evaluate": "data.num_workers=0 panels=1",
    "doctor": "data.num_workers=0",
}
"""What makes a command take seconds; wins over what is typed."""
FEW_ROOMS = "data.train_images=8 data.val_images=4 data.size=42"
TYPED_IN_TURN = """
import json, sys
from depth_lightning.__main__ import main
for kind, what in json.load(sys.stdin):
    if kind == "python":
        exec(compile(what, "snippet", "exec"), {"__name__": "__main__"})
        continue
    sys.argv = ["depth_lightning", *what]
    try:
        main()
    except SystemExit as end:
        if end.code:
            sys.exit(f"depth-lightning {' '.join(what)} ended with {end.code}")
"""


class Block(NamedTuple):
    language: str
    text: str
    runs: bool


def blocks(page):
    """What is to be tried: not what says that it cannot be run here, and why."""
    for match in BLOCK.finditer(page.read_text()):
        how = match["how"] or ""
        assert how in ("", "run") or re.match(r"not run: .{8,}", how), f"{page.name}: <!-- {how} --> is neither"
        if not how.startswith("not run"):
            yield Block(match["language"], match["text"], how == "run")


def commands(text):
    """The commands of a block of bash, each as words; comments and … are left out."""
    for line in text.replace("\\\n", " ").splitlines():
        words = [word for word in shlex.split(line, comments=True) if word != "…"]
        if words:
            found = words[0] == "PYTHONPATH=."
            assert found == any("my_package" in word for word in words), f"PYTHONPATH=. is for modules here: {line}"
            words = words[found:]
            assert words[0] == "depth-lightning", f"{words[0]} is not ours: mark the block <!-- not run: reason -->"
            yield words[1:]


def save(block, folder):
    """Save a block that names a file as its first line; its path, or None."""
    named = SAVED.match(block.text)
    if named is None:
        return None
    path = folder / named[1]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(block.text)
    return path


def check_command(words, folder, monkeypatch):
    """Compose a command's configuration and check every option, or parse its arguments, without running it."""
    name, *words = words
    if name in PLAIN:
        module = {"compare": compare, "replay": replay}[name]
        called = []
        monkeypatch.setattr(module, name, lambda *arguments: called.append(arguments))
        module.main(words)
        assert called
        return
    assert name in CONFIGURED, name
    if name == "download" and "=" not in words[0]:
        words[0] = f"download={words[0]}"
    extra = []
    if "--config-dir" in words:
        at = words.index("--config-dir")
        extra = [f"hydra.searchpath=[file://{folder / words[at + 1]}]"]
        del words[at : at + 2]
    flags = {"-m", "--help", "--cfg", "job", "--resolve"}
    overrides = [each for each in as_typed(words) if each not in flags]
    if "-m" in words:
        parsed = OverridesParser.create().parse_overrides(overrides)
        overrides = [
            f"{one.key_or_group}={next(one.sweep_string_iterator())}" if one.is_sweep_override() else one.input_line
            for one in parsed
        ]
    check_composed(name.replace("-", "_"), [*overrides, *extra])


def check_composed(name, overrides):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(name, [*overrides, "hydra.job.num=0"], return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        try:
            with open_dict(cfg):
                del cfg["hydra"]
            check(cfg, name)
        finally:
            HydraConfig.instance().cfg = None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_yamls_compose(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = list(blocks(page))
    for block in found:
        path = save(block, tmp_path)
        if path and path.suffix == ".yaml":
            group, conf = path.parent.name, path.parents[1]
            check_composed("train", [f"{group}={path.stem}", f"hydra.searchpath=[file://{conf}]"])
    for block in found:
        for words in commands(block.text) if block.language == "bash" else ():
            check_command(words, tmp_path, monkeypatch)
    for match in INLINE.finditer(BLOCK.sub("", page.read_text())):
        for words in commands(match[1].partition("|")[0]):
            check_command(words, tmp_path, monkeypatch)


def small(words):
    """The words of a command that takes seconds."""
    name, *typed = words
    less = SMALL.get(name, "").split()
    if name == "train" and {"experiment=rooms", "experiment=quick_start"} & {*typed}:
        less = [*(each for each in less if not each.startswith("model=")), *FEW_ROOMS.split()]
    keys = {each.partition("=")[0] for each in less}
    return [name, *(each for each in typed if each.partition("=")[0] not in keys), *less]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with images and depth in millimetres, and with photos."""
    folder = tmp_path_factory.mktemp("user")
    rooms = RenderedRooms(tmp_path_factory.mktemp("rooms"), "train", count={"train": 12, "val": 2})
    for name in ("my_data/rgb", "my_data/depth", "photos"):
        (folder / name).mkdir(parents=True)
    for index in range(12):
        sample = rooms[index]
        image = cv2.cvtColor(sample.image, cv2.COLOR_RGB2BGR)
        depth_mm = np.where(sample.mask, 1000 * sample.target, 0).astype(np.uint16)
        cv2.imwrite(str(folder / f"my_data/rgb/{index:03}.jpg"), image)
        cv2.imwrite(str(folder / f"my_data/depth/{index:03}.png"), depth_mm)
        if index < 2:
            cv2.imwrite(str(folder / f"photos/{index}.jpg"), image)
    return folder


def runnable():
    """Pages with something to run; the README in every suite, the rest in the slow one."""
    for page in PAGES:
        if any(block.runs for block in blocks(page)):
            yield pytest.param(page, id=page.name, marks=[] if page.name == "README.md" else pytest.mark.slow)


@pytest.mark.parametrize("page", list(runnable()))
def test_what_runs(page, folder, tmp_path):
    for name in ("my_data", "photos"):
        (tmp_path / name).symlink_to(folder / name)
    if WEIGHTS in page.read_text():
        cached = tmp_path / "hub/models--{}".format(WEIGHTS.replace("/", "--"))
        (cached / "refs").mkdir(parents=True)
        (cached / "refs/main").write_text("0")
        (cached / "snapshots/0").mkdir(parents=True)
        file = cached / "snapshots/0/depth_anything_v2_metric_hypersim_vits.pth"
        save_weights(DepthAnythingV2("vits", output="metric", max_depth=20.0), file)
    todo = []
    for block in blocks(page):
        save(block, tmp_path)
        if block.language == "bash" and block.runs:
            todo += [("command", small(words)) for words in commands(block.text)]
        elif block.language == "python" and block.runs:
            todo.append(("python", block.text))
    result = subprocess.run(
        [sys.executable, "-c", TYPED_IN_TURN],
        input=json.dumps(todo),
        cwd=tmp_path,
        env={
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "HF_HUB_CACHE": str(tmp_path / "hub"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:] + result.stderr[-3000:]
    if page.name == "README.md":
        mine = tmp_path / "outputs/train/mine"
        assert all((mine / name).is_file() for name in ("checkpoints/best.ckpt", "table.csv", "report.html"))
        assert {path.name for path in (tmp_path / "depth").iterdir()} > {"0_colour.png", "1_colour.png"}
        assert list((tmp_path / "mine").glob("*.pth"))


def test_readme_fits_on_a_page_and_its_links_exist():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 120 and max(map(len, lines)) <= 120
    for target in re.findall(r"\]\(([^)#]+)(?:#[\w-]+)?\)", "\n".join(lines)):
        assert target.startswith("https://") or (ROOT / target).is_file(), target


PARTS = ("seed", "model", "adapter", "data", "augmentation", "loss", "protocol", "optimizer", "scheduler", "trainer")
"""Of a recipe's configuration, what decides its numbers."""
CALLBACKS = ("ema", "early_stopping", "unfreeze")
"""The same of its callbacks."""


def set_values(node):
    """A node without what is null or empty, so that a new option that does nothing changes no hash."""
    if not isinstance(node, dict):
        return node
    values = {key: set_values(value) for key, value in node.items()}
    return {key: value for key, value in values.items() if value not in (None, {}, [])}


def test_recipes_name_the_configurations_that_there_are(compose_config):
    named = dict(re.findall(r"^\| `(\w+)` \| `([0-9a-f]{8})` \|", (ROOT / "docs/recipes.md").read_text(), re.MULTILINE))
    current = {}
    for name in (path.stem for path in (ROOT / "conf/experiment").glob("*.yaml")):
        cfg = OmegaConf.to_container(compose_config("train", [f"experiment={name}"]), resolve=False)
        parts = {part: cfg.get(part) for part in PARTS} | {part: cfg["callbacks"].get(part) for part in CALLBACKS}
        content = json.dumps(set_values(parts), sort_keys=True)
        current[name] = hashlib.sha256(content.encode()).hexdigest()[:8]
    assert named == current, "update docs/recipes.md: the hashes, and what its numbers hold for"


def reference():
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/site/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_has_every_option_with_its_comment(tmp_path):
    page = reference().configuration(ROOT / "conf")
    assert "| `optimizer.lr` | `5.0e-6` | learning rate of the encoder |" in page
    assert "| `checkpoint` | `null` | auto: resume the run in hydra.run.dir, or start it; a path" in page
    assert "| `optimizer.betas` | `[0.9, 0.999]` |  |" in page
    assert "| `loss.disparity.scales` | `4` | of gradient matching, with strides 1, 2, 4, 8 |" in page
    assert "| `model.encoder` | `vits` |" in page and "| `hydra.launcher.nodes` | `1` | the same as" in page
    assert "experiment.trainer" not in page and "defaults`" not in page
    plain = page.replace("\\", "")
    for path in (ROOT / "conf").rglob("*.yaml"):
        for comment in re.findall(r"  # (\w[\w ]+)", path.read_text()):
            assert comment in plain, f"{path}: {comment}"


def test_a_comment_is_text_in_the_reference():
    entries = list(reference()._entries("# of <all> a|b\na: 1  # |x| and *y*, `code`\n\n# next\nb:\n  c: [1, 2]\n"))
    assert entries == [
        r"of \<all\> a\|b",
        ("a", "1", "|x| and *y*, `code`"),
        "next",
        ("b.c", "[1, 2]", ""),
    ]
    assert reference()._prose("|x| and *y*, `a|b`") == r"\|x\| and \*y\*, `a\|b`"
