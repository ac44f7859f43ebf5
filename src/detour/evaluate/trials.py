"""What chains answer to the tests of their adapters, each asked once.

Knows bases, chains and tests; judges nothing but single answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean

from detour.adapter.chain import Chain
from detour.decoding.request import Finish
from detour.evaluate.chain_tests import Item
from detour.measure.metrics import repeats
from detour.model.base import Base

LONGEST = 96  # tokens of an answer
AT_ONCE = 64  # rows


@dataclass(frozen=True)
class Said:
    """One answer.

    Attributes:
        ids: its tokens.
        text: without special tokens.
        cut: whether it ended for want of room.
        score: how far it is right, 0 … 1.
        counts: whether it is right.
    """

    ids: tuple[int, ...]
    text: str
    cut: bool
    score: float
    counts: bool

    @property
    def is_broken(self) -> bool:
        """Whether it is no text any more: nothing, no end, or the same words over and over."""
        return self.cut or not self.text.strip() or repeats(self.text)


@dataclass(frozen=True)
class Sitting:
    """All answers of one chain to one test set."""

    said: tuple[Said, ...]

    @cached_property
    def scores(self) -> tuple[float, ...]:
        """Of every answer."""
        return tuple(one.score for one in self.said)

    @property
    def mean(self) -> float:
        """Of the scores."""
        return fmean(self.scores)

    @property
    def broken(self) -> list[bool]:
        """Of every answer."""
        return [one.is_broken for one in self.said]


@dataclass
class Trials:
    """Test sets, one for each place of a chain, and what chains answered to them.

    Attributes:
        base: the model.
        tests: of every place; none for one without tests.
        longest: tokens of an answer.
        asked: how many answers were given.
    """

    base: Base
    tests: Sequence[Sequence[Item]]
    longest: int = LONGEST
    asked: int = 0
    _known: dict[tuple[int, str], Sitting] = field(default_factory=dict[tuple[int, str], Sitting])

    @property
    def places(self) -> list[int]:
        """Those that have tests."""
        return [place for place, own in enumerate(self.tests) if own]

    def ask(self, wanted: Iterable[tuple[int, Chain]]) -> None:
        """Let chains answer the tests of places, all that is not known yet in batches of many.

        Raises:
            RequestError: a question that fills the context. BaseError, SlotsBusy: as `Base.ask`.
        """
        new: dict[tuple[int, str], Chain] = {}
        for place, chain in wanted:
            key = place, chain.digest()
            if key not in self._known and self.tests[place]:
                new[key] = chain
        prompts = [[dict(turn) for turn in test.messages] for p, _ in new for test in self.tests[p]]
        chains = [chain for (p, _), chain in new.items() for _ in self.tests[p]]
        if not prompts:
            return
        found = self.base.generate(
            prompts, chains, batch_size=AT_ONCE, max_new_tokens=self.longest
        )  # fmt: skip
        self.asked += len(found)
        given = iter(found)
        for key in new:
            said: list[Said] = []
            for test in self.tests[key[0]]:
                one = next(given)
                told = self.base.decode(one.ids)
                said.append(Said(one.ids, told, one.finish is Finish.LENGTH, test.score(told),
                                 test.counts(told)))  # fmt: skip
            self._known[key] = Sitting(tuple(said))

    def of(self, place: int, chain: Chain) -> Sitting:
        """What a chain answered to the tests of a place; asks where it has not been."""
        self.ask([(place, chain)])
        return self._known[place, chain.digest()]
