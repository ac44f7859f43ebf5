"""Timing two ways of doing the same work in turn, so that a machine's drift hits both.

Quoted are the median ratio of neighbouring pairs and the range of its middle half.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


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


def compare(ours: Callable[[], object], theirs: Callable[[], object], pairs: int = 11) -> Ratio:
    """Process time of `theirs` over that of `ours`, in turn, after one round of warm-up."""
    ours(), theirs()
    mine: list[float] = []
    others: list[float] = []
    for number in range(pairs):
        first, second = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        took = {first: _timed(first), second: _timed(second)}
        mine.append(took[ours])
        others.append(took[theirs])
    ratios = [b / a for a, b in zip(mine, others, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    middle = statistics.median
    return Ratio(middle(ratios), low, high, middle(mine), middle(others))


def _timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began
