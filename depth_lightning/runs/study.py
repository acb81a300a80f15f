"""An Optuna study in a sweep's folder, whose trials record how their runs ended.

Hydra's sweeper completes a trial with the value that its run returned, or marks it as failed. It has no other outcome,
and Optuna allows no changes to a finished trial. A pruned run is therefore a complete trial with an attribute that says
so, written before the sweeper finishes the trial.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from depth_lightning.runs.outcome import pruned_at, why_failed


def sweep(sweeper: Any, arguments: list[str]) -> None:
    """Run the trials of an OptunaSweeperImpl of hydra-optuna-sweeper 1.3, and record how each run ended."""
    Path(sweeper.sweep_dir).mkdir(parents=True, exist_ok=True)  # for the study's file
    launch, storage, name = sweeper.launcher.launch, sweeper.storage, sweeper.study_name

    def launch_and_describe(overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        jobs: Sequence[Any] = launch(overrides, initial_job_idx=initial_job_idx)
        # Here and not in the jobs: they may run on other machines, and SQLite's locks are not safe on a shared disk.
        describe_running(name, storage, [Path(job.hydra_cfg.hydra.runtime.output_dir) for job in jobs])
        return jobs

    sweeper.launcher.launch = launch_and_describe
    try:
        sweeper.sweep(arguments)
    except ValueError:
        # At the end, the sweeper asks for the best trial. If all failed there is none, and `Comparison` reports why.
        trials = optuna.load_study(name, storage).trials if sweeper.job_idx == sweeper.n_trials else []
        if not trials or any(trial.state == TrialState.COMPLETE for trial in trials):
            raise


def describe_running(study_name: str, storage_url: str, runs: Sequence[Path]) -> None:
    """Record in the newest running trials how their runs ended; the runs' folders are in the order of the trials."""
    storage = optuna.storages.get_storage(storage_url)
    study = storage.get_study_id_from_name(study_name)
    running = [trial.number for trial in storage.get_all_trials(study) if trial.state == TrialState.RUNNING]
    for number, run in zip(running[-len(runs) :], runs, strict=True):  # those before are of sweeps that were killed
        trial = storage.get_trial_id_from_study_id_trial_number(study, number)
        for key, value in _outcome(run):
            storage.set_trial_user_attr(trial, key, value)


def _outcome(run: Path) -> Iterator[tuple[str, Any]]:
    yield "run", run.name
    if (reason := why_failed(run)) is not None:
        yield "failed", reason
    elif (step := pruned_at(run)) is not None:
        yield "pruned_at_step", step
