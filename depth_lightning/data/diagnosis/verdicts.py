"""From measurements to what looks wrong with a data set, each with its evidence.

The bounds are set on real sets (Kinect, RealSense, LiDAR, structured light) such that nothing is found on them, and
every planted fault is.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import numpy as np

from depth_lightning.data.bad_samples import MIN_SIDE
from depth_lightning.data.diagnosis.duplicates import near_duplicates
from depth_lightning.data.diagnosis.edges import ORIENTATIONS, REACH, WIDTH
from depth_lightning.data.diagnosis.facts import Facts, Unreadable
from depth_lightning.data.diagnosis.planes import Plane
from depth_lightning.sample import DepthKind

State = Literal["fine", "found", "unclear"]

USUAL_MEDIAN_M: Final = (0.05, 100.0)
"""Where the median depth of a data set in metres lies, from objects on a table to streets."""
MIN_WINDOWS: Final = 4
"""Flat windows that it takes to say something."""
TILTED: Final = 1.2
"""Far by near depth of a window in which depth and disparity can be told apart."""
NEAR: Final = 3
"""Pixels of the small maps, 2 % of the width, that depth may lie beside its image."""
FEW_VALID: Final = 300
"""Valid pixels of a map; a LiDAR of 32 beams gives ten times as many."""
SHOWN: Final = 8
"""Samples that are named as examples."""


class Verdict(NamedTuple):
    """What one check says."""

    check: str
    state: State
    evidence: str
    advice: str = ""
    examples: Sequence[str] = ()
    """Ids or paths."""
    pictures: Sequence[int] = ()
    """Indices of samples that show it."""


def judge(measured: Sequence[Facts | Unreadable]) -> list[Verdict]:
    """All checks of one split."""
    facts = [one for one in measured if isinstance(one, Facts)]
    verdicts = [_unreadable(measured)]
    if not facts:
        return verdicts
    checks: list[Callable[[list[Facts]], Verdict]] = [_refused, _images, _holes, _spikes, _levels]
    if any(one.kind == DepthKind.METRES for one in facts):
        checks.append(_units)
    if len(facts) > 1 and facts[0].kind != DepthKind.DISPARITY:
        checks.append(_mixed_units)
    checks += [_kind, _rays, _alignment]
    return verdicts + [check(facts) for check in checks]


def judge_splits(splits: Mapping[str, Sequence[Facts | Unreadable]]) -> list[Verdict]:
    """What only two splits together can show."""
    train, val = ([one for one in splits.get(name, ()) if isinstance(one, Facts)] for name in ("train", "val"))
    if not train or not val:
        return []
    pairs = near_duplicates([one.fingerprint for one in val], [one.fingerprint for one in train])
    check = "near-duplicates across the splits"
    verdicts = [
        Verdict(check, "fine", f"none of {len(val)} validation images is like one of {len(train)} training images")
    ]
    if pairs:
        verdicts = [
            Verdict(
                check,
                "found",
                f"{len({i for i, _, _ in pairs})} of {len(val)} validation images all but equal a training image",
                "Metrics on images that were trained on are too good. Split by scene, or take the copies out.",
                [f"{val[i].id} = {train[j].id} ({likeness:.3f})" for i, j, likeness in pairs[:SHOWN]],
                list(dict.fromkeys(val[i].number for i, _, _ in pairs)),
            )
        ]
    shared = sorted({one.scene for one in train} & {one.scene for one in val} - {""})
    if any(one.scene for one in train) and any(one.scene for one in val):
        verdicts.append(
            Verdict(
                "scenes in both splits",
                "found" if shared else "fine",
                f"{len(shared)} of {len({one.scene for one in val})} validation scenes are trained on too",
                "Frames of one scene are not independent: split by scene (data.split_list=…)." if shared else "",
                shared[:SHOWN],
            )
        )
    return verdicts


def _unreadable(measured: Sequence[Facts | Unreadable]) -> Verdict:
    check = "files that can be read"
    broken = [one for one in measured if isinstance(one, Unreadable)]
    if not broken:
        return Verdict(check, "fine", f"all {len(measured)} samples")
    return Verdict(
        check,
        "found",
        f"{len(broken)} of {len(measured)} samples cannot be read: {_grouped([one.reason for one in broken])}",
        "Copy or mend these files, or take them out of the split. data.on_error=skip passes over up to 1 %.",
        [one.path for one in broken[:SHOWN]],
    )


def _refused(facts: list[Facts]) -> Verdict:
    check = "samples that training accepts"
    refused = [one for one in facts if one.refused]
    if not refused:
        return Verdict(check, "fine", f"all {len(facts)} that can be read")
    return _found(
        check,
        refused,
        f"{len(refused)} of {len(facts)} are refused: {_grouped([one.refused for one in refused])}",
        "The messages say what to correct.",
    )


def _grouped(reasons: Sequence[str]) -> str:
    """The commonest kinds of reasons, each with its count and one of its kind."""
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(re.sub(r"\S*/\S*|[\d.]+", "#", reason), []).append(reason)
    largest = sorted(groups.values(), key=len, reverse=True)[:4]
    return "; ".join(f"{len(group)} × {group[0].rstrip('.')}" for group in largest)


def _images(facts: list[Facts]) -> Verdict:
    check = "images that show something"
    small = [one for one in facts if min(one.image_size) < MIN_SIDE]
    flat = [one for one in facts if one.contrast < 2 and one not in small]
    if not small and not flat:
        return Verdict(check, "fine", f"least contrast {min(one.contrast for one in facts):.0f} of 255")
    said = [f"{len(small)} are smaller than {MIN_SIDE}×{MIN_SIDE} pixels"] if small else []
    said += [f"{len(flat)} are of one colour (standard deviation below 2 of 255)"] if flat else []
    return _found(check, small + flat, f"of {len(facts)} images, {' and '.join(said)}", "Take them out of the split.")


def _holes(facts: list[Facts]) -> Verdict:
    check = "valid pixels"
    shares = np.array([_valid_share(one) for one in facts])
    usual = float(np.median(shares))
    sparse = [one for one, share in zip(facts, shares, strict=True) if share < 0.1 * usual]
    empty = [one for one in facts if one.valid_pixels < FEW_VALID]
    evidence = f"median {usual:.2%}, least {shares.min():.2%}"
    if len(sparse) > max(1, 0.1 * len(facts)) and not empty:
        return Verdict(check, "fine", f"{evidence}; dense and sparse maps, {len(sparse)} of {len(facts)} are sparse")
    few = empty + [one for one in sparse if one.valid_pixels >= FEW_VALID]
    if not few:
        return Verdict(check, "fine", evidence)
    return _found(
        check,
        few,
        f"{len(few)} of {len(facts)} maps have under a tenth of the usual share, or under {FEW_VALID}: {evidence}",
        "Look at them; if holes are declared too widely, correct data.invalid or data.limits.",
    )


def _spikes(facts: list[Facts]) -> Verdict:
    check = "one value for far or unknown"
    spiked = [one for one in facts if one.spike > 0.01]
    if len(spiked) < max(1, 0.02 * len(facts)):
        return Verdict(check, "fine", "no value lies apart from all others and is in more than 1 % of the pixels")
    values = sorted({float(f"{one.largest:.5g}") for one in spiked})
    share = float(np.median([one.spike for one in spiked]))
    return _found(
        check,
        spiked,
        f"in {len(spiked)} of {len(facts)} maps the largest value, {_some(values)}, lies apart from all others "
        f"and is in {share:.0%} of the valid pixels",
        "It seems to mean sky or a hole: declare it with data.invalid or data.sky_value (stored values).",
    )


def _levels(facts: list[Facts]) -> Verdict:
    check = "finer than 8 bits"
    depths = [one for one in facts if one.kind != DepthKind.DISPARITY]
    coarse = [one for one in depths if one.levels]
    if not depths:
        return Verdict(check, "fine", "disparity may be coarse")
    if len(coarse) < 0.5 * len(depths):
        return Verdict(check, "fine", f"{len(coarse)} of {len(depths)} maps would fit into 256 even steps")
    return _found(
        check,
        coarse,
        f"{len(coarse)} of {len(depths)} maps have at most {max(one.levels for one in coarse)} levels with even steps",
        "They come from 8-bit pictures, which are too coarse and often scaled per image: read the original depth.",
    )


def _units(facts: list[Facts]) -> Verdict:
    check = "unit is metres"
    median = float(np.nanmedian([one.median for one in facts if one.kind == DepthKind.METRES]))
    low, high = USUAL_MEDIAN_M
    if not np.isfinite(median):
        return Verdict(check, "unclear", "nothing is valid")
    if low <= median <= high:
        return Verdict(check, "fine", f"median depth {median:.3g} m; usual are {low:g} to {high:g}")
    if median > high:
        guesses = [
            f"/ {factor} = {median / factor:.3g} m" for factor in (1000, 256, 100) if low <= median / factor <= high
        ]
        advice = "Millimetres, or KITTI's 256 per metre? Set data.depth_scale, or convert the files."
    else:
        guesses = [
            f"× {factor} = {median * factor:.3g} m" for factor in (1000, 256, 100) if low <= median * factor <= high
        ]
        advice = "Divided once too often? Set data.depth_scale=1, or what the files are in."
    odd = [one for one in facts if not low <= one.median <= high]
    return _found(check, odd, f"median depth {median:.4g} m ({', '.join(guesses) or 'no usual unit'})", advice)


def _mixed_units(facts: list[Facts]) -> Verdict:
    check = "one unit for all"
    usual = float(np.nanmedian([one.median for one in facts]))
    odd = [one for one in facts if not usual / 50 <= one.median <= usual * 50 and np.isfinite(one.median)]
    if not odd:
        return Verdict(check, "fine", "no map's median is 50 times another's")
    return _found(
        check,
        odd,
        f"{len(odd)} of {len(facts)} maps have {np.median([one.median for one in odd]) / usual:.4g} × the usual median",
        "These are in another unit (1000: millimetres; 256: KITTI's). Give them their own depth_scale in a manifest.",
    )


def _kind(facts: list[Facts]) -> Verdict:
    check = "depth or disparity as declared"
    windows = _windows(facts)
    tilted = [plane for plane in windows if plane.tilt > TILTED]
    if len(tilted) < MIN_WINDOWS:
        return Verdict(check, "unclear", f"{len(tilted)} tilted flat windows; it takes {MIN_WINDOWS}")
    share = float(np.mean([plane.depth_vote > 0 for plane in tilted]))
    strength = float(np.exp(abs(np.median([plane.depth_vote for plane in tilted]))))
    is_disparity = facts[0].kind == DepthKind.DISPARITY
    evidence = (
        f"{share:.0%} of {len(tilted)} tilted flat windows are planes if the map holds "
        f"{'disparity' if is_disparity else 'depth'}, fits differ {strength:.1f}-fold"
    )
    if 0.2 <= share <= 0.8 or strength < 1.15:
        return Verdict(check, "unclear", evidence)
    if share > 0.5:
        return Verdict(check, "fine", evidence)
    found, declared = ("depth", "disparity") if is_disparity else ("disparity", "depth")
    return _found(
        check,
        [one for one in facts if one.planes],
        f"declared as {declared}, but {1 - share:.0%} of {len(tilted)} tilted flat windows are planes in it as "
        f"{found}, {strength:.1f} times as exactly",
        f"Larger is nearer in disparity. Declare data.kind={'metres' if is_disparity else 'disparity'}"
        f"{'' if is_disparity else ', or give data.focal_px and data.baseline_m'}.",
    )


def _rays(facts: list[Facts]) -> Verdict:
    check = "depth along the optical axis"
    if facts[0].kind == DepthKind.DISPARITY:
        return Verdict(check, "fine", "disparity has no such distances")
    sharp = [plane for plane in _windows(facts) if plane.bulge_error < 0.2 and plane.depth_vote > -0.1]
    if len(sharp) < MIN_WINDOWS:
        return Verdict(check, "unclear", f"{len(sharp)} flat windows; it takes {MIN_WINDOWS}")
    low, bulge, high = np.quantile([plane.bulge for plane in sharp], [0.25, 0.5, 0.75])
    evidence = (
        f"flat surfaces bulge by {bulge:.2f} (middle half of {len(sharp)} windows {low:.2f} to {high:.2f}; 0: depth, "
        "1: distances along the ray)"
    )
    shown = [one for one in facts if one.planes]
    if bulge > 0.5 and low > 0.25:
        return _found(check, shown, evidence, "Set data.ray_distance=true with data.focal_px, or convert the files.")
    if bulge < -0.5 and high < -0.25:
        return _found(check, shown, evidence, "They were converted once too often: set data.ray_distance=false.")
    return Verdict(check, "fine" if abs(bulge) < 0.5 else "unclear", evidence)


def _alignment(facts: list[Facts]) -> Verdict:
    check = "image and depth on one another"
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
        f"edges agree by {upright.mean():.2f}, {names[best]} by {turned[best].mean():.2f} ({len(maps)} images compared)"
    )
    shown = [one for one, _ in maps]
    if turned[best].mean() > max(0.08, 2 * upright.mean()) and _surely(turned[best] - upright):
        return _found(check, shown, evidence, f"The depth maps look {names[best]}: turn them back.")
    y, x = _peak(mean[0])
    moved = stack[:, 0, y, x]
    if max(abs(y - REACH), abs(x - REACH)) > NEAR and moved.mean() > 1.3 * upright.mean() and _surely(moved - upright):
        right, down = (x - REACH) / WIDTH, (y - REACH) / WIDTH
        return _found(
            check,
            shown,
            f"edges agree by {upright.mean():.2f}, and by {moved.mean():.2f} when the depth is moved by {right:+.1%} "
            f"of the image's width to the right and {down:+.1%} down ({len(maps)} images)",
            "Image and depth are not registered: another camera's view, a crop, or frames that do not belong together.",
        )
    if upright.mean() < max(0.05, 1.3 * turned[best].mean()):
        return Verdict(check, "unclear", f"{evidence}: too close to tell")
    return Verdict(check, "fine", evidence)


def _peak(values: np.ndarray) -> tuple[int, int]:
    y, x = np.unravel_index(values.argmax(), values.shape)
    return int(y), int(x)


def _surely(gains: np.ndarray) -> bool:
    """Whether the gain of one hypothesis over another, per image, is no accident: three standard errors."""
    return bool(gains.mean() > 3 * max(float(gains.std()), 0.05) / np.sqrt(len(gains)))


def _windows(facts: Sequence[Facts]) -> list[Plane]:
    return [plane for one in facts for plane in one.planes or ()]


def _valid_share(one: Facts) -> float:
    return one.valid_pixels / (one.target_size[0] * one.target_size[1])


def _found(check: str, facts: Sequence[Facts], evidence: str, advice: str) -> Verdict:
    return Verdict(check, "found", evidence, advice, [one.id for one in facts[:SHOWN]], [one.number for one in facts])


def _some(values: Sequence[float]) -> str:
    return ", ".join(f"{value:g}" for value in values[:3]) + (", …" if len(values) > 3 else "")
