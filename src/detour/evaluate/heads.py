"""How well a head tells classes or numbers, and what the plainest guess would reach.

Knows headed bases, records and figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.data.records import Labelled, Valued
from detour.measure.classes import class_figures, number_figures
from detour.measure.statistics import Figure
from detour.model.headed import HeadedBase
from detour.training.heads import HeadRow


def score(
    base: HeadedBase, rows: Sequence[HeadRow], chain: Chain | Adapter | str | None
) -> dict[str, Figure]:
    """`accuracy` and `macro_f1`, or `mse` and `r2`, of a chain with a head on these rows.

    Raises:
        WrongBase, SlotError, ConfigError: a chain that does not belong on this base or head.
    """
    texts = [row.text for row in rows]
    if base.labels:
        wanted = [row.label for row in rows if isinstance(row, Labelled)]
        return class_figures(wanted, [guess.label for guess in base.classify(texts, chain)])
    values = [row.value for row in rows if isinstance(row, Valued)]
    return number_figures(values, base.estimate(texts, chain))


def plainest(train: Sequence[HeadRow], rows: Sequence[HeadRow]) -> dict[str, Figure]:
    """The same for always the most frequent class, or always the mean, of the training rows."""
    labels = Counter(row.label for row in train if isinstance(row, Labelled))
    if labels:
        wanted = [row.label for row in rows if isinstance(row, Labelled)]
        return class_figures(wanted, [labels.most_common(1)[0][0]] * len(wanted))
    values = [row.value for row in train if isinstance(row, Valued)]
    mean = sum(values) / len(values)
    wanted_values = [row.value for row in rows if isinstance(row, Valued)]
    return number_figures(wanted_values, [mean] * len(wanted_values))


def to_json(figures: dict[str, Figure]) -> dict[str, Any]:
    """Figures by name, as they leave the program."""
    return {name: figure.to_json() for name, figure in figures.items()}
