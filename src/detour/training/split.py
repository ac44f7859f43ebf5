"""Holding out a validation part, so that the best checkpoint is chosen on rows never learned.

Rows with the same prompt (NFC, case and whitespace aside) stay on one side. Knows rows only.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from detour.measure.metrics import normalised
from detour.model.examples import Example, Plain

AnyRow = TypeVar("AnyRow", bound=Example | Plain)
Row = TypeVar("Row")
FEWEST = 10  # below this many distinct prompts every row is needed for training


def split(examples: Sequence[AnyRow], share: float, seed: int) -> tuple[list[AnyRow], list[AnyRow]]:
    """`(training, validation)`, by the prompt."""
    return held_out(examples, lambda example: example.prompt, share, seed)


def held_out(
    rows: Sequence[Row], input_of: Callable[[Row], str], share: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """`(training, validation)`: rows of one input stay together.

    With fewer than ten distinct inputs nothing is held out.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(normalised(input_of(row)), []).append(row)
    keys = sorted(groups)
    if share <= 0 or len(keys) < FEWEST:
        return list(rows), []
    random.Random(seed).shuffle(keys)
    held = set(keys[: max(1, min(round(share * len(keys)), len(keys) - 1))])
    kept = [row for row in rows if normalised(input_of(row)) not in held]
    return kept, [row for row in rows if normalised(input_of(row)) in held]
