"""The images of a page, and the selection of those shown large."""

import hashlib
from dataclasses import dataclass
from typing import Final, NamedTuple

from depth_lightning.reporting.page.maps import QuantisedMap
from depth_lightning.sample import DepthKind

EACH: Final = 4
"""How many of the best, of the worst and of the random images are shown large."""
ROLES: Final = ("worst", "best", "random")


class EncodedImage(NamedTuple):
    """An image with its maps, all of the same aspect, as stored in the page."""

    height: int
    width: int
    photo: bytes
    """WebP."""
    truth: QuantisedMap
    prediction: QuantisedMap


@dataclass
class PageImage:
    """The data of an image in a page, besides its metrics."""

    id: str
    scene: str
    kind: DepthKind
    shown_as: str
    """A sentence on how the prediction was converted to the unit of the truth."""
    height: int
    width: int
    """Of the truth."""
    low: float
    high: float
    """The scale of truth and prediction."""
    error: float
    """The error that ranks best and worst: abs_rel, or affine_error where the truth is disparity; NaN if not scored."""
    small: EncodedImage
    large: EncodedImage | None = None

    @property
    def truth(self) -> str:
        """As in per_image.parquet."""
        return "disparity" if self.kind == DepthKind.DISPARITY else "depth"


def rank_keys(image: PageImage) -> dict[str, float]:
    """Role → sort key of the image, smallest first; an image without an error can only be random.

    Random images are those with the smallest hashes of their ids: the same on any number of processes.
    """
    digest = hashlib.sha256(image.id.encode()).digest()
    random = {"random": int.from_bytes(digest[:6], "big") / 2**48}
    return random if image.error != image.error else {"worst": -image.error, "best": image.error} | random


def chosen(images: list[PageImage]) -> dict[tuple[str, str], list[int]]:
    """(truth, role) → the images to show large; a random one that is best or worst is not shown twice."""
    selected: dict[tuple[str, str], list[int]] = {}
    for truth in dict.fromkeys(image.truth for image in images):
        taken: set[int] = set()
        scored = sum(image.truth == truth and image.error == image.error for image in images)
        counts = {"worst": min(EACH, (scored + 1) // 2), "best": min(EACH, scored // 2), "random": EACH}
        for role in ROLES:
            ranked = sorted(
                (rank_keys(image)[role], image.id, index)
                for index, image in enumerate(images)
                if image.truth == truth and role in rank_keys(image)
            )
            selected[truth, role] = [index for *_, index in ranked[: counts[role]] if index not in taken]
            taken.update(selected[truth, role])
    return {key: indices for key, indices in selected.items() if indices}
