"""One task after another: what is forgotten, and what helps against it.

Three ways: the same adapter goes on learning (`plain`); it goes on with a share of earlier rows
mixed in (`replay`); every task gets an adapter of its own on top of the earlier ones, kept
orthogonal to them (`o_lora`, Wang et al. 2023, arXiv:2310.14152). Knows rows and bases; knows no
files.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.model.answering import answers_to
from detour.model.base import Base
from detour.model.examples import Example
from detour.training.config import TrainConfig
from detour.training.loop import train_with

Way: TypeAlias = Literal["plain", "replay", "o_lora"]
REPLAY = 0.25  # earlier rows, as a share of a task's own
ORTHOGONALITY = 0.5  # the paper's λ


@dataclass(frozen=True)
class Lesson:
    """One task of a sequence."""

    name: str
    train: Sequence[Example]
    test: Sequence[Example]


@dataclass(frozen=True)
class Continual:
    """How a sequence went.

    Attributes:
        names: of the tasks, in their order.
        hits: `hits[i][j]`: for every test row of task j, whether it was answered rightly after
            task i was learned.
        chain: what has learned all of them.
    """

    names: tuple[str, ...]
    hits: tuple[tuple[tuple[bool, ...], ...], ...]
    chain: Chain

    def score(self, after: int, task: int) -> float:
        """R_{after, task}, the share of right answers."""
        return fmean(self.hits[after][task])

    @property
    def backward_transfer(self) -> float:
        """BWT = 1/(T−1) Σ_{i<T} (R_{T,i} − R_{i,i}): below 0 where later tasks cost earlier ones
        (Lopez-Paz & Ranzato 2017, arXiv:1706.08840).
        """
        last = len(self.names) - 1
        return fmean(self.score(last, task) - self.score(task, task) for task in range(last))

    @property
    def forgetting(self) -> tuple[float, ...]:
        """Of each task but the last, its best score before the end minus its score at the end."""
        last = len(self.names) - 1
        return tuple(
            max(self.score(after, task) for after in range(last)) - self.score(last, task)
            for task in range(last)
        )


def continual(
    base: Base,
    lessons: Sequence[Lesson],
    config: TrainConfig,
    way: Way = "replay",
    *,
    share: float = REPLAY,
    orthogonality: float = ORTHOGONALITY,
    teller: Callable[[str], None] | None = None,
) -> Continual:
    """Learn the lessons one after another, and judge all of them after each.

    Args:
        base: the frozen model.
        lessons: in the order in which they are learned.
        config: of every training.
        way: how earlier tasks are kept.
        share: of `replay`: earlier rows that are mixed in, as a share of the lesson's own.
        orthogonality: of `o_lora`: λ.
        teller: is told every score.

    Raises:
        ConfigError: fewer than two lessons. Whatever `train_with` raises.
    """
    if len(lessons) < 2:
        raise ConfigError(
            text("one task after another needs at least two"), found=str(len(lessons))
        )
    rng = random.Random(f"replay/{config.seed}")
    learned: list[Adapter] = []
    hits: list[tuple[tuple[bool, ...], ...]] = []
    for number, lesson in enumerate(lessons):
        rows = list(lesson.train)
        own = config
        if way == "replay" and number:
            before = [row for one in lessons[:number] for row in one.train]
            rows += rng.sample(before, min(len(before), round(share * len(rows))))
        if way == "o_lora":
            own = config.model_copy(update={"orthogonality": orthogonality})
        goes_on = way != "o_lora" and bool(learned)
        result = train_with(
            base, rows, own, name=lesson.name,
            start=learned[-1] if goes_on else None,
            beneath=Chain.of(*learned) if way == "o_lora" and learned else None,
        )  # fmt: skip
        learned = [*learned, result.adapter] if way == "o_lora" else [result.adapter]
        chain = Chain.of(*learned)
        hits.append(tuple(right(base, one.test, chain) for one in lessons))
        if teller:
            told = "  ".join(
                f"{one.name} {fmean(own_hits):.2f}"
                for one, own_hits in zip(lessons, hits[-1], strict=True)
            )
            teller(f"{way}, after {lesson.name}: {told}")
    return Continual(tuple(one.name for one in lessons), tuple(hits), Chain.of(*learned))


def right(base: Base, rows: Sequence[Example], chain: Chain) -> tuple[bool, ...]:
    """Whether each row is answered as it stands there, space aside: case may be what is learned."""
    return tuple(
        answer.text.split() == row.messages[-1]["content"].split()
        for answer, row in zip(answers_to(base, rows, chain), rows, strict=True)
    )
