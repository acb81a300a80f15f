"""What this project takes from libraries that is theirs alone, and what it works around: an upgrade fails here first.

A test that fails because a library got better says what is no longer needed.
"""

import copyreg
import inspect

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import ModelParallelStrategy
from omegaconf import OmegaConf

from depth_lightning.runs.program import CONF
from depth_lightning.training.optimizer import adamw
from depth_lightning.training.sharding import FullySharded


def test_hydra_copies_its_store_for_every_configuration(monkeypatch):
    """Else `runs.program` need not say that the store's copy is itself."""
    copies = []
    itself = ConfigStore.instance, ()
    monkeypatch.setitem(copyreg.dispatch_table, ConfigStore, lambda store: copies.append(store) or itself)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        compose("train")
    assert copies


def test_hydra_takes_no_sweeper_from_another_package():
    """Else `hydra_plugins.depth_lightning_study` could be in `runs.study`."""
    config = OmegaConf.create({"hydra": {"sweeper": {"_target_": "depth_lightning.runs.study.StudySweeper"}}})
    with pytest.raises(RuntimeError, match="not the hydra_plugins package"):
        Plugins.instance().instantiate_sweeper(hydra_context=None, task_function=None, config=config)


def test_optuna_lets_nobody_change_a_trial_that_has_ended():
    """Else a callback could describe the trials when the sweep is over."""
    optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
    study = optuna.create_study()
    trial = study.ask()
    study.tell(trial, 0.5)
    with pytest.raises(RuntimeError, match="can not be updated"):
        trial.set_user_attr("failed", "why")


def test_lightning_keeps_whether_checkpoints_are_folders_to_itself():
    """`training.sharding` sets it between two saves."""
    private = "_save_distributed_checkpoint"
    assert vars(ModelParallelStrategy(save_distributed_checkpoint=True))[private]
    assert private in inspect.getsource(ModelParallelStrategy.save_checkpoint)
    assert not [name for name in dir(ModelParallelStrategy) if "distributed_checkpoint" in name and name != private]
    strategy = FullySharded(in_parts=True)
    with strategy.in_one_file():
        assert not vars(strategy)[private] and strategy.in_parts
    assert vars(strategy)[private]


def test_lightning_deletes_a_metrics_file_unless_it_is_kept_from_it(tmp_path):
    """`reporting.loggers` does so by a private method."""
    (tmp_path / "metrics.csv").write_text("a\n1\n")
    with pytest.warns(match="exists and is not empty"):
        ExperimentWriter(str(tmp_path))._check_log_dir_exists()
    assert not (tmp_path / "metrics.csv").exists()


def test_lightning_clips_no_gradients_of_a_fused_optimizer():
    """Else `training.optimizer` need not deny that it unscales them; with GradScaler, which unscales then."""
    parameter = torch.nn.Parameter(torch.ones(2))
    precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu"))
    with pytest.raises(RuntimeError, match="does not allow for gradient clipping"):
        precision.clip_gradients(torch.optim.AdamW([parameter], fused=True), 1.0)
    precision.clip_gradients(adamw({"head": [parameter]}), 1.0)


def test_a_fused_optimizer_leaves_a_step_out_where_it_is_said_to_overflow():
    """`training.health.watch` says so of steps that went wrong."""
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.AdamW([parameter], fused=True)
    for overflows, changed in ((1.0, False), (0.0, True)):
        parameter.grad, optimizer.found_inf = torch.ones(2), torch.tensor(overflows)
        optimizer.step()
        assert (parameter != 1).all() == changed


@pytest.mark.slow
@pytest.mark.parametrize("patched", [True, False])
def test_weights_are_constants_where_all_of_inductor_is_told_so(patched):
    """As an option of compile() it does not reach the front end; else `commands.evaluate` need not patch the option."""
    from torch._dynamo.utils import counters

    options = {"freezing": True}
    torch._dynamo.reset()
    counters["inductor"].clear()
    network = torch.nn.Conv2d(3, 8, 3).eval()
    with torch.no_grad(), torch._inductor.config.patch(options if patched else {}):
        network.compile(options={} if patched else options)
        network(torch.rand(1, 3, 16, 16))
    assert (counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0) == patched
