"""Splitting pairs into training and validation."""

import hashlib
import logging
import posixpath
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from depth_lightning.data.listing import Split
from depth_lightning.data.pair_table import Pair
from depth_lightning.data.reading import read_lines

log = logging.getLogger(__name__)


def select(
    pairs: Sequence[Pair], split: Split, split_list: str | Sequence[str] | None, val_share: float, root: Path
) -> list[Pair]:
    """The pairs of one split, by `split_list` if given, else by the pairs' own splits, else by `val_share`.

    Args:
        pairs: all pairs.
        split: "train" or "val".
        split_list: a text file below `root`, whose lines begin with a scene, a folder or an image; a list of such
            names; or None. With {split} in its path there is one file for each split; otherwise it names the
            validation pairs, and all others are for training.
        val_share: share of the scenes, at least one, used for validation; of the images if no scenes are known. The
            choice depends on their names alone.
        root: folder of the list file.

    Raises:
        FileNotFoundError: the list file does not exist.
        ValueError: the split is empty, or the list matches no pair.
    """
    if split_list is not None:
        selected, how = _by_list(pairs, split, split_list, root)
    elif any(pair.split for pair in pairs):
        selected = [pair for pair in pairs if pair.split == split]
        how = f"the splits are {dict(Counter(pair.split for pair in pairs))}"
    else:
        selected, how = _by_share(pairs, split, val_share)
    if not selected:
        raise ValueError(f"The {split} split is empty: {how}, of {len(pairs)} pairs. {HINT}")
    log.info(f"{split}: {len(selected)} of {len(pairs)} pairs; {how}.")
    return selected


HINT = (
    "Name the splits 'train' and 'val' ({split} in a pattern, or the manifest's column split), "
    "or set data.split_list=… or data.val_share=…."
)


def _by_list(
    pairs: Sequence[Pair], split: Split, split_list: str | Sequence[str], root: Path
) -> tuple[list[Pair], str]:
    per_split = False
    if isinstance(split_list, str):
        per_split = "{split}" in split_list
        path = root / split_list.replace("{split}", split)
        if not path.is_file():
            raise FileNotFoundError(f"No list file at data.split_list={path.absolute()}.")
        lines = [line.split() for line in read_lines(path)]
        # KITTI's lists have 'image depth focal', with None if there is no depth.
        names = {fields[0] for fields in lines if fields and fields[1:2] != ["None"]}
        how = f"{path} names {len(names)}"
    else:
        names = set(split_list)
        how = f"data.split_list names {sorted(names)}"
    names = {name.strip("/") for name in names}
    lengths = sorted({name.count("/") + 1 for name in names})
    listed, used = [], set[str]()
    for pair in pairs:
        matched = names.intersection(_names(pair, lengths))
        listed.append(bool(matched))
        used |= matched
    unused = sorted(names - used)
    if not used:
        raise ValueError(f"{how}, and none of them is among the {len(pairs)} pairs, such as {pairs[0].id}. {HINT}")
    if unused:
        log.warning(f"{how}, and {len(unused)} of them are not among the pairs: {', '.join(unused[:3])}, ….")
    wanted = per_split or split == "val"
    return [pair for pair, is_listed in zip(pairs, listed, strict=True) if is_listed == wanted], how


def _names(pair: Pair, lengths: Sequence[int]) -> set[str]:
    """All names by which a list may refer to a pair: its scene, and runs of its id's path parts of these lengths."""
    names = {pair.scene}
    for parts in (pair.id.split("/"), posixpath.splitext(pair.id)[0].split("/")):
        names.update("/".join(parts[start : start + n]) for n in lengths for start in range(len(parts) + 1 - n))
    return names


def _by_share(pairs: Sequence[Pair], split: Split, val_share: float) -> tuple[list[Pair], str]:
    has_scenes = any(pair.scene for pair in pairs)
    groups = {pair.scene or pair.id for pair in pairs}
    what = "scenes" if has_scenes else "images"
    if len(groups) < 2:
        raise ValueError(f"data.val_share needs at least two {what}, found {len(groups)}. {HINT}")
    if not has_scenes:
        log.warning(
            "No scenes are known, so images are split one by one, and views of one place may be in both splits. Name "
            "the scenes: {scene} in the pattern of the images, or the manifest's column scene."
        )
    in_order = sorted(groups, key=lambda group: hashlib.sha256(group.encode()).digest())
    val = set(in_order[: max(1, round(val_share * len(groups)))])
    how = f"{len(val)} of {len(groups)} {what} are for validation (data.val_share={val_share:g})"
    return [pair for pair in pairs if ((pair.scene or pair.id) in val) == (split == "val")], how
