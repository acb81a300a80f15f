"""What tests plant into a run of train.py that is another process."""

import torch
from lightning.pytorch.callbacks import Callback


class BrokenImage(Callback):
    """Gives one process an image that is not finite, at one step."""

    def __init__(self, step, rank):
        self.step, self.rank = step, rank

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            batch.image.data = batch.image.data.float() / 255
            batch.image[1, :, 10:20, 10:20] = torch.nan
