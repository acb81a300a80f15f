"""The typed overrides as Hydra parses them, and the keys under which settings were typed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, cast

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString, ValueType
from hydra.errors import HydraException
from omegaconf import OmegaConf

from depth_lightning.settings import SettingError

REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")
"""A reference to another key: dots for the levels above, as in ${..root}, then the key. A resolver has a colon."""
PATHS: Final = (
    *("checkpoint", "input", "output", "predictions", "points", "metrics_file", "sky", "model.weights"),
    *("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"),
)
"""Keys whose values are paths, taken as typed."""
PATHS_BELOW: Final = {
    "data": ("root", "manifest", "image", "depth", "mask", "depth_key", "split_list", "cache"),
    "logger": ("save_dir",),
}
"""The same for the keys of any data set and any logger."""


def as_typed(words: Sequence[str]) -> list[str]:
    """A command line with quotes around the paths that Hydra would read as something else, or not at all.

    Hydra reads `2011_09_26` as a number and `[2024]` as a list, and refuses `IMG (1).png`. References to other keys,
    null and quoted values keep their meaning; so do several values in a sweep.

    Raises:
        SettingError: Hydra cannot read another value, which therefore needs quotes.
    """
    sweep = any(word in ("-m", "--multirun") or word.startswith(("hparams_search=", "hydra.mode=")) for word in words)
    switches = ("-m", "--multirun", "--resolve")
    return [
        word if word.startswith("-") or (before.startswith("-") and before not in switches) else _as_typed(word, sweep)
        for before, word in pairwise(["", *words])
    ]


def _as_typed(word: str, sweep: bool) -> str:
    key, equals, value = word.partition("=")
    if word.startswith("~"):
        return word
    if not equals:
        raise SettingError(word, "is not key=value. A value with spaces takes quotes: 'input=my photo.jpg'")
    parts = key.lstrip("+").split(".")
    is_path = ".".join(parts) in PATHS or (len(parts) > 1 and parts[-1] in PATHS_BELOW.get(parts[0], ()))
    read = _parsed(word)
    if is_path:
        several = sweep and read is not None and read.is_sweep_override()
        if read is not None and several and read.value_type != ValueType.SIMPLE_CHOICE_SWEEP:
            return word  # such as glob(…)
        if several and not re.search(r"""['"\[{(]""", value):
            return f"{key}={','.join(map(_quoted, value.split(',')))}"
        if parts[-1] == "split_list" and read is not None and isinstance(read.value(), list):
            listed = re.fullmatch(r"""\[([^'"\[\]{}()]*)\]""", value)
            return f"{key}=[{','.join(_quoted(item.strip()) for item in listed[1].split(','))}]" if listed else word
        return word if several else f"{key}={_quoted(value)}"
    if read is None and _parsed(f"{key}={_in_quotes(value)}") is not None:
        raise SettingError(key, f'cannot be read as {value!r}. Quote it twice: "{key}={_in_quotes(value)}"')
    return word


def _parsed(word: str) -> Override | None:
    """An override as Hydra reads it; None if it cannot."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _quoted(path: str) -> str:
    """A path, with quotes if Hydra would read anything but this text, null or a quoted text."""
    read = _parsed(f"path={path}")
    if read is None or read.is_sweep_override():
        return _in_quotes(path)
    value = read.value()
    means_it = value is None or (isinstance(value, str) and (value == path or path[0] in "'\"" or "\\" in path))
    return path if means_it else _in_quotes(path)


def _in_quotes(text: str) -> str:
    return QuotedString(text, Quote.single).with_quotes()


def typed_words() -> list[str]:
    """The overrides of the command that is running, with their references to other keys as typed."""
    return cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))


def typed(overrides: Sequence[str]) -> dict[str, str | None]:
    """Key or group → its value as typed, without surrounding quotes; None for a deleted key (`~key`).

    The values of a sweep stay one string. If a key was typed twice, the last one counts.
    """
    values: dict[str, str | None] = {}
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        value = None if override.is_sweep_override() else override.value()
        written = (override.input_line or "").partition("=")[2]
        values[override.key_or_group] = None if override.is_delete() else value if isinstance(value, str) else written
    return values


def is_below(path: str, keys: Iterable[str]) -> bool:
    """Whether a key is one of `keys`, or lies below one."""
    return any(f"{path}.".startswith(f"{key}.") for key in keys)


def typed_key(path: str, raw: Any, name: str) -> str:
    """The key under which a setting was typed: its own, or the key to which it refers.

    Args:
        path: of a node of the configuration.
        raw: the node with unresolved interpolations.
        name: of the setting below the node.
    """
    at, rest = path.split("."), name.split(".")
    while rest:
        at.append(rest.pop(0))
        raw = raw.get(at[-1]) if isinstance(raw, Mapping) else None
        if isinstance(raw, str) and (reference := REFERENCE.fullmatch(raw)):
            return ".".join([_absolute(at, *reference.groups()), *rest])
    return ".".join(at)


def references(raw: Any, at: Sequence[str] = ()) -> Iterator[str]:
    """The keys to which a configuration with unresolved interpolations refers."""
    if isinstance(raw, str):
        yield from (_absolute(at, *reference) for reference in REFERENCE.findall(raw))
    elif isinstance(raw, Mapping | list):
        for key, value in raw.items() if isinstance(raw, Mapping) else enumerate(raw):
            yield from references(value, (*at, str(key)))


def _absolute(at: Sequence[str], dots: str, key: str) -> str:
    return ".".join([*at[: len(at) - len(dots)], key]) if dots else key
