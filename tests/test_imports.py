"""Imports point one way, so that a newcomer can read the package from the bottom up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "depth_lightning"
LAYERS = [
    {"camera"},
    {"sample", "settings", "atomic", "affine", "interrupts", "invocation", "version", "wording"},
    {"data", "models", "losses", "metrics"},
    {"reporting"},
    {"training", "inference"},
    {"evaluation"},
    {"runs"},
    {"commands"},
    {"__main__"},
]
"""From the ground up. A module imports from the layers below its own, and within its own from its own package alone."""
ONLY_IN = {
    "hydra": ("runs/", "commands/"),
    "omegaconf": ("runs/", "commands/"),
    "albumentations": ("data/transforms.py",),
    "wandb": ("reporting/loggers.py",),
}
FILES = sorted(PACKAGE.rglob("*.py"))


def _imported(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module


def _layer(part):
    return next(level for level, parts in enumerate(LAYERS) if part in parts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file):
    part = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    for module in _imported(file):
        name = module.split(".")
        if name[0] in ONLY_IN:
            assert file.relative_to(PACKAGE).as_posix().startswith(ONLY_IN[name[0]]), module
        if name[0] == "depth_lightning" and len(name) > 1 and name[1] != part:
            assert _layer(name[1]) < _layer(part), f"{module} imported in {file.relative_to(PACKAGE)}"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train.py", "--cfg", "job", "--resolve"], "nyudepthv2"),
        (["depth_lightning", "doctor", "--help"], "detailed: 300"),
        (["depth_lightning", "show", "--cfg", "job", "--resolve"], "draws: 3"),
        (["depth_lightning", "compare", "--help"], "--metric"),
        (["depth_lightning", "replay", "--help"], "--device"),
        (["depth_lightning"], "batch-size"),
    ],
    ids=" ".join,
)
def test_help_and_config_do_not_import_torch(arguments, expected):
    run = "run_path" if arguments[0].endswith(".py") else "run_module"
    code = (
        f"import sys; sys.argv = {arguments}; import runpy\n"
        f"try: runpy.{run}('{arguments[0]}', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "assert not {'torch', 'pyarrow'} & set(sys.modules), 'torch or pyarrow was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert expected in result.stdout
