"""Colour jitter and noise for a batch of training images, on the device that holds them.

On the CPU they would cost more than reading, cropping and resizing the image together; on a GPU they are free.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from depth_lightning.settings import SettingError, number, several

GREY = (0.2989, 0.587, 0.114)
"""Weights of R, G and B in ITU-R 601 luma."""

check_share = partial(number, least=0, most=1)
"""Of the images, as in `settings`."""


@dataclass(frozen=True)
class ColourNoise:
    """Colour jitter, then Gaussian noise, each for some of the images; deterministic for a given seed.

    The defaults are the article's.

    Args:
        jitter_probability: share of the images whose colours change.
        brightness, contrast, saturation: each is multiplied by a factor within 1 ± this value.
        hue: rotated by up to ± this value, in full turns.
        noise_probability: share of the images that get noise.
        noise_std: (smallest, largest) standard deviation, in grey levels of 255; uniform between them.

    Raises:
        SettingError: an argument is out of range.
    """

    jitter_probability: float = 0.5
    brightness: float = 0.1
    contrast: float = 0.1
    saturation: float = 0.1
    hue: float = 0.1
    noise_probability: float = 0.5
    noise_std: Sequence[float] = (0, 5)

    def __post_init__(self) -> None:
        for name in ("jitter_probability", "noise_probability", "brightness", "contrast", "saturation"):
            check_share(name, getattr(self, name))
        number("hue", self.hue, least=0, most=0.5)
        what = "[smallest, largest] in grey levels of 255"
        smallest, largest = several("noise_std", self.noise_std, 2, what, partial(number, least=0, most=255))
        if smallest > largest:
            raise SettingError("noise_std", f"is {what}, found {self.noise_std!r}.")

    def __call__(self, image: Tensor, seeds: Sequence[int]) -> Tensor:
        """The images as float32 in [0, 1].

        Args:
            image: (b, 3, h, w) RGB, uint8.
            seeds: one per image. The result for an image depends on its own seed alone (and on the kind of device,
                whose generators differ), not on its batch.
        """
        drawn = np.stack([self._draw(seed) for seed in seeds]).astype(np.float32)
        columns = torch.from_numpy(drawn).to(image.device, non_blocking=True)[:, :, None, None].unbind(1)
        brightness, contrast, saturation, turn, deviation = columns
        jittered = adjust_colour(image.float() / 255, brightness, contrast, saturation, turn)
        for index, seed in enumerate(seeds):
            if drawn[index, -1]:
                generator = torch.Generator(image.device).manual_seed(seed & (2**63 - 1))
                normal = torch.randn(image.shape[1:], generator=generator, device=image.device)
                jittered[index].addcmul_(normal, deviation[index])
        return jittered.clamp_(0, 1)

    def _draw(self, seed: int) -> np.ndarray:
        # A separate stream: the seed's first numbers have already chosen the crop.
        rng = np.random.default_rng((seed, 1))
        jitters, noises = rng.random(2) < (self.jitter_probability, self.noise_probability)
        most = np.array([self.brightness, self.contrast, self.saturation, self.hue])
        change = rng.uniform(-most, most) * jitters
        smallest, largest = self.noise_std
        deviation = rng.uniform(smallest / 255, largest / 255) * noises
        return np.concatenate([1 + change[:3], change[3:], [deviation]])


def adjust_colour(image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, turn: Tensor) -> Tensor:
    """Images (b, 3, h, w) in [0, 1] after four adjustments in this order, each as torchvision defines it.

    Args:
        image: RGB.
        brightness, contrast, saturation: factors (b, 1, 1); 1 changes nothing.
        turn: rotation of the hue, (b, 1, 1), in full turns; 0 changes nothing.
    """
    brightness, contrast, saturation = (factor[:, None] for factor in (brightness, contrast, saturation))
    image = (image * brightness).clamp_(max=1)
    image = torch.lerp(_grey(image).mean((2, 3), keepdim=True), image, contrast).clamp_(0, 1)
    image = torch.lerp(_grey(image), image, saturation).clamp_(0, 1)
    return _turn_hue(image, turn)


def _grey(image: Tensor) -> Tensor:
    return GREY[0] * image[:, 0:1] + GREY[1] * image[:, 1:2] + GREY[2] * image[:, 2:3]


def _turn_hue(image: Tensor, turn: Tensor) -> Tensor:
    """Rotate the hue in HSV, keeping value and chroma.

    A channel of HSV's hexcone is value − chroma · clamp(min(k, 4 − k), 0, 1), k = (n + 6 · hue) mod 6, for n = 5, 3, 1.
    """
    red, green, blue = image.unbind(1)
    value, chroma = image.amax(1), image.amax(1) - image.amin(1)
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # With device=…, the host would wait until the device is idle.
    offset = torch.tensor([5.0, 3.0, 1.0]).view(3, 1, 1).to(image.device, non_blocking=True)
    k = (offset + (sixths + 6 * turn)[:, None]) % 6
    return value[:, None] - chroma[:, None] * torch.minimum(k, 4 - k).clamp_(0, 1)
