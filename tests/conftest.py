import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/{name}, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Outputs of the reference implementations."""
    return _folder("golden")


@pytest.fixture(scope="session")
def realdata() -> Path:
    """Real RGB-D frames."""
    return _folder("realdata")


@pytest.fixture(scope="session")
def golden_weights(golden: Path) -> ModuleType:
    """The module that makes the golden weights and images: parameter(key, shape), image(height, width, seed)."""
    spec = importlib.util.spec_from_file_location("golden_weights", golden / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
