"""What is left of an adapter when others act too, as a share of what it does alone.

With S a mean score over the adapter's own tests,

    R = (S(chain) − S(base)) / (S(alone) − S(base))

Intervals are bootstraps over the tests, base, alone and chain drawn together; of few tests that all
come out alike a bootstrap knows no spread, so that the interval is no narrower than Wilson's around
S(chain). Knows numbers only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from detour.measure.statistics import Figure, resampled, wilson

DRAWS = 1000


def retained(
    base: Sequence[float], alone: Sequence[float], chain: Sequence[float]
) -> Figure | None:
    """R of scores 0 … 1, test by test in the same order.

    None where it says nothing: where the adapter alone does no more than the base, its 95 %
    interval considered.
    """
    rows = list(zip(base, alone, chain, strict=True))
    if not rows or effect(base, alone).low <= 0:
        return None
    told = resampled(rows, _share, DRAWS)
    below, above = wilson(fmean(chain), len(rows))
    none, whole = fmean(base), fmean(alone) - fmean(base)
    low = min(told.low, (below - none) / whole)
    high = max(told.high, (above - none) / whole)
    return Figure(told.value, low, high, len(rows))


def effect(base: Sequence[float], alone: Sequence[float]) -> Figure:
    """S(alone) − S(base), test by test, with an interval that a single test cannot make sure."""
    gains = [one - other for one, other in zip(alone, base, strict=True)]
    told = resampled(gains, fmean, DRAWS)
    below, _ = wilson(fmean(alone), len(gains))
    return Figure(told.value, min(told.low, below - fmean(base)), told.high, len(gains))


def _share(rows: Sequence[tuple[float, float, float]]) -> float:
    base, alone, chain = (fmean(column) for column in zip(*rows, strict=True))
    return (chain - base) / (alone - base) if alone > base else math.nan
