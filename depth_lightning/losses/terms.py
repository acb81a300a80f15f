"""The terms of a composite loss, one by one, for the log."""

from torch import Tensor, nn


def with_terms(loss: nn.Module, prediction: Tensor, target: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """A loss's value, and what the method of the same name gives if it has one: its terms by name, detached.

    Args:
        loss: called with prediction, target and mask, (b, h, w) each.
    """
    composite = getattr(loss, "with_terms", None)
    return composite(prediction, target, mask) if composite else (loss(prediction, target, mask), {})
