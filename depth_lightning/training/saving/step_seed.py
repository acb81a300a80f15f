"""Random numbers that do not depend on where a run was interrupted."""

from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from depth_lightning.settings import whole_number


class StepSeed(Callback):
    """Seeds torch before every batch by (seed, epoch, batch, process).

    So a resumed run draws the same random numbers in its network and loss, as for dropout.
    """

    def __init__(self, seed: int) -> None:
        self.seed = whole_number("seed", seed, least=0)

    def on_train_batch_start(self, trainer: lightning.Trainer, module: Any, batch: Any, batch_index: int) -> None:
        """Seed the coming batch."""
        entropy = (self.seed, trainer.current_epoch, batch_index, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
