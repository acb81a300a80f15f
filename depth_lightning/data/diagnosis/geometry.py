"""Whether maps have the declared geometry: depth or disparity, measured in which direction, aligned with the image.

The bounds are calibrated on real data sets (Kinect, RealSense, LiDAR, structured light): no false alarms there, and
every planted fault is detected.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from depth_lightning.data.diagnosis.edges import NEAR, ORIENTATIONS, REACH, WIDTH, surely
from depth_lightning.data.diagnosis.facts import Facts
from depth_lightning.data.diagnosis.planes import Plane
from depth_lightning.data.diagnosis.verdict import Verdict, found
from depth_lightning.sample import DepthKind
from depth_lightning.wording import counted, significant

MIN_WINDOWS: Final = 4
"""Flat windows needed for a verdict."""
TILTED: Final = 1.2
"""Least far-to-near ratio of a window in which depth and disparity can be distinguished."""


def judge_geometry(facts: list[Facts]) -> list[Verdict]:
    """All checks based on flat surfaces and edges."""
    return [_kind(facts), _rays(facts), _alignment(facts)]


def _kind(facts: list[Facts]) -> Verdict:
    check = "depth or disparity as declared"
    windows = _windows(facts)
    tilted = [plane for plane in windows if plane.tilt > TILTED]
    if len(tilted) < MIN_WINDOWS:
        return Verdict(check, "unclear", f"{counted(len(tilted), 'tilted flat window')}; {MIN_WINDOWS} are needed")
    share = float(np.mean([plane.depth_vote > 0 for plane in tilted]))
    strength = float(np.exp(abs(np.median([plane.depth_vote for plane in tilted]))))
    is_disparity = facts[0].kind == DepthKind.DISPARITY
    better, declared = ("depth", "disparity") if is_disparity else ("disparity", "depth")
    evidence = (
        f"{100 * share:.0f} % of {len(tilted)} tilted flat windows are planar if the map is read as {declared} rather "
        f"than {better}; the errors of the two fits differ by a factor of {significant(strength)}"
    )
    if 0.2 <= share <= 0.8 or strength < 1.15:
        return Verdict(check, "unclear", evidence)
    if share > 0.5:
        return Verdict(check, "fine", evidence)
    return found(
        check,
        [one for one in facts if one.planes],
        f"declared as {declared}, but {100 * (1 - share):.0f} % of {len(tilted)} tilted flat windows are planar if "
        f"it is read as {better}, {significant(strength)} times as exactly",
        f"Larger is nearer in disparity. Declare data.kind={'metres' if is_disparity else 'disparity'}"
        f"{'' if is_disparity else ', or give data.focal_px and data.baseline_m'}.",
    )


def _rays(facts: list[Facts]) -> Verdict:
    check = "depth along the optical axis"
    if facts[0].kind == DepthKind.DISPARITY:
        return Verdict(check, "fine", "does not apply to disparity")
    sharp = [plane for plane in _windows(facts) if plane.bulge_error < 0.2 and plane.depth_vote > -0.1]
    if len(sharp) < MIN_WINDOWS:
        return Verdict(check, "unclear", f"{counted(len(sharp), 'flat window')}; {MIN_WINDOWS} are needed")
    low, bulge, high = np.quantile([plane.bulge for plane in sharp], [0.25, 0.5, 0.75])
    evidence = (
        f"flat surfaces bulge by {_fixed(bulge)} (middle half of {len(sharp)} windows {_fixed(low)} to {_fixed(high)}; "
        "0: depth, 1: distances along the ray)"
    )
    shown = [one for one in facts if one.planes]
    if bulge > 0.5 and low > 0.25:
        return found(check, shown, evidence, "Set data.ray_distance=true with data.focal_px, or convert the files.")
    if bulge < -0.5 and high < -0.25:
        return found(check, shown, evidence, "They were converted twice: set data.ray_distance=false.")
    return Verdict(check, "fine" if abs(bulge) < 0.5 else "unclear", evidence)


def _alignment(facts: list[Facts]) -> Verdict:
    check = "image and depth are aligned"
    maps = [(one, one.agreement) for one in facts if one.agreement is not None and one.agreement.any()]
    if not maps:
        return Verdict(check, "unclear", "no map was compared")
    stack = np.stack([agreement for _, agreement in maps])
    mean = stack.mean(axis=0)
    inner = slice(REACH - NEAR, REACH + NEAR + 1)
    peaks = [np.add(_peak(one[inner, inner]), REACH - NEAR) for one in mean]
    upright, *turned = (stack[:, number, y, x] for number, (y, x) in enumerate(peaks))
    names = list(ORIENTATIONS)[1:]
    best = int(np.argmax([other.mean() for other in turned]))
    evidence = (
        f"edges agree by {_fixed(upright.mean())}, {names[best]} by {_fixed(turned[best].mean())} "
        f"({counted(len(maps), 'image')} compared)"
    )
    shown = [one for one, _ in maps]
    if turned[best].mean() > max(0.08, 2 * upright.mean()) and surely(turned[best] - upright):
        exif = "Where the images have an EXIF orientation, try data.exif=apply and data.exif=ignore."
        advice = f"The depth maps look {names[best]}: restore their orientation. {exif}"
        return found(check, shown, evidence, advice)
    y, x = _peak(mean[0])
    moved = stack[:, 0, y, x]
    if max(abs(y - REACH), abs(x - REACH)) > NEAR and moved.mean() > 1.3 * upright.mean() and surely(moved - upright):
        right, down = (x - REACH) / WIDTH, (y - REACH) / WIDTH
        return found(
            check,
            shown,
            f"edges agree by {_fixed(upright.mean())}, and by {_fixed(moved.mean())} when the depth is moved by "
            f"{100 * abs(right):.1f} % of the image's width to the {'right' if right > 0 else 'left'} and "
            f"{100 * abs(down):.1f} % {'down' if down > 0 else 'up'} ({counted(len(maps), 'image')})",
            "Image and depth are not registered: another camera's view, a crop, or frames that do not belong together.",
        )
    if upright.mean() < max(0.05, 1.3 * turned[best].mean()):
        return Verdict(check, "unclear", f"{evidence}: too close to tell")
    return Verdict(check, "fine", evidence)


def _fixed(value: float) -> str:
    return f"{round(value, 2) + 0.0:.2f}"  # 0.00, not -0.00


def _peak(values: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(values.argmax(), values.shape)
    return int(y), int(x)


def _windows(facts: Sequence[Facts]) -> list[Plane]:
    return [plane for one in facts for plane in one.planes or ()]
