"""What could be done about a chain whose adapters harm each other: tried, not guessed.

Without any training: all weights lower, the adapter that harms most lower, adapters left out one
after another, or the chain as one adapter of a smaller rank. Each is asked the same tests and
judged by what every adapter does alone at its own weight in the chain as it was. Knows bases,
chains and trials; trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from detour.adapter.chain import Chain, Term
from detour.evaluate.chain_measure import COMPATIBLE, ChainMeasure, alone
from detour.evaluate.retained import retained
from detour.evaluate.trials import Trials
from detour.language.catalogue import ENGLISH, Catalogue, Text, text
from detour.measure.statistics import Figure

FACTORS = (0.85, 0.7, 0.5)


@dataclass(frozen=True)
class Remedy:
    """One of them, with what it gave.

    Attributes:
        what: was done, in words.
        chain: that came of it.
        shares: R by place in the chain as it was; of adapters that are left out nothing.
        before: mean R of the same adapters in the chain as it was.
    """

    what: Text
    chain: Chain
    shares: dict[int, Figure]
    before: float

    @property
    def retained_mean(self) -> float:
        """Of the adapters that are left."""
        return fmean(share.value for share in self.shares.values()) if self.shares else math.nan

    @property
    def worst(self) -> float:
        """Of the adapters that are left."""
        return min((share.value for share in self.shares.values()), default=math.nan)

    @property
    def gain(self) -> float:
        """Of the mean, over the same adapters in the chain as it was."""
        return self.retained_mean - self.before

    @property
    def gain_told(self) -> str:
        """With its sign and two digits; never "-0.00"."""
        return f"{round(self.gain, 2) + 0.0:+.2f}"

    def to_json(self, t: Catalogue = ENGLISH) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            "what": t.say(self.what),
            "chain": self.chain.text,
            "retained_mean": round(self.retained_mean, 4),
            "retained_worst": round(self.worst, 4),
            "gain": round(self.gain, 4),
            "adapters": len(self.shares),
        }


def tried(found: ChainMeasure, trials: Trials) -> list[Remedy]:
    """Every remedy; nothing where no R could be told. Those that keep all adapters come first, of
    these the most helpful first.
    """
    if not found.shares:
        return []
    ideas = [*_lower(found), *_compressed(found)]
    trials.ask((place, chain) for _, chain, places in ideas for place in places)
    made = [judged(found, trials, *idea) for idea in ideas]
    return best_first([*made, *_removals(found, trials)])


def best_first(remedies: Sequence[Remedy]) -> list[Remedy]:
    """Those that keep all adapters before the others, of these the most helpful first."""
    return sorted(remedies, key=lambda one: (-len(one.shares), -one.retained_mean))


Idea = tuple[Text, Chain, Sequence[int]]
"""What is done, the chain that comes of it, and the places that are judged."""


def judgeable(found: ChainMeasure) -> list[int]:
    """The places of which R could be told."""
    return [place for place, kept in found.kept.items() if kept.share]


def _lower(found: ChainMeasure) -> Iterator[Idea]:
    """All weights lower; or those of the adapter that harms the others most."""
    places = judgeable(found)
    for factor in FACTORS:
        lower = text("all weights × {factor}", factor=factor)
        yield lower, factor * found.chain, places
    worst = _worst(found, range(len(found.names)))
    if worst is None:
        return
    for factor in FACTORS:
        terms = list(found.chain.terms)
        terms[worst] = terms[worst] * factor
        told = text("{name} × {factor}, which harms the others most", name=found.names[worst],
                    factor=factor)  # fmt: skip
        yield told, Chain(tuple(terms)), places


def _compressed(found: ChainMeasure) -> Iterator[Idea]:
    """The chain as one adapter of the highest rank of its parts."""
    rank = max(term.adapter.rank for term in found.chain.terms)
    if rank < 1:
        return
    made, error = found.chain.compress(rank, "compressed")
    told = text("compressed to rank {rank} (error {error:.0%} of its size)", rank=rank, error=error)
    yield told, Chain((Term(made),)), judgeable(found)


def _removals(found: ChainMeasure, trials: Trials) -> list[Remedy]:
    """Adapters left out one after another, those first that harm the others most.

    Ends where all that are left keep enough, or where only one is.
    """
    left, made, gone = list(range(len(found.names))), list[Remedy](), list[int]()
    while len(left) > 2:
        worst = _worst(found, left)
        if worst is None:
            break
        left.remove(worst)
        gone.append(worst)
        chain = Chain(tuple(found.chain.terms[place] for place in left))
        places = [place for place in left if found.kept.get(place) and found.kept[place].share]
        if not places:
            break
        names = ", ".join(found.names[place] for place in gone)
        remedy = judged(found, trials, text("without {names}", names=names), chain, places)
        made.append(remedy)
        if remedy.worst >= COMPATIBLE:
            break
    return made


def _worst(found: ChainMeasure, places: Sequence[int]) -> int | None:
    """The adapter whose absence the others gain most by; None where none does harm."""
    harms = {
        other: sum(
            max(0.0, harm)
            for place in places
            if place in found.kept and place != other
            and not math.isnan(harm := found.kept[place].harm(other))
        )
        for other in places
    }  # fmt: skip
    worst = max(harms, key=lambda place: harms[place], default=None)
    return worst if worst is not None and harms[worst] > 0 else None


def judged(
    found: ChainMeasure, trials: Trials, what: Text, chain: Chain, places: Sequence[int]
) -> Remedy:
    """What a chain leaves of the adapters at these places, by what each did alone before."""
    trials.ask((place, chain) for place in places)
    shares: dict[int, Figure] = {}
    for place in places:
        share = retained(
            trials.of(place, Chain()).scores, trials.of(place, alone(found.chain, place)).scores,
            trials.of(place, chain).scores,
        )  # fmt: skip
        if share:
            shares[place] = share
    before = fmean(kept.share.value for place in places if (kept := found.kept[place]).share)
    return Remedy(what, chain, shares, before)
