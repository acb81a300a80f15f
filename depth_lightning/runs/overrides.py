"""The typed overrides as Hydra parses them, and the keys under which settings were typed."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser

REFERENCE = re.compile(r"\$\{(\.*)([\w.]+)\}")
"""A reference to another key: dots for the levels above, as in ${..root}, then the key. A resolver has a colon."""


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
