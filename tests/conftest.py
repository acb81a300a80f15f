import importlib.util
import signal
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

CONF = Path(__file__).resolve().parents[1] / "conf"
SHARED = Path(__file__).resolve().parents[2] / "shared"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of what a shell starts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder(name):
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs ../shared/{name}, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden():
    """Outputs of the reference implementations; of the large maps every `stride`-th row and column."""
    return Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def realdata():
    """Real RGB-D frames."""
    return _folder("realdata")


@pytest.fixture(scope="session")
def golden_weights(golden):
    """The module that makes the golden weights and images: parameter(key, shape), image(height, width, seed)."""
    spec = importlib.util.spec_from_file_location("golden_weights", golden / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def compose_config():
    """compose_config(name, overrides, run_dir): what `<name>.py` would be given."""

    def compose_one(name, overrides, run_dir="unused"):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            return compose(name, [f"run_dir={run_dir}", *overrides])

    return compose_one


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """Overrides for a run of seconds, on few rendered rooms that are rendered once."""
    return [
        "experiment=rooms",
        f"data.root={tmp_path_factory.mktemp('rooms')}",
        "data.train_images=12",
        "data.val_images=5",
        "data.batch_size=4",
        "data.eval_batch_size=2",
        "data.size=42",
        "trainer.max_epochs=2",
        "trainer.log_every_n_steps=1",
        "callbacks.panels.images=1",
    ]


@pytest.fixture(scope="session")
def trained(compose_config, small, tmp_path_factory):
    """The folder of a finished run, and what train returned."""
    from depth_lightning.commands.train import train

    folder = tmp_path_factory.mktemp("run")
    return folder, train(compose_config("train", small, folder))
