"""The sweeper of hparams_search=optuna. It is here since Hydra only finds plugins in the package `hydra_plugins`.

Every Hydra program imports this file at startup, so it imports nothing that is slow or may be missing.
"""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class StudySweeper(Sweeper):
    """Optuna's sweeper, whose trials record how their runs ended; see `depth_lightning.runs.study`."""

    def __init__(self, **settings: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

        self.optuna = OptunaSweeper(**settings)

    def setup(self, **context: Any) -> None:
        """Pass Hydra's context on to Optuna's sweeper."""
        self.optuna.setup(**context)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials."""
        from depth_lightning.runs.study import sweep

        sweep(self.optuna.sweeper, arguments)
