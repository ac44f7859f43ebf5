"""Whether the adapters of a chain are likely to get in each other's way, from their weights alone.

Three verdicts: the chain is invalid; no conflict is predicted; or there is a reason to measure it.
Never "compatible", which only a measurement can say: overlap of weights warns, it does not decide.
Knows chains and figures; runs no model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

from detour.adapter.chain import Chain
from detour.adapter.conflict import Figures, Geometry, geometry
from detour.language.catalogue import ENGLISH, Catalogue, Text, text

Verdict = Literal["invalid", "no conflict predicted", "measure it"]
OVERLAP = 0.25  # above chance, from which directions are told as shared
COSINE = 0.2
DOMINANT = 0.9  # share of the energy of two
CANCELLED = 0.2


@dataclass(frozen=True)
class Pair:
    """Two terms of the chain, by their places, and what is to be said of them."""

    a: int
    b: int
    figures: Figures
    reasons: tuple[Text, ...]

    @property
    def verdict(self) -> Verdict:
        """Of the two alone."""
        return "measure it" if self.reasons else "no conflict predicted"


@dataclass(frozen=True)
class ChainCheck:
    """The verdict on a chain.

    Attributes:
        chain: what was looked at.
        geometry: all figures.
        names: of the terms, told apart where one comes twice.
        faults: why the chain is invalid, one by one.
        pairs: every two terms.
        seconds: that it took.
    """

    chain: Chain
    geometry: Geometry
    names: tuple[str, ...]
    faults: tuple[Text, ...]
    pairs: tuple[Pair, ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        """Of the whole chain."""
        if self.faults:
            return "invalid"
        needs = any(pair.reasons for pair in self.pairs)
        return "measure it" if needs else "no conflict predicted"

    @property
    def said(self) -> Text:
        """The verdict in words."""
        return said(self.verdict)

    @property
    def advice(self) -> Text:
        """What to do next."""
        if self.faults:
            return text("such a chain is not worth measuring")
        return text("weights alone only warn: what is left of each part is to be measured")

    def to_json(self, t: Catalogue = ENGLISH) -> dict[str, Any]:
        """As `--json` has it."""
        return {
            "chain": self.chain.text,
            "verdict": self.verdict,
            "faults": [t.say(fault) for fault in self.faults],
            "adapters": [
                {"name": name, "share": round(share, 4)}
                for name, share in zip(self.names, self.geometry.shares, strict=True)
            ],
            "pairs": [self._pair(pair, t) for pair in self.pairs],
            "seconds": round(self.seconds, 4),
        }

    def _pair(self, pair: Pair, t: Catalogue) -> dict[str, Any]:
        return {
            "a": self.names[pair.a],
            "b": self.names[pair.b],
            **{name: round(value, 4) for name, value in vars(pair.figures).items()},
            "verdict": pair.verdict,
            "reason": "; ".join(t.say(reason) for reason in pair.reasons),
        }


def said(verdict: Verdict) -> Text:
    """A verdict in words."""
    if verdict == "invalid":
        return text("invalid")
    if verdict == "measure it":
        return text("measure it")
    return text("no conflict predicted")


def check_chain(chain: Chain) -> ChainCheck:
    """Look at every two terms of a chain.

    Raises:
        AdapterWeightsError: two adapters disagree about a layer's shape; names it.
        ChainError: an adapter holds whole values and is not bound to its base yet.
    """
    began = time.perf_counter()
    chain.check_bound()
    found = geometry(chain)
    names = told_apart([term.adapter.name for term in chain.terms])
    faults = tuple(
        text("{name} changes nothing: it was not trained, or its weight is 0", name=name)
        for name, share in zip(names, found.shares, strict=True)
        if share == 0
    )
    pairs = tuple(
        Pair(a, b, figures := found.whole.figures(a, b),
             tuple(_reasons(found, a, b, figures, (names[a], names[b]))))
        for a, b in combinations(range(len(names)), 2)
    )  # fmt: skip
    return ChainCheck(chain, found, names, faults, pairs, time.perf_counter() - began)


def _reasons(
    found: Geometry, a: int, b: int, figures: Figures, names: tuple[str, str]
) -> list[Text]:
    told: list[Text] = []
    where = {side: _depths(found, a, b, side) for side in ("output_overlap", "input_overlap")}
    if figures.input_overlap >= OVERLAP and figures.cosine <= -COSINE:
        told.append(text("they contradict each other: the same inputs, opposite changes, in "
                         "{where}", where=where["input_overlap"]))  # fmt: skip
    elif figures.input_overlap >= OVERLAP and figures.cosine >= COSINE:
        told.append(text("they say the same, so that both over-steer, in {where}",
                         where=where["input_overlap"]))  # fmt: skip
    elif figures.output_overlap >= OVERLAP:
        told.append(text("both write into the same output directions in {where}",
                         where=where["output_overlap"]))  # fmt: skip
    elif figures.input_overlap >= OVERLAP:
        told.append(text("both act on the same inputs in {where}", where=where["input_overlap"]))
    elif abs(figures.cosine) >= COSINE:
        told.append(text("their changes are alike (cosine {cosine:.2f})", cosine=figures.cosine))
    if figures.cancellation >= CANCELLED:
        told.append(text("{share:.0%} of what they change is gone in their sum",
                         share=figures.cancellation))  # fmt: skip
    for share, name in zip((figures.dominance, 1 - figures.dominance), names, strict=True):
        if share >= DOMINANT:
            told.append(text("{name} dominates: it makes {share:.1%} of what both change",
                             name=name, share=share))  # fmt: skip
    return told


def _depths(found: Geometry, a: int, b: int, side: str) -> Text:
    """The decoder layers in which two terms overlap, such as "layers 3, 10–14"."""
    deep = [depth for depth, energies in found.by_depth.items()
            if getattr(energies.figures(a, b), side) >= OVERLAP]  # fmt: skip
    if not deep:
        return text("all layers together")
    return text("layers {numbers}", numbers=ranges(deep))


def ranges(numbers: Sequence[int]) -> str:
    """Such as "3, 10–14", of numbers in their order."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def told_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names; a second "pun" is "pun (2)"."""
    seen: dict[str, int] = {}
    found: list[str] = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(found)
