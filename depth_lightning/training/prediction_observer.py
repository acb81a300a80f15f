"""Callbacks that see the predictions of a validation as they are made, so that none has to be stored."""

from abc import abstractmethod
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from depth_lightning.sample import DepthBatch
from depth_lightning.training.module import DepthModule


class PredictionObserver(Callback):
    """A callback that receives every validation batch with its prediction."""

    decisive = ()

    @abstractmethod
    def see(self, module: DepthModule, batch: DepthBatch, prediction: Tensor) -> None:
        """Process a batch and its prediction from `DepthModule.predict_batch`."""

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: DepthBatch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Pass the batch on to `see`."""
        assert isinstance(module, DepthModule) and isinstance(outputs, Tensor)
        self.see(module, batch, outputs)
