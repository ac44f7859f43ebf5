"""How many adapters a model bears: what is left of each, and how much text breaks, by their number.

Adapters are drawn from a pool, again and again, and summed: once all of them in all of their
layers, once each in layers of its own as far as there are enough. Knows bases, chains and tests.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain, Term, layer_index
from detour.adapter.chain_text import LayerWeight
from detour.errors import ChainError
from detour.evaluate.chain_tests import Item
from detour.evaluate.retained import effect
from detour.evaluate.trials import LONGEST, Trials
from detour.language.catalogue import Text, text
from detour.measure.statistics import Figure, mean, rate
from detour.model.base import Base

Layers = Literal["same", "disjoint"]
COUNTS = (1, 2, 3, 5, 10)


@dataclass(frozen=True)
class Point:
    """Chains of one size.

    Attributes:
        count: adapters in each.
        layers: whether all act in the same layers.
        retained: mean share of what an adapter does alone in all of its layers; n counts shares.
        broken: the share of answers that are no text.
        chains: how many were drawn.
    """

    count: int
    layers: Layers
    retained: Figure
    broken: Figure
    chains: int

    def to_json(self) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            "count": self.count,
            "layers": self.layers,
            "retained": self.retained.to_json(),
            "broken_text_rate": self.broken.to_json(),
            "chains": self.chains,
        }


@dataclass(frozen=True)
class Stress:
    """The curve, and what could not be drawn on.

    Attributes:
        curve: by layers and number.
        left_out: adapters that have no tests, or alone do no more than the base.
    """

    curve: tuple[Point, ...]
    left_out: tuple[Text, ...]


def stress(
    base: Base,
    pool: Chain,
    tests: Sequence[Sequence[Item]],
    *,
    counts: Sequence[int] = COUNTS,
    draws: int = 5,
    seed: int = 0,
    longest: int = LONGEST,
    teller: Callable[[str], None] | None = None,
) -> Stress:
    """Draw chains from a pool and measure them.

    Args:
        base: the model.
        pool: adapters to draw from, at the weights that they have there.
        tests: of each.
        counts: sizes of chains; those above the pool's are left out.
        draws: chains of each size, fewer where there are no more.
        seed: of the drawing.
        longest: tokens of an answer.
        teller: is told what is measured.

    Raises:
        ChainError: fewer than two adapters of which anything can be told.
        WrongBase, SlotError: an adapter of another base.
    """
    bound = base.bind(pool)
    trials = Trials(base, tests, longest)
    trials.ask((p, c) for p, t in enumerate(bound.terms) for c in (Chain(), Chain((t,))))
    usable, left_out = _usable(trials, bound)
    if len(usable) < 2:
        raise ChainError(
            text("there are too few adapters to stack"),
            expected=text("two or more that have tests and do something"),
            found="; ".join(left_out) or str(len(bound.terms)),
        )
    deep = _depth(term.adapter for term in bound.terms)
    curve: list[Point] = []
    for layers in ("same", "disjoint"):
        for count in counts:
            if count > len(usable) or (layers == "disjoint" and (count < 2 or deep < 2)):
                continue
            drawn = _drawn(usable, count, draws, seed)
            if teller:
                teller(text("{chains} chains of {count} adapters, {layers} layers",
                            chains=len(drawn), count=count, layers=_said(layers)))  # fmt: skip
            curve.append(_point(trials, bound, drawn, layers, deep))
    return Stress(tuple(curve), tuple(left_out))


def _usable(trials: Trials, pool: Chain) -> tuple[list[int], list[Text]]:
    usable: list[int] = []
    left_out: list[Text] = []
    for place, term in enumerate(pool.terms):
        name = term.adapter.name
        if not trials.tests[place]:
            left_out.append(text("{name} has no tests", name=name))
            continue
        none, own = (trials.of(place, chain) for chain in (Chain(), Chain((term,))))
        if effect(none.scores, own.scores).low > 0:
            usable.append(place)
        else:
            left_out.append(text("{name} alone does no more than the base", name=name))
    return usable, left_out


def _drawn(places: Sequence[int], count: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """Different sets of so many places; each place alone where one is wanted."""
    if count == 1:
        return [(place,) for place in places]
    rng = random.Random(f"{seed}/{count}")
    most = min(draws, math.comb(len(places), count))
    found: set[tuple[int, ...]] = set()
    while len(found) < most:
        found.add(tuple(sorted(rng.sample(list(places), count))))
    return sorted(found)


def _point(
    trials: Trials, pool: Chain, drawn: Sequence[tuple[int, ...]], layers: Layers, deep: int
) -> Point:
    chains = {places: _chain(pool, places, layers, deep) for places in drawn}
    trials.ask((place, chain) for places, chain in chains.items() for place in places)
    shares: list[float] = []
    broken: list[bool] = []
    for places, chain in chains.items():
        for place in places:
            sat = trials.of(place, chain)
            none, own = (trials.of(place, c).mean for c in (Chain(), Chain((pool.terms[place],))))
            shares.append((sat.mean - none) / (own - none))
            broken += sat.broken
    return Point(len(drawn[0]), layers, mean(shares), rate(broken), len(drawn))


def _chain(pool: Chain, places: Sequence[int], layers: Layers, deep: int) -> Chain:
    """All in all layers, or each in every so manieth layer."""
    terms = [pool.terms[place] for place in places]
    if layers == "same":
        return Chain(tuple(terms))
    return Chain(tuple(_only(term, number, len(terms), deep) for number, term in enumerate(terms)))


def _only(term: Term, number: int, count: int, deep: int) -> Term:
    """A term that acts in the layers of its number; with more terms than layers some share one."""
    own = [layer for layer in range(deep) if layer % min(count, deep) == number % deep]
    ranges = tuple(LayerWeight(layer, layer, term.weight) for layer in own)
    return Term(term.adapter, 0.0, ranges)


def _depth(adapters: Iterable[Adapter]) -> int:
    indices = [layer_index(layer) for one in adapters for layer in one.updates]
    return max((index for index in indices if index is not None), default=-1) + 1


def _said(layers: Layers) -> Text:
    return text("the same") if layers == "same" else text("disjoint")
