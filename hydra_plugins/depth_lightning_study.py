"""The sweeper of hparams_search=optuna, here since Hydra takes none from another package than this one.

Every Hydra program imports this file when it starts, so it imports nothing that takes time or may be missing.
"""

from typing import Any

from hydra.plugins.sweeper import Sweeper


class StudySweeper(Sweeper):
    """Optuna's sweeper, whose trials tell what became of their runs; see `depth_lightning.runs.study`."""

    def __init__(self, **settings: Any) -> None:
        from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper

        self.optuna = OptunaSweeper(**settings)

    def setup(self, **context: Any) -> None:
        """Hand on what Hydra says of the sweep."""
        self.optuna.setup(**context)

    def sweep(self, arguments: list[str]) -> None:
        """Run the trials."""
        from depth_lightning.runs.study import sweep

        sweep(self.optuna.sweeper, arguments)
