"""Which loss applies to a sample: decided by its kind of ground truth and by the network's output.

| the sample's ground truth is      | network predicts metres                | network predicts disparity  |
|-----------------------------------|----------------------------------------|-----------------------------|
| depth in metres                   | `metres`                               | `disparity`, with 1 / depth |
| depth up to scale                 | `up_to_scale`                          | `disparity`, with 1 / depth |
| disparity up to scale and shift   | `disparity`, with 1 / prediction       | `disparity`                 |
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.distributed
from torch import Tensor, nn

from depth_lightning.losses import with_terms
from depth_lightning.sample import DepthKind
from depth_lightning.settings import SettingError, boolean
from depth_lightning.training.alignment import FeatureAlignment

MIN_DEPTH_M = 1e-3


class Loss(NamedTuple):
    """A loss, and what it is made of."""

    value: Tensor
    """Scalar."""
    terms: Mapping[str, Tensor]
    """Weighted and detached, for the log; none where a loss does not tell its terms apart."""


class Objective(nn.Module):
    """The training loss of a batch whose samples may differ in kind.

    The loss of each kind is weighted by its share of the batch's images.

    DDP averages the gradients of every device's own loss. That equals the gradient of the loss over all images only if
    the loss is an average over images. SILog pooled over a batch is the root of a mean: the average over two halves
    differs from the value of the full batch, and the pixels of a half with more holes weigh more. `across_devices`
    makes the step the same on any number of devices, within float32, for every loss. Accumulated batches still remain
    separate: only a loss per image, such as `SiLogLoss(per_image=True)`, is the same for two batches of four as for one
    of eight.

    Args:
        metres: loss(prediction, target, mask) for depth in metres.
        up_to_scale: the same for depth with an unknown scale.
        disparity: loss(disparity, target_disparity, mask), invariant to scale and shift.
        output: what the network predicts.
        max_depth: of a metric network; metric ground truth beyond it, which the network cannot reach, is ignored.
        across_devices: whether `whole_batch` gathers the batches of all devices, so that every device computes the
            loss of all images. It costs a gather of predictions and targets, and a host sync, at every step.
        alignment: a loss on the network's features, which is added.

    Raises:
        SettingError: `across_devices` is no boolean, or `alignment` no loss on features.
    """

    def __init__(
        self,
        metres: nn.Module,
        up_to_scale: nn.Module,
        disparity: nn.Module,
        output: Literal["metric", "relative"],
        max_depth: float = torch.inf,
        across_devices: bool = False,
        alignment: FeatureAlignment | None = None,
    ) -> None:
        super().__init__()
        self.metres = metres
        self.up_to_scale = up_to_scale
        self.disparity = disparity
        self.output = output
        self.max_depth = max_depth
        self.across_devices = boolean("across_devices", across_devices)
        if not isinstance(alignment, FeatureAlignment | None):
            raise SettingError("alignment", f"is a loss on features, as in loss=student, or null, found {alignment!r}.")
        self.alignment = alignment

    def predict(self, network: nn.Module, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """The network's (b, h, w) prediction, and the alignment of its features if there is one, weighted.

        `image` is (b, 3, h, w), ImageNet-normalised.
        """
        if self.alignment is None:
            return network(image), None
        prediction, features = network(image, with_features=True)
        return prediction, self.alignment(features, image)

    def whole_batch(
        self, prediction: Tensor, target: Tensor, mask: Tensor, kinds: Sequence[DepthKind]
    ) -> tuple[Tensor, Tensor, Tensor, Sequence[DepthKind]]:
        """The images that the loss covers: these, or with `across_devices` those of all devices.

        Takes and returns (b, h, w) predictions, targets and masks, and b kinds. With `across_devices` it is a
        collective call, and b, h and w must be equal on all devices.
        """
        if not self.across_devices or not torch.distributed.is_initialized() or torch.distributed.get_world_size() == 1:
            return prediction, target, mask, kinds
        numbers = _gather(torch.tensor(kinds, device=target.device)).tolist()
        gathered: Tensor = _OfAllDevices.apply(prediction)
        return gathered, _gather(target), _gather(mask.byte()).bool(), [DepthKind(number) for number in numbers]

    def forward(self, prediction: Tensor, target: Tensor, mask: Tensor, kinds: Sequence[DepthKind]) -> Tensor:
        """Scalar loss of (b, h, w) predictions, targets and masks, and b kinds."""
        return self.weighed(self.by_kind(prediction, target, mask, kinds), kinds).value

    @staticmethod
    def weighed(losses: Mapping[DepthKind, Loss], kinds: Sequence[DepthKind], alignment: Tensor | None = None) -> Loss:
        """The sum of the losses, each weighted by its kind's share of the images, and of the alignment."""
        shares = {kind: sum(other == kind for other in kinds) / len(kinds) for kind in losses}
        value = torch.stack([shares[kind] * loss.value for kind, loss in losses.items()]).sum()
        terms: dict[str, Tensor] = {}
        for kind, loss in losses.items():
            for name, term in loss.terms.items():
                terms[name] = terms.get(name, 0) + shares[kind] * term
        if alignment is not None:
            value, terms["alignment"] = value + alignment, alignment.detach()
        return Loss(value, terms)

    def by_kind(
        self, prediction: Tensor, target: Tensor, mask: Tensor, kinds: Sequence[DepthKind]
    ) -> dict[DepthKind, Loss]:
        """The loss of each kind among `kinds`, over its own images."""
        present = sorted(set(kinds))
        if len(present) == 1:
            return {present[0]: self._one_kind(prediction, target, mask, present[0])}
        losses = {}
        for kind in present:
            of_kind = [image for image, other in enumerate(kinds) if other == kind]
            images = torch.tensor(of_kind).to(target.device, non_blocking=True)  # an index that is a list waits for it
            losses[kind] = self._one_kind(prediction[images], target[images], mask[images], kind)
        return losses

    def _one_kind(self, prediction: Tensor, target: Tensor, mask: Tensor, kind: DepthKind) -> Loss:
        if kind == DepthKind.DISPARITY:
            disparity = _inverse(prediction, mask) if self.output == "metric" else prediction
            return Loss(*with_terms(self.disparity, disparity, target, mask))
        mask = mask & (target >= MIN_DEPTH_M)
        if self.output == "relative":
            return Loss(*with_terms(self.disparity, prediction, _inverse(target, mask), mask))
        if kind == DepthKind.UP_TO_SCALE:
            return Loss(*with_terms(self.up_to_scale, prediction, target, mask))
        return Loss(*with_terms(self.metres, prediction, target, mask & (target <= self.max_depth)))


class _OfAllDevices(torch.autograd.Function):
    """`_gather` with a gradient: that of this device's part, times the number of devices, by which DDP divides."""

    @staticmethod
    def forward(context: Any, own: Tensor) -> Tensor:
        return _gather(own)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        devices = torch.distributed.get_world_size()
        return devices * gradient.chunk(devices)[torch.distributed.get_rank()]


def _gather(own: Tensor) -> Tensor:
    """The tensors of all devices, concatenated in rank order."""
    own = own.contiguous()
    parts = [torch.empty_like(own) for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather(parts, own)
    return torch.cat(parts)


def _inverse(depth: Tensor, mask: Tensor) -> Tensor:
    """1 / depth where mask is True, 0 elsewhere; avoids division by 0, whose gradient is NaN even where unused."""
    return torch.where(mask, 1 / torch.where(mask, depth.float(), 1), 0)
