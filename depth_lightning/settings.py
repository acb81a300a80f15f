"""Values that a person typed: checked where they are used, and refused under the name of the setting."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class SettingError(ValueError):
    """A setting whose value cannot be right.

    Args:
        name: of the setting, as its owner knows it.
        problem: what is expected and what was found, to be read after the name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{name} {problem}")
        self.name, self.problem = name, problem


@contextmanager
def within(path: str) -> Iterator[None]:
    """Inside, settings that are refused are named by their whole path: with "optimizer", `lr` is `optimizer.lr`."""
    try:
        yield
    except SettingError as error:
        raise SettingError(f"{path}.{error.name}", error.problem) from error


def whole_number(name: str, value: Any, least: int = 1, most: int | None = None, otherwise: str = "") -> int:
    """The value, if it is a whole number from `least` to `most`.

    Raises:
        SettingError: it is not; True and False are no numbers. `otherwise` ends the message.
    """
    if type(value) is not int or value < least or (most is not None and value > most):
        limits = f"{least} or above" if most is None else f"{least} to {most}"
        raise SettingError(name, f"is a whole number, {limits}, found {value!r}.{otherwise}")
    return value
