"""The result of one check of a data set."""

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from depth_lightning.data.diagnosis.facts import Facts

State = Literal["fine", "found", "unclear"]

SHOWN: Final = 8
"""Number of samples named as examples."""


class Verdict(NamedTuple):
    """The result of one check."""

    check: str
    state: State
    evidence: str
    advice: str = ""
    examples: Sequence[str] = ()
    """Ids or paths."""
    pictures: Sequence[int] = ()
    """Indices of samples that show it."""


def found(check: str, facts: Sequence[Facts], evidence: str, advice: str) -> Verdict:
    """The verdict on samples that show something wrong."""
    return Verdict(check, "found", evidence, advice, [one.id for one in facts[:SHOWN]], [one.number for one in facts])
