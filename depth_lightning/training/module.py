"""The LightningModule: one training step, one evaluation step, and the optimiser between them."""

import logging
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import lightning
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.optim.lr_scheduler import LambdaLR

from depth_lightning.camera import focal_length
from depth_lightning.metrics import AffineMetrics, DepthMetrics, PartMetrics, Protocol
from depth_lightning.metrics.per_image import ValidationCounts, ValidationTables
from depth_lightning.metrics.protocol import Alignment
from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training.like_truth import converted
from depth_lightning.training.objective import Objective
from depth_lightning.training.optimizer import OptimizerFactory, adamw
from depth_lightning.training.scheduler import Schedule, poly
from depth_lightning.training.sharding import is_sharded, reshard, shard, unshard

log = logging.getLogger(__name__)

MEAN_OF_PARTS = "mean_of_parts"
"""In the place of a part's name: the mean of a mixture's parts, in which each counts the same."""


class DepthModule(lightning.LightningModule):
    """A Depth Anything V2 network with everything needed to train and score it.

    Args:
        network: predicts (b, h, w) metres or disparity.
        metrics: what validation computes, and under which protocol; by default over the whole image up to the network's
            max_depth, with relative networks aligned in disparity.
        objective: the loss; only needed for training.
        optimizer: called with the network's parameter groups.
        schedule: factor on the learning rates at a step of the run.
        config: plain values that describe the run. They are written into every checkpoint, so that it can be loaded
            without further arguments.

    Raises:
        ValueError: the protocol scores metres, but the network predicts disparity.
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
        relative = network.output == "relative"
        alignment: Alignment = "scale_shift_disparity" if relative else "none"
        self.metrics = metrics or DepthMetrics(Protocol(max_depth=network.max_depth, alignment=alignment))
        if relative and self.metrics.protocol.alignment == "none":
            raise ValueError(
                "A network with model.output=relative predicts disparity up to scale and shift, which "
                "protocol.alignment=none would score as metres. Use protocol=affine_disparity."
            )
        self.affine_metrics = AffineMetrics()
        self.counts: ValidationCounts | None = None
        """Of the last validation."""
        self.tables: ValidationTables | None = None
        """Of the last validation."""
        self.config = dict(config or {})

    def configure_model(self) -> None:
        """Shard the network if the strategy does so; evaluation on its own keeps it unsharded."""
        if self.device_mesh is not None and self.trainer.state.fn == TrainerFn.FITTING:
            if self.objective is not None and list(self.objective.parameters()):
                raise ValueError(
                    "loss.alignment learns a projector where the encoders' widths differ, and trainer=fsdp shards the "
                    "network alone. Use trainer=ddp, or an encoder of the same width."
                )
            # Lightning's own mesh would use tensor parallelism within a node.
            shard(self.network, init_device_mesh(self.device_mesh.device_type, (self.trainer.world_size,)))

    def training_step(self, batch: DepthBatch, batch_index: int) -> Tensor:
        """The loss of one batch. Its terms are logged as well, and the loss of each kind if the batch mixes kinds."""
        assert self.objective is not None, "DepthModule was built without an objective, which training needs."
        prediction, alignment = self.objective.predict(self.network, normalize(batch.image))
        images = self.objective.whole_batch(prediction, batch.target, batch.mask, batch.kind)
        losses = self.objective.by_kind(*images)
        loss = self.objective.weighed(losses, images[-1], alignment)
        self.log("train/loss", loss.value, batch_size=len(batch.image))
        self.log_dict({f"train/loss_{name}": term for name, term in loss.terms.items()}, batch_size=1)
        if len(losses) > 1:
            kinds = {f"train/loss_{kind.name.lower()}": own.value for kind, own in losses.items()}
            self.log_dict(kinds, batch_size=1)
        return loss.value

    def predict_batch(self, batch: DepthBatch) -> Tensor:
        """(b, h, w) prediction at the resolution of the batch's ground truth: metres, or disparity."""
        image = normalize(batch.image)
        prediction: Tensor = self.network(image)
        if self.metrics.protocol.flip_average:
            prediction = (prediction + self.network(image.flip(-1)).flip(-1)) / 2
        prediction = in_metres(self.network, prediction, batch)
        return self.metrics.protocol.upsampled(prediction, *batch.target.shape[-2:])

    def on_validation_start(self) -> None:
        """Unshard: processes may validate different numbers of images, and the first one also draws pictures."""
        if is_sharded(self.network):
            unshard(self.network)

    def on_validation_end(self) -> None:
        """Reshard and continue training."""
        if is_sharded(self.network) and self.trainer.state.fn == TrainerFn.FITTING:
            reshard(self.network)

    def validation_step(self, batch: DepthBatch, batch_index: int) -> Tensor:
        """Score one batch at the resolution of its ground truth; returns the prediction, for callbacks."""
        if not batch.id:
            return batch.target
        prediction = self.predict_batch(batch)
        self.score_depth(self.metrics, batch, prediction)
        images = [image for image, kind in enumerate(batch.kind) if kind == DepthKind.DISPARITY]
        if images:
            disparity = converted(self.network, prediction[images], to_disparity=True)
            self.affine_metrics.update(disparity, batch.target[images], batch.mask[images], *_names(batch, images))
        return prediction

    def score_depth(self, metrics: DepthMetrics | PartMetrics, batch: DepthBatch, prediction: Tensor) -> None:
        """Update `metrics` with the images whose ground truth is depth; predictions are depth or disparity.

        The protocol's alignment decides which of the two.
        """
        to_disparity = metrics.protocol.alignment == "scale_shift_disparity"
        cameras = batch.target_intrinsics
        for kind in (DepthKind.METRES, DepthKind.UP_TO_SCALE):
            images = [image for image, other in enumerate(batch.kind) if other == kind]
            if images:
                predicted = converted(self.network, prediction[images], to_disparity)
                truth = batch.target[images], batch.mask[images]
                metrics.update(
                    predicted,
                    *truth,
                    *_names(batch, images),
                    scale_known=kind == DepthKind.METRES,
                    intrinsics=cameras[images],
                )

    def on_validation_epoch_end(self) -> None:
        """Log the averages over all images of all processes."""
        self.counts = ValidationCounts(self.metrics.counts(), self.affine_metrics.counts())
        self.tables = ValidationTables(self.metrics.images(), self.affine_metrics.images())
        for metrics, counts in zip((self.metrics, self.affine_metrics), self.counts, strict=True):
            if sum(counts):
                errors = metrics.compute()
                # Already equal on every process; sync_dist only avoids Lightning's warning.
                self.log_dict({f"val/{name}": value for name, value in errors.items()}, sync_dist=True)
            metrics.reset()
        self._log_parts()
        depth, fitting = self.counts.depth, self.trainer.state.fn == TrainerFn.FITTING
        if sum(depth) and not depth.scored and fitting and self.trainer.is_global_zero:
            log.warning(
                f"None of the {sum(depth)} validation images with depth can be scored under this protocol "
                f"({self.metrics.protocol}): {depth.without_valid_pixel} have no valid pixel in its crop and range, "
                f"{depth.not_aligned} could not be aligned. The depth metrics are NaN."
            )

    def _log_parts(self) -> None:
        """Log the averages of every part of a mixture, and the mean of the parts, in which each counts the same."""
        data = getattr(self.trainer, "datamodule", None)
        assert self.tables is not None
        for metrics, table in zip((self.metrics, self.affine_metrics), self.tables, strict=True):
            parts = {name: metrics.averages(table.part(name)) for name in getattr(data, "val_parts", ())}
            values = {f"val/{error}_{name}": value for name, of in parts.items() for error, value in of.items()}
            for error in {error: None for of in parts.values() for error in of}:
                values[f"val/{error}_{MEAN_OF_PARTS}"] = mean(of[error] for of in parts.values() if of)
            self.log_dict(values, sync_dist=True)  # equal on every process, as above

    def configure_optimizers(self) -> Any:
        """The optimiser, and its schedule over the trainer's total number of steps."""
        groups = self.network.parameter_groups()
        if self.objective is not None and self.objective.alignment is not None:
            groups.add("head", self.objective.alignment)
        optimizer = self.optimizer(groups)
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
        """Store the run's configuration in the checkpoint."""
        checkpoint["config"] = self.config


def in_metres(network: DepthAnythingV2, prediction: Tensor, batch: DepthBatch) -> Tensor:
    """Predictions (b, h, w) for the cameras of a batch, of a network with a canonical focal length; others unchanged.

    Images of unknown camera, which the data refuses if their truth is metres, count as of the canonical one.
    """
    if getattr(network, "focal_px", None) is None:
        return prediction
    return network.in_metres(prediction, focal_length(batch.intrinsics).nan_to_num(nan=network.focal_px))


def _names(batch: DepthBatch, images: Sequence[int]) -> tuple[list[str], list[str]]:
    """Ids and scenes of the selected images of a batch."""
    return [batch.id[image] for image in images], [batch.scene[image] for image in images]
