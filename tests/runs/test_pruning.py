"""The median rule, against Optuna's own pruner where that is installed."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest

from depth_lightning.runs.outcome import PRUNED
from depth_lightning.runs.pruning import MedianPruning

STEPS_PER_EPOCH = 3


def write_run(folder, values, finished=True):
    folder.mkdir()
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "step", "train/loss", "val/abs_rel"])
        for epoch, value in enumerate(values):
            writer.writerow([epoch, STEPS_PER_EPOCH * epoch, 0.5, ""])
            writer.writerow([epoch, STEPS_PER_EPOCH * (epoch + 1) - 1, "", value])
    if finished:
        (folder / "metrics.json").write_text("{}")


def ended_after(callback, values):
    """The epoch, from 0, after which the callback ends a run with these values."""
    trainer = SimpleNamespace(
        sanity_checking=False,
        should_stop=False,
        is_global_zero=True,
        strategy=SimpleNamespace(reduce_boolean_decision=lambda decision, all: decision),
    )
    for epoch, value in enumerate(values):
        trainer.callback_metrics = {"val/abs_rel": np.float64(value)}
        trainer.current_epoch, trainer.global_step = epoch, STEPS_PER_EPOCH * (epoch + 1)
        callback.on_validation_end(trainer, None)
        if trainer.should_stop:
            return epoch
    return None


def test_as_optunas_median_pruner(tmp_path):
    optuna = pytest.importorskip("optuna", reason="needs the extra sweep")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1)
    study = optuna.create_study(pruner=pruner)
    rng = np.random.default_rng(0)
    ended = []
    for number in range(30):
        values = (rng.uniform(0.1, 1) + 0.3 * rng.random(5)).tolist()
        trial, theirs = study.ask(), None
        for epoch, value in enumerate(values):
            trial.report(value, epoch)
            if trial.should_prune():
                theirs = epoch
                break
        state = optuna.trial.TrialState
        if theirs is None:
            study.tell(trial, values[-1])
        else:
            study.tell(trial, state=state.PRUNED)
        run_dir = tmp_path / str(number)
        callback = MedianPruning(tmp_path, run_dir, finished_runs=4, epochs=2)
        write_run(run_dir, values)
        assert ended_after(callback, values) == theirs
        assert (run_dir / PRUNED).exists() == (theirs is not None)
        ended.append(theirs)
    assert 5 < sum(epoch is not None for epoch in ended) < 25


def test_broken_and_unfinished_runs(tmp_path):
    for number in range(3):
        write_run(tmp_path / f"unfinished{number}", [0.1, 0.1], finished=False)
    (tmp_path / "own").mkdir()
    assert ended_after(MedianPruning(tmp_path, tmp_path / "own", finished_runs=1), [5.0]) is None
    write_run(tmp_path / "finished", [0.4, 0.3])
    assert ended_after(MedianPruning(tmp_path, tmp_path / "own", finished_runs=1), [0.35, 0.29, 0.29]) is None
    assert ended_after(MedianPruning(tmp_path, tmp_path / "own", finished_runs=1), [0.35, 0.31]) == 1
    assert json.loads((tmp_path / "own" / PRUNED).read_text()) == {"step": 6, "val/abs_rel": 0.31, "median": 0.3}
    assert ended_after(MedianPruning(tmp_path, tmp_path / "own", finished_runs=1), [float("nan")]) == 0
    assert ended_after(MedianPruning(tmp_path, tmp_path / "own", mode="max", finished_runs=1), [0.5, 0.1]) is None
