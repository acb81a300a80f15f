"""Imports point one way, so that a newcomer can read the package from the bottom up."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "depth_lightning"
LAYERS = [{"sample"}, {"data", "models", "losses", "metrics"}, {"training", "inference", "reporting"}, {"commands"}]
ONLY_IN = {
    "hydra": ["commands/"],
    "omegaconf": ["commands/"],
    "albumentations": ["data/transforms.py"],
    "wandb": ["reporting/loggers.py"],
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
            assert any(file.relative_to(PACKAGE).as_posix().startswith(place) for place in ONLY_IN[name[0]]), module
        if name[0] == "depth_lightning" and len(name) > 1 and name[1] != part:
            lower, here = _layer(name[1]), _layer(part)
            assert lower < here or (lower == here == 2), f"{module} imported in {file.relative_to(PACKAGE)}"


def test_help_and_config_do_not_import_torch():
    code = (
        "import sys; sys.argv = ['train.py', '--cfg', 'job', '--resolve']; import runpy;"
        "runpy.run_path('train.py', run_name='__main__'); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "nyudepthv2" in result.stdout
