"""Accuracy and F1 of classes, squared error and R² of numbers, each with a 95 % interval.

Intervals are percentile bootstraps over rows; they say nothing of another draw of training rows.
Knows numbers only. scikit-learn gives the same values (tested).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from detour.measure.statistics import Figure, rate

DRAWS = 1000


def class_figures(wanted: Sequence[str], found: Sequence[str], seed: int = 0) -> dict[str, Figure]:
    """`accuracy` (Wilson's interval), `macro_f1` over the classes that are wanted or found.

    Micro-averaged F1 is the accuracy where every row has one class.

    Raises:
        ValueError: different lengths, or no row.
    """
    if len(wanted) != len(found) or not wanted:
        raise ValueError("as many found as wanted, and at least one")
    names = sorted({*wanted, *found})
    place = {name: number for number, name in enumerate(names)}
    true = np.array([place[name] for name in wanted])
    said = np.array([place[name] for name in found])
    value = _macro_f1(true, said, len(names))
    means = [_macro_f1(true[rows], said[rows], len(names)) for rows in _drawn(len(true), seed)]
    return {
        "accuracy": rate(one == other for one, other in zip(wanted, found, strict=True)),
        "macro_f1": _figure(value, means, len(true)),
    }


def number_figures(
    wanted: Sequence[float], found: Sequence[float], seed: int = 0
) -> dict[str, Figure]:
    """`mse`, the mean squared error, and `r2`, the share of the variance that is explained.

    Raises:
        ValueError: different lengths, or fewer than two rows.
    """
    if len(wanted) != len(found) or len(wanted) < 2:
        raise ValueError("as many found as wanted, and at least two")
    true, said = np.array(wanted, dtype=float), np.array(found, dtype=float)
    draws = [(_mse(true[r], said[r]), _r2(true[r], said[r])) for r in _drawn(len(true), seed)]
    return {
        "mse": _figure(_mse(true, said), [mse for mse, _ in draws], len(true)),
        "r2": _figure(_r2(true, said), [r2 for _, r2 in draws], len(true)),
    }


def _macro_f1(true: NDArray[np.int64], said: NDArray[np.int64], classes: int) -> float:
    """Mean over classes of 2·hits / (wanted + found), classes that are neither left out."""
    hits = np.bincount(true[true == said], minlength=classes)
    both = np.bincount(true, minlength=classes) + np.bincount(said, minlength=classes)
    return float(np.mean(2 * hits[both > 0] / both[both > 0]))


def _mse(true: NDArray[np.float64], said: NDArray[np.float64]) -> float:
    return float(np.mean((true - said) ** 2))


def _r2(true: NDArray[np.float64], said: NDArray[np.float64]) -> float:
    """Where all that is wanted is one number: 1 if that was said everywhere, else 0."""
    spread = float(np.mean((true - true.mean()) ** 2))
    error = _mse(true, said)
    return 1 - error / spread if np.ptp(true) else float(error == 0)


def _drawn(rows: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """One draw at a time: all of them take 8 kB a row."""
    rng = np.random.default_rng(seed)
    for _ in range(DRAWS):
        yield rng.integers(0, rows, rows)


def _figure(value: float, means: Sequence[float], rows: int) -> Figure:
    low, high = np.percentile(means, [2.5, 97.5])
    return Figure(value, float(low), float(high), rows)
