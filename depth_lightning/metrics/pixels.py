"""A fixed number of pixels per image, so that images of any size and with any holes give arrays of one shape."""

import torch
from torch import Tensor


def random_valid_pixels(mask: Tensor, count: int) -> Tensor:
    """(b, count) indices into the flattened (h, w) masks, drawn uniformly from True pixels with replacement.

    Takes (b, h, w) masks. The draw is the same for the same mask and needs no host sync. Without a True pixel, indices
    are arbitrary.
    """
    cumulative = mask.flatten(1).cumsum(dim=1)
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0)).to(mask.device, non_blocking=True)
    # The n-th valid pixel is where the running count first reaches n.
    ranks = (draws * cumulative[:, -1:]).long() + 1
    return torch.searchsorted(cumulative, ranks).clamp(max=cumulative.shape[1] - 1)
