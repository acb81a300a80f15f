"""Whether images have content, and whether the values of their maps are depth in the declared unit.

The bounds are calibrated on real data sets (Kinect, RealSense, LiDAR, structured light): no false alarms there, and
every planted fault is detected.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from depth_lightning.data.bad_samples import MIN_SIDE
from depth_lightning.data.diagnosis.facts import Facts
from depth_lightning.data.diagnosis.verdict import Verdict, found
from depth_lightning.sample import DepthKind
from depth_lightning.wording import counted, significant

USUAL_MEDIAN_M: Final = (0.05, 100.0)
"""Usual range of a data set's median depth in metres, from objects on a table to streets."""
FEW_VALID: Final = 300
"""Fewest valid pixels of a map; a LiDAR of 32 beams gives ten times as many."""


def judge_values(facts: list[Facts]) -> list[Verdict]:
    """All checks based on single numbers of images and maps."""
    checks = [_images, _holes, _spikes, _levels]
    if any(one.kind == DepthKind.METRES for one in facts):
        checks.append(_units)
    if len(facts) > 1 and facts[0].kind != DepthKind.DISPARITY:
        checks.append(_mixed_units)
    return [check(facts) for check in checks]


def _images(facts: list[Facts]) -> Verdict:
    check = "images that show something"
    small = [one for one in facts if min(one.image_size) < MIN_SIDE]
    flat = [one for one in facts if one.contrast < 2 and one not in small]
    if not small and not flat:
        return Verdict(check, "fine", f"least contrast {min(one.contrast for one in facts):.0f} of 255")
    issues = [f"{len(small)} smaller than {MIN_SIDE}×{MIN_SIDE} pixels"] if small else []
    issues += [f"{len(flat)} of one colour (standard deviation below 2 of 255)"] if flat else []
    return found(
        check, small + flat, f"of {counted(len(facts), 'image')}, {' and '.join(issues)}", "Take them out of the split."
    )


def _holes(facts: list[Facts]) -> Verdict:
    check = "valid pixels"
    shares = np.array([_valid_share(one) for one in facts])
    usual = float(np.median(shares))
    sparse = [one for one, share in zip(facts, shares, strict=True) if share < 0.1 * usual]
    empty = [one for one in facts if one.valid_pixels < FEW_VALID]
    evidence = f"median {100 * usual:.2f} %, least {100 * shares.min():.2f} %"
    if len(sparse) > max(1, 0.1 * len(facts)) and not empty:
        return Verdict(check, "fine", f"{evidence}; dense and sparse maps, {len(sparse)} of {len(facts)} are sparse")
    few = empty + [one for one in sparse if one.valid_pixels >= FEW_VALID]
    if not few:
        return Verdict(check, "fine", evidence)
    return found(
        check,
        few,
        f"{len(few)} of {counted(len(facts), 'map')} with under a tenth of the usual share, or under {FEW_VALID}: "
        f"{evidence}",
        "Look at them; if holes are declared too widely, correct data.invalid or data.limits.",
    )


def _spikes(facts: list[Facts]) -> Verdict:
    check = "no sentinel value for far or unknown"
    spiked = [one for one in facts if one.spike > 0.01]
    if len(spiked) < max(1, 0.02 * len(facts)):
        return Verdict(check, "fine", "no isolated largest value fills more than 1 % of the pixels")
    values = sorted({float(f"{one.largest:.5g}") for one in spiked})
    share = float(np.median([one.spike for one in spiked]))
    return found(
        check,
        spiked,
        f"in {len(spiked)} of {counted(len(facts), 'map')} the largest value, {_some(values)}, is isolated from "
        f"all others and fills {100 * share:.0f} % of the valid pixels",
        "It seems to mean sky or a hole: declare it with data.invalid or data.sky_value (stored values).",
    )


def _levels(facts: list[Facts]) -> Verdict:
    check = "finer than 8 bits"
    depths = [one for one in facts if one.kind != DepthKind.DISPARITY]
    coarse = [one for one in depths if one.levels]
    if not depths:
        return Verdict(check, "fine", "disparity may be coarse")
    if len(coarse) < 0.5 * len(depths):
        return Verdict(check, "fine", f"{len(coarse)} of {counted(len(depths), 'map')} would fit into 256 even steps")
    return found(
        check,
        coarse,
        f"{len(coarse)} of {counted(len(depths), 'map')} with at most {max(one.levels for one in coarse)} levels in "
        "even steps",
        "They come from 8-bit pictures, which are too coarse and often scaled per image: read the original depth.",
    )


def _units(facts: list[Facts]) -> Verdict:
    check = "unit is metres"
    median = float(np.nanmedian([one.median for one in facts if one.kind == DepthKind.METRES]))
    low, high = USUAL_MEDIAN_M
    if not np.isfinite(median):
        return Verdict(check, "unclear", "no valid pixels")
    if low <= median <= high:
        return Verdict(check, "fine", f"median depth {significant(median)} m; usual range {low:g} to {high:g}")
    if median > high:
        guesses = [
            f"/ {factor} = {significant(median / factor)} m"
            for factor in (1000, 256, 100)
            if low <= median / factor <= high
        ]
        advice = "Millimetres, or KITTI's 256 per metre? Set data.depth_scale, or convert the files."
    else:
        guesses = [
            f"× {factor} = {significant(median * factor)} m"
            for factor in (1000, 256, 100)
            if low <= median * factor <= high
        ]
        advice = "Divided twice? Set data.depth_scale=1, or the files' units per metre."
    odd = [one for one in facts if not low <= one.median <= high]
    return found(
        check, odd, f"median depth {significant(median, 4)} m ({', '.join(guesses) or 'no usual unit'})", advice
    )


def _mixed_units(facts: list[Facts]) -> Verdict:
    check = "one unit for all"
    usual = float(np.nanmedian([one.median for one in facts]))
    odd = [one for one in facts if not usual / 50 <= one.median <= usual * 50 and np.isfinite(one.median)]
    if not odd:
        return Verdict(check, "fine", "no map's median is 50 times another's")
    factor = float(np.median([one.median for one in odd])) / usual
    return found(
        check,
        odd,
        f"{len(odd)} of {counted(len(facts), 'map')} with {significant(factor, 4)} × the usual median",
        "These are in another unit (1000: millimetres; 256: KITTI's). Give them their own depth_scale in a manifest.",
    )


def _valid_share(one: Facts) -> float:
    return one.valid_pixels / (one.target_size[0] * one.target_size[1])


def _some(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:3]) + (", …" if len(values) > 3 else "")
