"""The LightningModule: one training step, one evaluation step, and the optimiser between them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from depth_lightning.metrics import AffineMetrics, DepthMetrics, ImageCounts, Protocol
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training.objective import Objective
from depth_lightning.training.optimizer import OptimizerFactory, adamw
from depth_lightning.training.scheduler import Schedule, poly


class ValidationCounts(NamedTuple):
    """The images of a validation, by what their truth allows to measure."""

    depth: ImageCounts
    """Truth in metres or up to scale: the depth metrics."""
    affine: ImageCounts
    """Truth up to scale and shift: the affine metrics."""


class DepthModule(lightning.LightningModule):
    """A Depth Anything V2 network with what it takes to train and to score it.

    Args:
        network: gives (b, h, w) metres, or disparity.
        metrics: what validation computes, and under which protocol.
        objective: the loss; needed for training alone.
        optimizer: called with the network's parameter groups.
        schedule: factor of the learning rates at a step of the run.
        config: plain values that describe the run. They are written into every checkpoint, which then tells without
            any argument what it holds.
    """

    def __init__(
        self,
        network: DepthAnythingV2,
        metrics: DepthMetrics | None = None,
        objective: Objective | None = None,
        optimizer: OptimizerFactory = adamw,
        schedule: Schedule = poly,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self.optimizer = optimizer
        self.schedule = schedule
        self.metrics = metrics or DepthMetrics(Protocol(max_depth=network.max_depth))
        self.affine_metrics = AffineMetrics()
        self.counts: ValidationCounts | None = None
        """Of the last validation."""
        self.config = dict(config or {})

    def training_step(self, batch: DepthBatch, batch_index: int) -> Tensor:
        """The loss of one batch."""
        assert self.objective is not None, "DepthModule was built without an objective, which training needs."
        prediction = self.network(normalize(batch.image))
        loss: Tensor = self.objective(prediction, batch.target, batch.mask, batch.kind)
        self.log("train/loss", loss, prog_bar=True, batch_size=len(batch.image))
        return loss

    def predict_batch(self, batch: DepthBatch) -> Tensor:
        """(b, h, w) prediction at the resolution of the batch's ground truth: metres, or disparity."""
        prediction = self.network(normalize(batch.image))[:, None].float()
        # Upsampled as the reference does it; the ground truth is never resized.
        return F.interpolate(prediction, batch.target.shape[-2:], mode="bilinear", align_corners=True)[:, 0]

    def validation_step(self, batch: DepthBatch, batch_index: int) -> None:
        """Score one batch at the resolution of its ground truth, each sample as the kind of its truth allows."""
        prediction = self.predict_batch(batch)
        for metrics in (self.metrics, self.affine_metrics):
            affine = metrics is self.affine_metrics
            images = [i for i, kind in enumerate(batch.kind) if (kind == DepthKind.DISPARITY) == affine]
            if images:
                wants_disparity = affine or self.metrics.protocol.alignment == "scale_shift_disparity"
                given = prediction[images]
                if wants_disparity != (self.network.output == "relative"):
                    given = 1 / given.clamp(min=1e-6)
                metrics.update(given, batch.target[images], batch.mask[images])

    def on_validation_epoch_end(self) -> None:
        """Log the averages over all images of all processes."""
        self.counts = ValidationCounts(self.metrics.counts(), self.affine_metrics.counts())
        for metrics, counts in zip((self.metrics, self.affine_metrics), self.counts, strict=True):
            if sum(counts):
                errors = metrics.compute()
                # Equal on every process already; sync_dist spares Lightning's warning and changes nothing.
                self.log_dict({f"val/{name}": value for name, value in errors.items()}, sync_dist=True)
            metrics.reset()

    def configure_optimizers(self) -> Any:
        """The optimiser, and its schedule over the steps that the trainer will make."""
        optimizer = self.optimizer(self.network.parameter_groups())
        total_steps = self.trainer.estimated_stepping_batches
        if total_steps == torch.inf:
            raise ValueError("A schedule needs the run's length: set trainer.max_epochs or trainer.max_steps.")

        def factor(step: int) -> float:
            return self.schedule(step, int(total_steps))

        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Let the checkpoint say what it holds."""
        checkpoint["config"] = self.config
