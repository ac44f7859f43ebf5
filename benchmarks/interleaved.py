"""Timing two ways of doing the same work in turn, so that a machine's drift hits both.

Quoted are the median ratio of neighbouring pairs and the range of its middle half.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

Way = Callable[[], object]
T = TypeVar("T")


@dataclass(frozen=True)
class Ratio:
    """How many times longer the peer took; `low` and `high` are the quartiles."""

    median: float
    low: float
    high: float
    ours: float
    theirs: float

    def __str__(self) -> str:
        return (
            f"{self.median:.2f}x [{self.low:.2f}, {self.high:.2f}]  "
            f"ours {self.ours * 1e3:.1f} ms, theirs {self.theirs * 1e3:.1f} ms"
        )


def process_time(work: Way) -> float:
    """Seconds of processor time that the work takes."""
    began = time.process_time()
    work()
    return time.process_time() - began


def compare(
    ours: T, theirs: T, pairs: int = 11, timed: Callable[[T], float] = process_time
) -> Ratio:
    """Time of `theirs` over that of `ours`, in turn, after one round of warm-up.

    `timed` measures either; by default they are functions, and it is their processor time.
    """
    timed(ours), timed(theirs)
    mine: list[float] = []
    others: list[float] = []
    for number in range(pairs):
        for way, seconds in ((ours, mine), (theirs, others))[:: 1 if number % 2 == 0 else -1]:
            seconds.append(timed(way))
    ratios = [b / a for a, b in zip(mine, others, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    middle = statistics.median
    return Ratio(middle(ratios), low, high, middle(mine), middle(others))
