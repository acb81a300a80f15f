"""Validation of values that users type, where they are used and under the name of the setting.

Every check takes the name and the value, returns the value, and raises `SettingError` if it is invalid. True, False,
NaN and infinity do not count as numbers.
"""

import difflib
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from numbers import Real
from typing import Any, cast

Check = Callable[[str, Any], Any]


class SettingError(ValueError):
    """A setting with an invalid value.

    Args:
        name: name of the setting within its owner.
        problem: what is expected and what was found; follows the name in the message.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"{self.name} {self.problem}"


@contextmanager
def within(path: str) -> Iterator[None]:
    """Prefix the names of settings refused inside with a path: with "optimizer", `lr` becomes `optimizer.lr`."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{path}.{error.name}", error.problem) from error


def whole_number(
    name: str, value: Any, least: int = 1, most: int | None = None, multiple_of: int = 1, otherwise: str = ""
) -> int:
    """A whole number from `least` to `most`; `otherwise` ends the message."""
    if type(value) is not int or value < least or (most is not None and value > most) or value % multiple_of:
        kind = "a whole number" if multiple_of == 1 else f"a multiple of {multiple_of}"
        limits = f"{least} or above" if most is None else f"{least} to {most}"
        raise SettingError(name, f"is {kind}, {limits}, found {value!r}.{otherwise}")
    return value


def number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    otherwise: str = "",
) -> float:
    """A finite number within the limits; `above` and `below` are exclusive, and `otherwise` ends the message."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and abs(value) <= sys.float_info.max and above < value < below and least <= value <= most):
        raise SettingError(name, f"is a number{_limits(above, least, below, most)}, found {value!r}.{otherwise}")
    return cast(float, value)


def _limits(above: float, least: float, below: float, most: float) -> str:
    """The limits that there are, in words."""
    if math.isfinite(least):
        upper = f"below {below:,.12g}" if math.isfinite(below) else f"{most:,.12g}"
        return f" from {least:,.12g} to {upper}" if math.isfinite(min(below, most)) else f", {least:,.12g} or above"
    limits = {"above": above, "below": below, "at most": most}
    return " and".join(f" {word} {limit:,.12g}" for word, limit in limits.items() if math.isfinite(limit))


def boolean(name: str, value: Any) -> bool:
    """True or False; Hydra accepts no other spelling, and "no" would count as true."""
    if not isinstance(value, bool):
        raise SettingError(name, f"is true or false, found {value!r}.")
    return value


def one_of(name: str, value: Any, choices: Iterable[Any], otherwise: str = "") -> Any:
    """One of the choices; `otherwise` ends the message."""
    choices = list(choices)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        words = [str(choice).lower() if isinstance(choice, bool) else str(choice) for choice in choices]
        listed = " or ".join(words) if len(words) < 3 else f"one of {', '.join(words)}"
        raise SettingError(name, f"is {listed}, found {value!r}.{otherwise}")
    return value


def text(name: str, value: Any, what: str) -> str:
    """A non-empty text or a path; `what` describes it in the message, such as "a path"."""
    if not isinstance(value, str | os.PathLike) or not str(value).strip():
        quoted = f" A number that is {what} takes quotes twice: '{name}=\"…\"'." if type(value) in (int, float) else ""
        raise SettingError(name, f"is {what}, found {value!r}.{quoted}")
    return str(value)


def several(name: str, value: Any, count: int | None, what: str, check: Check) -> tuple[Any, ...]:
    """`count` values (None: any number) that all pass the check; `what` describes them in the message."""
    if isinstance(value, Sequence) and not isinstance(value, str) and count in (None, len(value)):
        with suppress(SettingError):
            return tuple(check(name, item) for item in value)
    raise SettingError(name, f"is {what}, found {value!r}.")


def optional(name: str, value: Any, check: Check) -> Any:
    """None, or a value that passes the check."""
    return None if value is None else check(name, value)


def unknown(name: str, known: Iterable[str]) -> SettingError:
    """The error for an unknown setting, with the known one of the most similar name, or else all of them."""
    parent, names = name.rpartition(".")[0], sorted(known)
    hint = nearest(name, names) or f" Options{parent and f' of {parent}'}: {', '.join(names)}."
    return SettingError(name, f"is not an option.{hint}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint at the known setting of the most similar name beside this one; empty where there is none."""
    parent, dot, own = name.rpartition(".")
    matches = difflib.get_close_matches(own, list(known), n=1)
    return f" Did you mean {parent}{dot}{matches[0]}?" if matches else ""


def printable(name: str) -> str:
    """A file's name that every report can hold: bytes that are not UTF-8 are escaped."""
    return name.encode(errors="backslashreplace").decode()
