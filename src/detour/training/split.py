"""Holding out a validation part, so that the best checkpoint is chosen on rows never learned.

Rows with the same prompt (NFC, case and whitespace aside) stay on one side. Knows rows only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

from detour.measure.metrics import normalised
from detour.model.examples import Example, Plain

AnyRow = TypeVar("AnyRow", bound=Example | Plain)
FEWEST = 10  # below this many distinct prompts every row is needed for training


def split(examples: Sequence[AnyRow], share: float, seed: int) -> tuple[list[AnyRow], list[AnyRow]]:
    """`(training, validation)`. With fewer than ten distinct prompts nothing is held out."""
    groups: dict[str, list[AnyRow]] = {}
    for example in examples:
        groups.setdefault(normalised(example.prompt), []).append(example)
    keys = sorted(groups)
    if share <= 0 or len(keys) < FEWEST:
        return list(examples), []
    random.Random(seed).shuffle(keys)
    held = set(keys[: max(1, min(round(share * len(keys)), len(keys) - 1))])
    kept = [e for e in examples if normalised(e.prompt) not in held]
    return kept, [e for e in examples if normalised(e.prompt) in held]
