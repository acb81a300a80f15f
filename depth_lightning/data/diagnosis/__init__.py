"""What looks wrong with a data set, before anyone trains on it."""

from depth_lightning.data.diagnosis.facts import HISTOGRAM, Facts, Unreadable, examine
from depth_lightning.data.diagnosis.summary import Summary, share_beyond, summarise
from depth_lightning.data.diagnosis.verdict import Verdict
from depth_lightning.data.diagnosis.verdicts import judge, judge_splits

__all__ = [
    "HISTOGRAM",
    "Facts",
    "Summary",
    "Unreadable",
    "Verdict",
    "examine",
    "judge",
    "judge_splits",
    "share_beyond",
    "summarise",
]
