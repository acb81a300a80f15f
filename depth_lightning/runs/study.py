"""An Optuna study in a sweep's folder, whose trials tell what became of their runs.

Hydra's sweeper gives a trial the value that its run returned, or calls it failed; it has no other end for one, and
Optuna lets nobody change a trial that has ended. A run that was ended early is therefore a complete trial, and says so
in an attribute, which is written before the sweeper ends it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from depth_lightning.runs.outcome import pruned_at, why_failed


def sweep(sweeper: Any, arguments: list[str]) -> None:
    """Run the trials of an OptunaSweeperImpl of hydra-optuna-sweeper 1.3, and describe each."""
    Path(sweeper.sweep_dir).mkdir(parents=True, exist_ok=True)  # for the study's file
    launch, storage, name = sweeper.launcher.launch, sweeper.storage, sweeper.study_name

    def launch_and_describe(overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[Any]:
        jobs: Sequence[Any] = launch(overrides, initial_job_idx=initial_job_idx)
        # Here and not in the jobs: they may be on other machines, and SQLite's locks are not safe on a shared disk.
        describe_running(name, storage, [Path(job.hydra_cfg.hydra.runtime.output_dir) for job in jobs])
        return jobs

    sweeper.launcher.launch = launch_and_describe
    try:
        sweeper.sweep(arguments)
    except ValueError:
        # When all are run, the sweeper asks for the best trial. Where all failed there is none; `Comparison` tells why.
        trials = optuna.load_study(name, storage).trials if sweeper.job_idx == sweeper.n_trials else []
        if not trials or any(trial.state == TrialState.COMPLETE for trial in trials):
            raise


def describe_running(study_name: str, storage_url: str, runs: Sequence[Path]) -> None:
    """Write into the newest running trials what became of the runs, whose folders come in the order of the trials."""
    storage = optuna.storages.get_storage(storage_url)
    study = storage.get_study_id_from_name(study_name)
    running = [trial.number for trial in storage.get_all_trials(study) if trial.state == TrialState.RUNNING]
    for number, run in zip(running[-len(runs) :], runs, strict=True):  # those before are of sweeps that were killed
        trial = storage.get_trial_id_from_study_id_trial_number(study, number)
        for key, value in _became_of(run):
            storage.set_trial_user_attr(trial, key, value)


def _became_of(run: Path) -> Iterator[tuple[str, Any]]:
    yield "run", run.name
    if (reason := why_failed(run)) is not None:
        yield "failed", reason
    elif (step := pruned_at(run)) is not None:
        yield "pruned_at_step", step
