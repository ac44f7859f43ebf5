"""Everything the starter reads, mixed: its world in two languages, support, reading, examples.

Knows the generators beside it and their shares; knows no tokens and no model.
"""

from __future__ import annotations

import random

from detour.training.world import World
from recipes.starter.examples import Examples
from recipes.starter.reading import Reading
from recipes.starter.rows import Row, Writer
from recipes.starter.support import Support

# Share of rows of each sort; together 1. Rows that read are four to six times as long as others.
# Reading is learned last, so the later parts of pretraining have more and more of it.
SHARES = {
    "en": 0.31,
    "de": 0.33,
    "support": 0.09,
    "reading": 0.07,
    "multi": 0.03,
    "find": 0.02,
    "copy": 0.02,
    "few_shot": 0.07,
    "classify": 0.03,
    "extract": 0.03,
}
LATER_SHARES = {
    "en": 0.27,
    "de": 0.29,
    "support": 0.07,
    "reading_later": 0.16,
    "multi": 0.05,
    "find": 0.02,
    "copy": 0.01,
    "few_shot": 0.07,
    "classify": 0.03,
    "extract": 0.03,
}
LAST_SHARES = {
    "en": 0.20,
    "de": 0.22,
    "support": 0.07,
    "reading_last": 0.33,
    "multi_last": 0.05,
    "find": 0.01,
    "few_shot": 0.06,
    "classify": 0.03,
    "extract": 0.03,
}
PARTS = (SHARES, LATER_SHARES, LAST_SHARES)


class Mixture:
    """Draws rows of every sort in their shares."""

    def __init__(self) -> None:
        worlds = {language: World.load(language) for language in ("en", "de")}
        support = Support()
        self.writers = {
            "en": Writer(worlds["en"], worlds["de"]),
            "de": Writer(worlds["de"], worlds["en"]),
        }
        self.support = support
        self.reading = Reading(worlds, support)
        self.examples = Examples()
        self.sorts = {name: writer.draw for name, writer in self.writers.items()}
        self.sorts |= support.sorts | self.reading.sorts | self.examples.sorts
        last = Reading(worlds, support, later=True).sorts
        self.sorts |= {"reading_last": last["reading_last"], "multi_last": last["multi"]}

    def draw(self, rng: random.Random, part: int = 0) -> Row:
        """One row of a part of pretraining."""
        shares = PARTS[part]
        return self.sorts[rng.choices(list(shares), list(shares.values()))[0]](rng)
