"""The first rows of all: lists of random tokens, to be continued, cited or missed.

Each list stands under a mark, as a source does. A question names the first tokens of one list, and
the answer is the list with its mark; or it names tokens that begin none, and the answer abstains.
Nothing can be known by heart here, so the heads that were laid out for copying are put to use
within a hundred steps. Knows tokens only.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from recipes.starter.tokens import MARKS, Encoder

Encoded = tuple[list[int], list[bool]]  # ids, and which of them are learned

LISTS, NAMED, REST, QUESTIONS = (1, 8), (1, 4), (2, 12), (4, 10)  # at least, at most
ABSENT = 0.25


class Primer:
    """Draws rows of random tokens."""

    def __init__(self, encoder: Encoder, abstaining: Sequence[str]) -> None:
        self.encoder = encoder
        self.tokens = encoder.ordinary
        self.absent = [encoder.text(f": {sentence}") for sentence in abstaining]
        self.space, self.line = encoder.text(" "), encoder.text("\n")
        self.marks = [encoder.text(mark) for mark in MARKS]

    def draw(self, rng: random.Random) -> Encoded:
        """One row: lists, and questions after them."""
        roles, end = self.encoder.roles, self.encoder.end
        lists = [
            (self._some(rng, NAMED), self._some(rng, REST)) for _ in range(rng.randint(*LISTS))
        ]
        ids = [self.encoder.begin, roles["system"]]
        for (name, rest), mark in zip(lists, self.marks, strict=False):
            ids += [*name, *rest, *self.space, *mark, *self.line]
        ids += [end]
        learned = [False] * len(ids)
        absent = rng.choice(self.absent)
        for _ in range(rng.randint(*QUESTIONS)):
            chosen = rng.randrange(len(lists))
            name, rest = lists[chosen]
            answer = [*name, *rest, *self.space, *self.marks[chosen], end]
            if rng.random() < ABSENT:
                name = self._some(rng, NAMED)
                answer = [*name, *absent, end]
            asked = [roles["user"], *name, end, roles["assistant"]]
            ids += [*asked, *answer]
            learned += [False] * len(asked) + [True] * len(answer)
        return ids, learned

    def _some(self, rng: random.Random, count: tuple[int, int]) -> list[int]:
        return rng.choices(self.tokens, k=rng.randint(*count))
