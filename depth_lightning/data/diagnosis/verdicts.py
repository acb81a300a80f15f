"""Verdicts on a data set from the measurements of its samples, each with its evidence."""

import re
from collections.abc import Mapping, Sequence

from depth_lightning.data.diagnosis.cameras import judge_cameras
from depth_lightning.data.diagnosis.duplicates import near_duplicates
from depth_lightning.data.diagnosis.facts import Facts, Unreadable
from depth_lightning.data.diagnosis.geometry import judge_geometry
from depth_lightning.data.diagnosis.values import judge_values
from depth_lightning.data.diagnosis.verdict import SHOWN, Verdict, found
from depth_lightning.wording import counted


def judge(measured: Sequence[Facts | Unreadable]) -> list[Verdict]:
    """All checks of one split."""
    facts = [sample for sample in measured if isinstance(sample, Facts)]
    verdicts = [_unreadable(measured)]
    return (
        [*verdicts, _refused(facts), *judge_values(facts), *judge_geometry(facts), *judge_cameras(facts)]
        if facts
        else verdicts
    )


def judge_splits(splits: Mapping[str, Sequence[Facts | Unreadable]]) -> list[Verdict]:
    """Checks that need both splits."""
    train, val = ([one for one in splits.get(name, ()) if isinstance(one, Facts)] for name in ("train", "val"))
    if not train or not val:
        return []
    pairs = near_duplicates([one.fingerprint for one in val], [one.fingerprint for one in train])
    check = "near-duplicates across the splits"
    verdicts = [
        Verdict(check, "fine", f"no validation image resembles a training image ({len(val)} and {len(train)} compared)")
    ]
    if pairs:
        verdicts = [
            Verdict(
                check,
                "found",
                f"{len({i for i, _, _ in pairs})} of {counted(len(val), 'validation image')} almost equal to a "
                "training image",
                "Metrics on images that were trained on are too good. Split by scene, or remove the copies.",
                [f"{val[i].id} = {train[j].id} ({correlation:.3f})" for i, j, correlation in pairs[:SHOWN]],
                list(dict.fromkeys(val[i].number for i, _, _ in pairs)),
            )
        ]
    shared = sorted({one.scene for one in train} & {one.scene for one in val} - {""})
    if any(one.scene for one in train) and any(one.scene for one in val):
        verdicts.append(
            Verdict(
                "scenes in both splits",
                "found" if shared else "fine",
                f"{len(shared)} of {counted(len({one.scene for one in val}), 'validation scene')} also in training",
                "Frames of one scene are not independent: split by scene (data.split_list=…)." if shared else "",
                shared[:SHOWN],
            )
        )
    return verdicts


def _unreadable(measured: Sequence[Facts | Unreadable]) -> Verdict:
    check = "files that can be read"
    broken = [one for one in measured if isinstance(one, Unreadable)]
    if not broken:
        return Verdict(check, "fine", counted(len(measured), "sample"))
    return Verdict(
        check,
        "found",
        f"{len(broken)} of {counted(len(measured), 'sample')} cannot be read: "
        f"{_grouped([one.reason for one in broken])}",
        "Copy these files again or repair them, or take them out of the split. data.on_error=skip skips up to 1 %.",
        [one.path for one in broken[:SHOWN]],
    )


def _refused(facts: list[Facts]) -> Verdict:
    check = "samples that training accepts"
    refused = [one for one in facts if one.refused]
    if not refused:
        return Verdict(check, "fine", "all that can be read")
    return found(
        check,
        refused,
        f"{len(refused)} of {counted(len(facts), 'sample')} refused: {_grouped([one.refused for one in refused])}",
        "The messages say what to correct.",
    )


def _grouped(reasons: Sequence[str]) -> str:
    """The most common kinds of reasons, each with an example, and with its count if there are several."""
    groups: dict[str, list[str]] = {}
    for reason in reasons:
        groups.setdefault(re.sub(r"\S*/\S*|[\d.]+", "#", reason), []).append(reason)
    largest = sorted(groups.values(), key=len, reverse=True)[:4]
    examples = ((len(group), group[0].rstrip(".")) for group in largest)
    return "; ".join(f"{count} such as {example}" if count > 1 else example for count, example in examples)
