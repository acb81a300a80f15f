"""Splitting pairs into training, validation and test."""

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from depth_lightning.data.listing import Split
from depth_lightning.data.pair_table import Pair
from depth_lightning.data.split_lists import find_named, plain_name, read_split_list
from depth_lightning.wording import counted

log = logging.getLogger(__name__)


def select(
    pairs: Sequence[Pair], split: Split, split_list: str | Sequence[str] | None, val_share: float, root: Path
) -> list[Pair]:
    """The pairs of one split, by `split_list` if given, else by the pairs' own splits, else by `val_share`.

    Args:
        pairs: all pairs.
        split: "train", "val" or "test"; or "all" for every pair.
        split_list: a file below `root` that names images, see `split_lists`; a list of scenes, folders or images; or
            None. With {split} in its path there is one file for each split; otherwise it names the validation pairs,
            and all others are for training.
        val_share: share of the scenes, at least one, used for validation; of the images if no scenes are known. The
            choice depends on their names alone.
        root: folder of the list file.

    Raises:
        FileNotFoundError: the list file does not exist.
        ValueError: the split is empty, the list matches no pair, a line of it names several, or an image is both for
            training and for another split.
    """
    if split == "all":
        selected, how = list(pairs), "split=all"
    elif split_list is not None:
        selected, how = _by_list(pairs, split, split_list, root)
    elif any(pair.split for pair in pairs):
        selected = [pair for pair in pairs if pair.split == split]
        how = f"the splits are {dict(Counter(pair.split for pair in pairs))}"
    else:
        selected, how = _by_share(pairs, split, val_share)
    if not selected:
        raise ValueError(f"The {split} split is empty: {how}, of {len(pairs)} pairs. {HINT}")
    log.info(f"{split}: {len(selected)} of {counted(len(pairs), 'pair')}; {how}.")
    return selected


HINT = (
    "Name the splits 'train', 'val' and 'test' ({split} in a pattern, or the manifest's column split), "
    "or set data.split_list=… or data.val_share=…."
)


def _by_list(
    pairs: Sequence[Pair], split: Split, split_list: str | Sequence[str], root: Path
) -> tuple[list[Pair], str]:
    if isinstance(split_list, str):
        path = root / split_list.replace("{split}", split)
        if not path.is_file():
            raise FileNotFoundError(f"No list file at data.split_list={path.absolute()}.")
        listed = read_split_list(path, pairs, split)
        images, unused, per_split = listed.images, listed.unused, listed.per_split or "{split}" in split_list
        how = f"{path} names {listed.lines}"
        if per_split:
            _check_overlap(pairs, split, split_list, root, images)
    else:
        named = find_named(pairs, {plain_name(name) for name in split_list})
        images, per_split = {number for samples in named.values() for part in samples for number in part}, False
        unused = [name for name in split_list if plain_name(name) not in named]
        how = f"data.split_list names {sorted(split_list)}"
    if not images:
        raise ValueError(f"{how}, and none of them is among the {len(pairs)} pairs, such as {pairs[0].id}. {HINT}")
    if unused:
        log.warning(f"{how}, and {len(unused)} of them are not among the pairs: {', '.join(unused[:3])}, ….")
    if not per_split and split == "test":
        return [], how
    wanted = per_split or split == "val"
    return [pair for number, pair in enumerate(pairs) if (number in images) == wanted], how


def _check_overlap(pairs: Sequence[Pair], split: Split, split_list: str, root: Path, images: set[int]) -> None:
    """Refuse images that are both trained on and evaluated on."""
    for other in ("val", "test") if split == "train" else ("train",):
        path = root / split_list.replace("{split}", other)
        both = sorted(images & read_split_list(path, pairs, other).images) if path.is_file() else []
        if both:
            first = ", ".join(pairs[number].id for number in both[:3])
            raise ValueError(
                f"{path}: expected {split} and {other} to have no image in common, found {len(both)} ({first}"
                f"{', …' if len(both) > 3 else ''}). Take them out of one of them."
            )


def _by_share(pairs: Sequence[Pair], split: Split, val_share: float) -> tuple[list[Pair], str]:
    has_scenes = any(pair.scene for pair in pairs)
    groups = {pair.scene or pair.id for pair in pairs}
    what = "scenes" if has_scenes else "images"
    if len(groups) < 2:
        raise ValueError(f"data.val_share needs at least two {what}, found {len(groups)}. {HINT}")
    if not has_scenes and split == "train":  # once a run
        log.warning(
            "No scenes are known, so images are split one by one, and views of one place may be in both splits. Name "
            "the scenes: {scene} in the pattern of the images, or the manifest's column scene."
        )
    if split == "test":
        return [], "data.val_share makes a train and a val split"
    in_order = sorted(groups, key=lambda group: hashlib.sha256(group.encode(errors="surrogateescape")).digest())
    val = set(in_order[: max(1, round(val_share * len(groups)))])
    if split == "train" and not has_scenes and len(val) == 1:
        log.warning(
            f"data.val_share={val_share:g} of {len(groups)} images is one validation image, too few to choose the best "
            "checkpoint by. Raise data.val_share, or name the validation images with data.split_list."
        )
    how = f"{len(val)} of {len(groups)} {what} are for validation (data.val_share={val_share:g})"
    return [pair for pair in pairs if ((pair.scene or pair.id) in val) == (split == "val")], how
