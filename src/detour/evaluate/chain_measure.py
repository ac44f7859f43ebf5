"""What is left of every adapter when all of a chain act: the measurement behind the verdict.

Each adapter brings its own small test set. Its tests are answered by the base, by the adapter
alone, by the chain, and by the chain without each of the others. Compatible is a chain of which
every adapter surely keeps nine tenths of what it does alone; below seven tenths of any it is a
conflict. Knows bases, chains and tests; trains nothing.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import Any, Literal

from detour.adapter.chain import Chain
from detour.errors import ChainError
from detour.evaluate.chain_check import told_apart
from detour.evaluate.chain_tests import Item
from detour.evaluate.interference import Moved, moved
from detour.evaluate.retained import retained
from detour.evaluate.trials import LONGEST, Trials
from detour.language.catalogue import ENGLISH, Catalogue, Text, text
from detour.measure.retention import Retention, retention
from detour.measure.statistics import Figure, rate
from detour.model.base import Base

Verdict = Literal["compatible", "degraded", "conflict", "not measured"]
COMPATIBLE, DEGRADED = 0.9, 0.7
TEXTS = 8  # of an adapter, on which its layers are listened to


@dataclass(frozen=True)
class Kept:
    """What the chain leaves of one adapter.

    Attributes:
        share: R, see `retained`; None where it cannot be told, and `why` says why.
        base, alone, chain: mean scores.
        without: by the place of another adapter, R of the chain without it.
        contradictions: the share of things asked for in several wordings that the chain answers
            rightly in one and wrongly in another; None where nothing is.
        moved: see there; None where nothing was listened to.
        n: tests.
    """

    share: Figure | None
    why: Text | None
    base: float
    alone: float
    chain: float
    without: Mapping[int, float]
    contradictions: Figure | None
    moved: Moved | None
    n: int

    def harm(self, other: int) -> float:
        """How much more is left of it without the other: R(chain without it) − R(chain)."""
        left = self.without.get(other, math.nan)
        return left - self.share.value if self.share else math.nan


@dataclass(frozen=True)
class Broken:
    """The shares of answers that are no text: empty, without end, or the same over and over."""

    chain: Figure
    alone: Figure
    base: Figure


@dataclass(frozen=True)
class ChainMeasure:
    """All of it.

    Attributes:
        chain: what was measured, bound to its base.
        names: of its terms, told apart where one comes twice.
        kept: by place; nothing of an adapter without tests.
        broken: over all tests.
        neutral: perplexity and KL(base ‖ chain) on text that nothing was trained on.
        answers: how many were given.
        seconds: that it took.
    """

    chain: Chain
    names: tuple[str, ...]
    kept: Mapping[int, Kept]
    broken: Broken
    neutral: Retention
    answers: int
    seconds: float

    @property
    def shares(self) -> list[Figure]:
        """Every R that could be told."""
        return [one.share for one in self.kept.values() if one.share]

    @property
    def retained_mean(self) -> float:
        """Of all R; NaN without any."""
        return fmean(share.value for share in self.shares) if self.shares else math.nan

    @property
    def verdict(self) -> Verdict:
        """Of the whole chain; an adapter of which nothing can be told does not speak for it."""
        if not self.shares:
            return "not measured"
        if min(share.value for share in self.shares) < DEGRADED:
            return "conflict"
        if len(self.shares) < len(self.names):
            return "degraded" if self._some_lost else "not measured"
        return "degraded" if self._some_lost else "compatible"

    @property
    def _some_lost(self) -> bool:
        return min(share.low for share in self.shares) < COMPATIBLE

    @property
    def said(self) -> Text:
        """The verdict in words."""
        if self.verdict == "compatible":
            return text("compatible: every adapter surely keeps {share:.0%} of what it does alone",
                        share=COMPATIBLE)  # fmt: skip
        if self.verdict == "degraded" and min(s.value for s in self.shares) >= COMPATIBLE:
            return text(
                "degraded, or too few tests: every adapter keeps {share:.0%} in these, "
                "but not surely in others; --rows takes more", share=COMPATIBLE,
            )  # fmt: skip
        if self.verdict == "degraded":
            return text("degraded: not all surely keep {share:.0%} of what they do alone",
                        share=COMPATIBLE)  # fmt: skip
        if self.verdict == "conflict":
            return text("conflict: less than {share:.0%} is left of one or more", share=DEGRADED)
        return text("not measured: of one or more adapters it cannot be told")

    def to_json(self, t: Catalogue = ENGLISH) -> dict[str, Any]:
        """As `--json` has it; what could not be told is null."""
        return {
            "chain": self.chain.text,
            "verdict": self.verdict,
            "retained": {self.names[p]: _retained(one, t) for p, one in self.kept.items()},
            "retained_mean": _rounded(self.retained_mean),
            "leave_one_out": {
                self.names[p]: {self.names[o]: _rounded(-one.harm(o)) for o in one.without}
                for p, one in self.kept.items()
            },
            "interference": {
                self.names[p]: {self.names[o]: _rounded(j)
                                for o, j in one.moved.interference.items()}
                for p, one in self.kept.items() if one.moved
            },
            "kl_to_alone": {
                self.names[p]: _rounded(one.moved.kl_to_alone)
                for p, one in self.kept.items() if one.moved
            },
            "kl_to_base": round(self.neutral.kl_mean, 6),
            "neutral": self.neutral.to_json(),
            "broken_text_rate": self.broken.chain.to_json(),
            "broken_alone": self.broken.alone.to_json(),
            "broken_base": self.broken.base.to_json(),
            "contradictions": {
                self.names[p]: one.contradictions.to_json()
                for p, one in self.kept.items() if one.contradictions
            },
            "answers": self.answers,
            "seconds": round(self.seconds, 2),
        }  # fmt: skip


def measure_chain(
    base: Base,
    chain: Chain,
    tests: Sequence[Sequence[Item]],
    *,
    leave_out: bool = True,
    longest: int = LONGEST,
    teller: Callable[[str], None] | None = None,
    trials: Trials | None = None,
) -> ChainMeasure:
    """Measure a chain by the tests of its adapters, one set for each term.

    Args:
        base: the model.
        chain: of two terms or more.
        tests: by place; an adapter without any is not judged, but acts.
        leave_out: whether the chain is tried without each of its adapters.
        longest: tokens of an answer.
        teller: is told how many answers there will be.
        trials: what is known already, of the same tests; asks and keeps the rest there.

    Raises:
        ChainError: a single term, or no test at all.
        WrongBase, SlotError, AdapterWeightsError: the chain does not belong on this base.
    """
    began = time.perf_counter()
    bound = base.bind(chain)
    _check(bound, tests)
    names = told_apart([term.adapter.name for term in bound.terms])
    asked = trials or Trials(base, tests, longest)
    arms = {place: _arms(bound, place, leave_out) for place in asked.places}
    if teller:
        count = sum(len(own) * len(tests[place]) for place, own in arms.items())
        teller(text("{count} answers to {tests} tests of {adapters} adapters", count=count,
                    tests=sum(map(len, tests)), adapters=len(asked.places)))  # fmt: skip
    asked.ask([(place, arm) for place, own in arms.items() for arm in own])
    kept = {place: _kept(asked, bound, place, names[place], leave_out) for place in asked.places}
    return ChainMeasure(
        bound, names, kept, _broken(asked, bound), retention(base, bound), asked.asked,
        time.perf_counter() - began,
    )  # fmt: skip


def without(chain: Chain, place: int) -> Chain:
    """The chain without one of its terms."""
    return Chain((*chain.terms[:place], *chain.terms[place + 1 :]))


def alone(chain: Chain, place: int) -> Chain:
    """One of its terms, at the weight that it has there."""
    return Chain((chain.terms[place],))


def _check(chain: Chain, tests: Sequence[Sequence[Item]]) -> None:
    if len(chain.terms) < 2:
        raise ChainError(
            text("a single adapter has no company that could harm it"),
            expected=text("a chain of two adapters or more"),
            found=chain.text or text("the base"),
        )
    if not any(tests):
        raise ChainError(
            text("no adapter of {chain} has tests", chain=chain.text),
            expected=text("a file test.jsonl beside one or more of them"),
            hint=text("give a file of questions with --tests NAME=FILE"),
        )


def _arms(chain: Chain, place: int, leave_out: bool) -> list[Chain]:
    others = [p for p in range(len(chain.terms)) if p != place] if leave_out else []
    return [Chain(), alone(chain, place), chain, *(without(chain, other) for other in others)]


def _kept(trials: Trials, chain: Chain, place: int, name: str, leave_out: bool) -> Kept:
    none, own, all_of = (trials.of(place, arm) for arm in _arms(chain, place, False))
    share = retained(none.scores, own.scores, all_of.scores)
    why = None
    if share is None:
        why = text("{name} alone is right in {alone:.0%} of its {count} tests, the base in "
                   "{base:.0%}: not surely more", name=name, alone=own.mean, base=none.mean,
                   count=len(own.scores))  # fmt: skip
    left: dict[int, float] = {}
    for other in range(len(chain.terms)) if leave_out else ():
        if other != place:
            rest = trials.of(place, without(chain, other))
            left[other] = _ratio(none.mean, own.mean, rest.mean) if share else math.nan
    return Kept(
        share, why, none.mean, own.mean, all_of.mean, left,
        _contradictions(trials.tests[place], [one.counts for one in all_of.said]),
        moved(trials.base, chain, place, _texts(trials, chain, place)), len(own.scores),
    )  # fmt: skip


def _texts(trials: Trials, chain: Chain, place: int) -> list[tuple[list[int], int]]:
    """Some questions with the answers of the adapter alone, and where those begin."""
    found: list[tuple[list[int], int]] = []
    own = trials.of(place, alone(chain, place))
    for test, said in zip(trials.tests[place][:TEXTS], own.said[:TEXTS], strict=True):
        asked = trials.base.chat([dict(turn) for turn in test.messages])
        if said.ids:
            found.append(([*asked, *said.ids], len(asked)))
    return found


def _contradictions(tests: Sequence[Item], counts: Sequence[bool]) -> Figure | None:
    groups: dict[str, set[bool]] = {}
    sizes: dict[str, int] = {}
    for test, right in zip(tests, counts, strict=True):
        if test.about:
            groups.setdefault(test.about, set()).add(right)
            sizes[test.about] = sizes.get(test.about, 0) + 1
    several = [groups[about] for about, size in sizes.items() if size > 1]
    return rate(len(seen) > 1 for seen in several) if several else None


def _broken(trials: Trials, chain: Chain) -> Broken:
    of_chain: list[bool] = []
    of_alone: list[bool] = []
    of_base: list[bool] = []
    for place in trials.places:
        of_chain += trials.of(place, chain).broken
        of_alone += trials.of(place, alone(chain, place)).broken
        of_base += trials.of(place, Chain()).broken
    return Broken(rate(of_chain), rate(of_alone), rate(of_base))


def pair_harms(found: ChainMeasure) -> dict[tuple[int, int], float]:
    """By two places, how much they take from each other: the larger of both harms."""
    told: dict[tuple[int, int], float] = {}
    for a, b in combinations(range(len(found.names)), 2):
        both = [found.kept[p].harm(o) for p, o in ((a, b), (b, a)) if p in found.kept]
        known = [harm for harm in both if not math.isnan(harm)]
        if known:
            told[a, b] = max(known)
    return told


def _ratio(base: float, own: float, other: float) -> float:
    return (other - base) / (own - base) if own > base else math.nan


def _retained(one: Kept, t: Catalogue) -> dict[str, Any]:
    share = one.share
    told: dict[str, Any] = {
        "share": share and _rounded(share.value),
        "low": share and _rounded(share.low),
        "high": share and _rounded(share.high),
        "n": one.n,
        "base": _rounded(one.base),
        "alone": _rounded(one.alone),
        "chain": _rounded(one.chain),
    }
    return {**told, "why": t.say(one.why)} if one.why else told


def _rounded(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None
