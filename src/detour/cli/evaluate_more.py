"""What `detour evaluate` tells beside its figures: languages apart, and what was learned by heart.

Knows chains, rows and figures; loads nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from detour.cli.output import note, one_line, print_table, say
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain
    from detour.data.records import Record
    from detour.measure.canary import Exposure, Row
    from detour.measure.statistics import Figure
    from detour.model.base import Base

Arms = dict[str, dict[str, "Figure"]]


@dataclass(frozen=True)
class More:
    """What is told where there is any of it.

    Attributes:
        languages: by language the figures of every arm.
        canaries: by canary its exposure in every arm.
        cut: by arm how many answers ended for want of room.
        learned: by adapter how many of the rows it was trained on.
    """

    languages: Mapping[str, Arms] = field(default_factory=lambda: {})
    canaries: Mapping[str, Mapping[str, Exposure]] = field(default_factory=lambda: {})
    cut: Mapping[str, int] = field(default_factory=lambda: {})
    learned: Mapping[str, int] = field(default_factory=lambda: {})

    def to_json(self) -> dict[str, Any]:
        """What there is."""
        languages = {language: plain_arms(arms) for language, arms in self.languages.items()}
        canaries = [
            {"canary": secret, **{arm: told.to_json() for arm, told in arms.items()}}
            for secret, arms in self.canaries.items()
        ]
        return {
            **({"languages": languages} if languages else {}),
            **({"canaries": canaries} if canaries else {}),
            **({"cut": dict(self.cut)} if self.cut else {}),
            **({"learned": dict(self.learned)} if self.learned else {}),
        }

    def say(self) -> None:
        """As tables."""
        for language, arms in self.languages.items():
            say()
            print_arms(language, arms)
        if self.canaries:
            say()
            arms = next(iter(self.canaries.values()))
            print_table(
                ("canary", *arms),
                [(secret, *map(_exposed, own.values())) for secret, own in self.canaries.items()],
            )


def remembered(
    base: Base, chain: Chain, rows: Sequence[Row], canaries: Sequence[str]
) -> dict[str, dict[str, Exposure]]:
    """The exposure of every canary to the base, and to the base under the chain."""
    from detour.measure.canary import exposure, holding

    arms = {"base": None, **({"chain": chain} if chain.terms else {})}
    found: dict[str, dict[str, Exposure]] = {}
    for secret in canaries:
        own = holding(rows, secret)
        found[secret] = {arm: exposure(base, own, secret, given) for arm, given in arms.items()}
    return found


def learned_of(chain: Chain, part: Sequence[Record], rows: Sequence[Record]) -> dict[str, int]:
    """By adapter how many of the judged rows it was trained on, said aloud; `part` has them all.

    Only what its card tells: a training on the whole part, or on what it keeps of it.
    """
    from detour.training.learned import learned_by

    found: dict[str, int] = {}
    for term in chain.terms:
        learned = {id(row) for row in learned_by(term.adapter, part)}
        if inside := sum(id(row) in learned for row in rows):
            name = one_line(term.adapter.name)
            found[name] = inside
            note(text("{adapter} was trained on {count} of these {all} rows: what they measure is "
                      "memory", adapter=name, count=inside, all=len(rows)))  # fmt: skip
    return found


def plain_arms(arms: Arms) -> dict[str, Any]:
    """Figures as they leave the program."""
    return {arm: {n: f.to_json() for n, f in own.items()} for arm, own in arms.items()}


def print_arms(head: str, arms: Arms) -> None:
    """A table with an arm in each column."""
    names = list(next(iter(arms.values())))
    print_table((head, *arms), [(n, *(_said(arms[arm][n]) for arm in arms)) for n in names])


def _said(figure: Figure) -> str:
    return f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]"


def _exposed(told: Exposure) -> str:
    bits = told.bits
    said = ", said" if told.said else ""
    return f"{bits.value:.1f} bits [{bits.low:.1f}, {bits.high:.1f}]{said}"
