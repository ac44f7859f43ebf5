"""Figures with intervals: no number without n and a range.

Rates carry Wilson intervals, means carry Student's t. Knows numbers only.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import TypeVar

Row = TypeVar("Row")

Z95 = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True)
class Figure:
    """A measured value with its 95 % interval and the number of observations behind it."""

    value: float
    low: float
    high: float
    n: int

    def to_json(self) -> dict[str, float | int | None]:
        """The one form in which figures leave the program; what is not finite becomes null."""
        return {
            "value": _finite(self.value),
            "low": _finite(self.low),
            "high": _finite(self.high),
            "n": self.n,
        }

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"


def _finite(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def rate(outcomes: Iterable[bool]) -> Figure:
    """The share of true outcomes with Wilson's 95 % score interval (Wilson 1927).

    Without observations the value is NaN and the interval everything.
    """
    flags = [bool(outcome) for outcome in outcomes]
    n = len(flags)
    if n == 0:
        return Figure(math.nan, 0.0, 1.0, 0)
    share = sum(flags) / n
    return Figure(share, *wilson(share, n), n)


def wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95 % score interval of a share of n outcomes (Wilson 1927).

    Around a mean of values between 0 and 1 it is wider than need be: yes and no vary most.
    """
    spread = Z95**2 / n
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / n + spread / (4 * n))
    low = 0.0 if share == 0 else max(0.0, centre - half)
    high = 1.0 if share == 1 else min(1.0, centre + half)
    return low, high


def mean(values: Sequence[float]) -> Figure:
    """The mean with Student's 95 % interval; one observation has an infinite one."""
    n = len(values)
    if n == 0:
        return Figure(math.nan, -math.inf, math.inf, 0)
    centre = fmean(values)
    if n == 1:
        return Figure(centre, -math.inf, math.inf, 1)
    half = student_t975(n - 1) * stdev(values) / math.sqrt(n)
    return Figure(centre, centre - half, centre + half, n)


def mean_probability(values: Sequence[float]) -> Figure:
    """`mean` of probabilities: the interval ends at 0 and 1."""
    figure = mean(values)
    return Figure(figure.value, max(0.0, figure.low), min(1.0, figure.high), figure.n)


def student_t975(freedom: int) -> float:
    """The 97.5 % quantile of Student's t.

    Exact for 1 and 2 degrees of freedom, else the Cornish-Fisher expansion (Abramowitz and Stegun
    26.7.5), whose error is below 1 % from 3 degrees on.
    """
    if freedom == 1:
        return 12.706204736
    if freedom == 2:
        return 4.302652730
    z, v = Z95, float(freedom)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def resampled(
    rows: Sequence[Row], statistic: Callable[[list[Row]], float], draws: int, seed: int = 0
) -> Figure:
    """A statistic of rows with its 95 % bootstrap interval: the middle of what `draws` sets say.

    Each set has as many rows, drawn with replacement (percentiles; Efron & Tibshirani 1993,
    chapter 13). Sets without a value (NaN) are left out; where none has one, the interval is
    everything.

    Raises:
        ValueError: no row, or no draw.
    """
    if not rows or draws < 1:
        raise ValueError("at least one row, and one draw")
    rng = random.Random(seed)
    told = (statistic(rng.choices(rows, k=len(rows))) for _ in range(draws))
    sets = sorted(value for value in told if not math.isnan(value))
    value = statistic(list(rows))
    if not sets:
        return Figure(value, -math.inf, math.inf, len(rows))
    last = len(sets) - 1
    return Figure(value, sets[round(0.025 * last)], sets[round(0.975 * last)], len(rows))


def by_cluster(
    values: Sequence[float], clusters: Sequence[object], draws: int = 2000, seed: int = 0
) -> Figure:
    """The mean with a 95 % bootstrap interval over whole clusters (percentiles).

    Items of one cluster (a task) are not independent: clusters are drawn with replacement, each
    with all of its items (Davison & Hinkley 1997, section 3.8). Of a single cluster the interval is
    everything.
    """
    groups: dict[object, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        groups.setdefault(cluster, []).append(value)
    told = mean_of_totals([(sum(own), len(own)) for own in groups.values()], draws, seed)
    value = fmean(values) if values else math.nan
    return Figure(value, told.low, told.high, len(values))


def mean_of_totals(totals: Sequence[tuple[float, int]], draws: int = 2000, seed: int = 0) -> Figure:
    """As `by_cluster`, of each cluster the sum of its items and how many; n counts clusters."""
    n = len(totals)
    if n == 0:
        return Figure(math.nan, -math.inf, math.inf, 0)
    value = _share(totals)
    if n == 1:  # nothing can be drawn anew: how another cluster would fare is not known
        return Figure(value, -math.inf, math.inf, 1)
    rng = random.Random(seed)
    means = sorted(_share(rng.choices(totals, k=n)) for _ in range(draws))
    return Figure(value, means[round(0.025 * (draws - 1))], means[round(0.975 * (draws - 1))], n)


def _share(totals: Sequence[tuple[float, int]]) -> float:
    return sum(total for total, _ in totals) / sum(count for _, count in totals)


def area_under_curve(scores: Sequence[float], truth: Sequence[bool]) -> float:
    """The probability that a true one scores above a false one, ties counting half (ROC AUC).

    NaN where one of the two kinds is missing.
    """
    good = sorted(score for score, true in zip(scores, truth, strict=True) if true)
    bad = [score for score, true in zip(scores, truth, strict=True) if not true]
    if not good or not bad:
        return math.nan
    above = sum(
        len(good) - (bisect_left(good, score) + bisect_right(good, score)) / 2 for score in bad
    )
    return above / (len(good) * len(bad))
