"""Whether the declared cameras are ones that exist."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from depth_lightning.camera import fov_of
from depth_lightning.data.diagnosis.facts import Facts
from depth_lightning.data.diagnosis.verdict import Verdict, found

USUAL_FOV_DEG: Final = (8.0, 140.0)
"""Fields of view of the longer side, from a telephoto lens to the widest that a pinhole describes."""
OFF_CENTRE: Final = 0.2
"""Farthest that a principal point usually is from the image's centre, in shares of its longer side."""
STRETCH: Final = 1.25
"""Largest usual ratio of the two focal lengths."""


def fields_of_view(facts: Sequence[Facts]) -> np.ndarray:
    """Degrees across the longer side of every image whose camera is known."""
    known = [one for one in facts if not np.isnan(one.intrinsics).any()]
    return np.array([fov_of(one.intrinsics, one.image_size) for one in known])


def judge_cameras(facts: list[Facts]) -> list[Verdict]:
    """The check of the cameras."""
    check = "cameras that can be right"
    known = [one for one in facts if not np.isnan(one.intrinsics).any()]
    if not known:
        return [Verdict(check, "fine", "none is known; camera=canonical needs them")]
    angles = fields_of_view(facts)
    low, high = USUAL_FOV_DEG
    odd = {
        f"fields of view of {angles.min():.3g} to {angles.max():.3g}° (usual: {low:g} to {high:g}°)": [
            one for one, angle in zip(known, angles, strict=True) if not low <= angle <= high
        ],
        "a principal point far from the image's centre": [one for one in known if _off_centre(one) > OFF_CENTRE],
        "focal lengths fx and fy that differ by more than a quarter": [
            one for one in known if not 1 / STRETCH < one.intrinsics[0] / one.intrinsics[1] < STRETCH
        ],
    }
    wrong = {what: those for what, those in odd.items() if those}
    if not wrong:
        share = "all" if len(known) == len(facts) else f"{len(known)} of {len(facts)} known,"
        return [Verdict(check, "fine", f"{share} {angles.min():.3g} to {angles.max():.3g}° across the longer side")]
    evidence = "; ".join(f"{len(those)} of {len(known)} have {what}" for what, those in wrong.items())
    shown = [one for one in known if any(one is other for those in wrong.values() for other in those)]
    advice = "Intrinsics are fx, fy, cx, cy in pixels of the image: were they for another size? data.intrinsics_size."
    return [found(check, shown, evidence, advice)]


def _off_centre(one: Facts) -> float:
    height, width = one.image_size
    offset = np.abs(one.intrinsics[2:] - [(width - 1) / 2, (height - 1) / 2]).max()
    return float(offset / max(one.image_size))
