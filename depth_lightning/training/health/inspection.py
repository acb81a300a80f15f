"""A close inspection of one training step, beside the run: its inputs, and where values stop being finite."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from depth_lightning.models import DepthAnythingV2, normalize
from depth_lightning.models.depth_anything import MIN_DEPTH_M
from depth_lightning.sample import DepthBatch, DepthKind
from depth_lightning.training.health.isolation import isolated, mixed_precision
from depth_lightning.training.objective import Objective

SATURATED = 1e-3
"""A sigmoid this close to 0 or 1 counts as saturated: its derivative is below a thousandth."""


@dataclass
class Findings:
    """The findings on a step. Lists have one entry per accumulated batch, nested lists one per image."""

    losses: list[float] = field(default_factory=list)
    terms: list[dict[str, float]] = field(default_factory=list)
    """Kind of depth → its loss, per batch."""
    valid_pixels: list[list[int]] = field(default_factory=list)
    saturated: list[list[float]] = field(default_factory=list)
    """Share of pixels whose gradient vanishes: zeros of a relative network, the ends of the range of a metric one."""
    gradient_norms: dict[str, float] = field(default_factory=dict)
    """Parameter → norm of its gradient over the complete step; those without a gradient are left out."""
    weights_not_finite: dict[str, int] = field(default_factory=dict)
    """Parameter or buffer → how many of its values are not finite before the step."""
    inputs_not_finite: list[str] = field(default_factory=list)
    first_output: str | None = None
    """The first module, in the order of the forward pass, whose output is not finite."""
    first_gradient: str | None = None
    """The first place, in the order of the backward pass, where the gradient is not finite."""

    @property
    def finite(self) -> bool:
        """Whether losses and gradients are finite."""
        return _all_finite(self.losses) and _all_finite(self.gradient_norms.values())

    def origin(self) -> list[str]:
        """Where the problem starts, one sentence per line; earlier lines are the cause of later ones."""
        lines = []
        if self.weights_not_finite:
            name, count = next(iter(self.weights_not_finite.items()))
            others = len(self.weights_not_finite) - 1
            lines.append(
                f"Already before the step, {count:,} values of {name} are not finite"
                + (f", and values of {others} other tensors of the network." if others else ".")
            )
        lines += self.inputs_not_finite
        if self.first_output:
            lines.append(f"The forward pass is finite up to {self.first_output}.")
        elif not _all_finite(self.losses):
            lines.append("The predictions are finite, but the loss is not.")
        elif self.first_gradient:
            lines.append(f"The loss is finite, but the gradient is not, from {self.first_gradient} backwards.")
        return lines or ["Everything is finite: weights, images, targets, every module's output, loss and gradients."]


def inspect_step(
    network: DepthAnythingV2,
    objective: Objective,
    batches: Sequence[DepthBatch],
    precision: str = "32-true",
    loss_scale: float = 1.0,
) -> tuple[Findings, list[Tensor]]:
    """Run a step's forward and backward pass; returns the findings, and each batch's (b, h, w) predictions.

    There are no side effects: no gradient is stored, no random state advances, no buffer changes. The gradients are
    those of this process's batches only.

    Args:
        network: with the weights from before the step.
        objective: the loss.
        batches: all batches that the step accumulates, on the network's device.
        precision: the trainer's.
        loss_scale: factor on the loss before the backward pass, in fp16.
    """
    findings, predictions = Findings(), []
    for name, tensor in network.state_dict().items():
        if broken := _not_finite(tensor):
            findings.weights_not_finite[name] = broken
    trainable = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    sums: dict[str, Tensor] = {}
    with isolated(network), _watched(network, findings):
        network.train()
        for number, batch in enumerate(batches):
            findings.inputs_not_finite += _broken_inputs(batch, number if len(batches) > 1 else None)
            with mixed_precision(precision, batch.image.device):
                prediction, alignment = objective.predict(network, normalize(batch.image))
                losses = objective.by_kind(prediction, batch.target, batch.mask, batch.kind)
                loss = objective.weighed(losses, batch.kind, alignment).value
            findings.losses.append(loss.item())
            findings.terms.append({kind.name.lower(): own.value.item() for kind, own in losses.items()})
            findings.valid_pixels.append(batch.mask.sum(dim=(1, 2)).tolist())
            findings.saturated.append(saturated_share(network, prediction.detach()).tolist())
            gradients = torch.autograd.grad(
                loss * (loss_scale / len(batches)), list(trainable.values()), allow_unused=True
            )
            for name, gradient in zip(trainable, gradients, strict=True):
                if gradient is not None:
                    sums[name] = sums[name] + gradient if name in sums else gradient
            predictions.append(prediction.detach().float())
    findings.gradient_norms = {name: gradient.float().norm().item() / loss_scale for name, gradient in sums.items()}
    return findings, predictions


def saturated_share(network: DepthAnythingV2, prediction: Tensor) -> Tensor:
    """(b,) share of the pixels of (b, h, w) predictions where the gradient of the last activation vanishes."""
    if network.output == "relative":
        flat = prediction <= 0
    elif network.head_name != "sigmoid":
        flat = (prediction < 1.001 * MIN_DEPTH_M) | (prediction > 0.999 * network.max_depth)
    else:
        share = prediction / network.max_depth
        flat = (share < SATURATED) | (share > 1 - SATURATED)
    return flat.float().mean(dim=(1, 2))


@contextmanager
def _watched(network: nn.Module, findings: Findings) -> Iterator[None]:
    """Record the first output and the first gradient that are not finite."""

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            place = f"the output of {name} ({type(module).__name__})" if name else "the prediction"
            for tensor in output if isinstance(output, list | tuple) else [output]:
                if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
                    continue
                if findings.first_output is None and (broken := _not_finite(tensor)):
                    findings.first_output = f"{place}: {broken:,} of its {tensor.numel():,} values are not"
                if tensor.requires_grad:
                    tensor.register_hook(_gradient_hook(findings, place))  # type: ignore[no-untyped-call]

        return hook

    handles = [module.register_forward_hook(look(name)) for name, module in network.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _gradient_hook(findings: Findings, place: str) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        if findings.first_gradient is None and _not_finite(gradient):
            findings.first_gradient = place

    return hook


def _broken_inputs(batch: DepthBatch, number: int | None) -> list[str]:
    problems = []
    where = "" if number is None else f" (batch {number})"
    for index, (name, kind) in enumerate(zip(batch.id, batch.kind, strict=True)):
        target = batch.target[index][batch.mask[index]]
        if batch.image.is_floating_point() and (broken := _not_finite(batch.image[index])):
            problems.append(f"{name}{where}: {broken:,} values of the image are not finite.")
        if broken := _not_finite(target):
            problems.append(f"{name}{where}: {broken:,} of {target.numel():,} valid targets are not finite.")
        if kind != DepthKind.DISPARITY and (negative := int((target <= 0).sum())):
            problems.append(f"{name}{where}: {negative:,} of {target.numel():,} valid targets are not above 0.")
    return problems


def _not_finite(tensor: Tensor) -> int:
    return int(tensor.numel() - tensor.isfinite().sum()) if tensor.is_floating_point() else 0


def _all_finite(values: Any) -> bool:
    return bool(torch.tensor(list(values)).isfinite().all())
