"""Chains of two to ten adapters, facts and styles: what each keeps, and what helps.

    python -m recipes.stacking.experiment work/stacking 0 1 2

For every seed ten adapters are made in five ways: *plain*, each by itself; *company*, each in the
company of ten strangers that it will never meet again; *library*, the last four in the company of
the six that came before; *together*, all ten at once; and *polished*, a plain chain of which every
part learned a little more inside it. The same chains are asked the same questions for all.

Adapters lie under the folder and are not made twice; `figures/seed-N.json` beside this file holds
what was measured. Knows the recipe's members and the package.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.conflict import geometry
from detour.evaluate.stacking import LONGEST, Asked
from detour.files import write_text_atomically
from detour.measure.metrics import repeats
from detour.model.base import Base
from detour.training.config import TrainConfig, make_config
from detour.training.together import Composed, train_together
from detour.training.world import World
from recipes.stacking.members import (
    Member,
    all_right,
    drawn,
    is_right,
    rows,
    tests,
    value_under,
)

FIGURES = Path(__file__).parent / "figures"
SETTINGS = {"rank": 8, "alpha": 16.0, "batch_size": 12, "learning_rate": 1e-3, "patience": 0}
ALONE, IN_COMPANY, ALL, ADDED, POLISH = 160, 320, 1200, 320, 40  # steps
ROWS = 480  # of each adapter
SIZES = {2: 4, 3: 4, 5: 5, 10: 1}  # adapters of a chain: how many chains
WEIGHTS = (1.0, 0.7)
FIRST = 6  # adapters of a library to which the others are added

Made = dict[str, Adapter]


def settings(steps: int, seed: int) -> TrainConfig:
    """Of one training."""
    return make_config({**SETTINGS, "steps": steps, "seed": 100 * seed + 1})


class Bench:
    """One seed: its members, and what was made of them."""

    def __init__(self, base: Base, folder: Path, seed: int) -> None:
        self.base, self.folder, self.seed = base, folder / f"seed-{seed}", seed
        self.world = World.load("en")
        self.members = drawn(self.world, seed)
        self.strangers = drawn(self.world, seed, strangers=True)
        self.seconds: dict[str, float] = {}

    def way(self, name: str) -> Made:
        """The ten adapters of a way, made where they are not there yet."""
        make = {"plain": self._plain, "company": self._company, "library": self._library,
                "together": self._together, "polished": self._polished}[name]  # fmt: skip
        return self._kept(name, [member.name for member in self.members], make)

    def _kept(self, name: str, names: Sequence[str], make: Any) -> Made:  # noqa: ANN401
        place = self.folder / name
        note = place / "seconds.json"
        if not note.exists():
            began = time.process_time()
            for adapter in make().values():
                adapter.save(place / adapter.name)
            write_text_atomically(note, json.dumps(time.process_time() - began))
        self.seconds[name] = json.loads(note.read_text())
        return {one: Adapter.load(place / one) for one in names}

    def _alone(self, members: Sequence[Member], steps: int = ALONE) -> Made:
        made: Made = {}
        for number, member in enumerate(members):
            made[member.name] = self._saved(
                f"alone/{member.name}", partial(self._one, member, (), {}, steps, number)
            )
        return made

    def _saved(self, path: str, make: Any) -> Adapter:  # noqa: ANN401
        place = self.folder / path
        if not (place / "adapter_config.json").exists():
            make().save(place)
            print(f"seed {self.seed}: {path}", flush=True)
        return Adapter.load(place)

    def _one(
        self, member: Member, others: Sequence[Member], company: Made, steps: int, number: int
    ) -> Adapter:
        learned = rows(self.world, member, others, ROWS, self.seed, 0.4 if others else 1.0)
        config = settings(steps, self.seed).model_copy(
            update={"seed": 100 * self.seed + 1 + number}
        )
        found = train_together(self.base, learned, [member.name], config, company=company)
        return found.adapters[member.name]

    def _plain(self) -> Made:
        return self._alone(self.members)

    def _company(self) -> Made:
        """Each in the company of strangers that learned together, so that they can be stacked."""
        strangers = self._kept("strangers", [one.name for one in self.strangers],
                               partial(self._all, self.strangers))  # fmt: skip
        return {
            member.name: self._saved(
                f"in company/{member.name}",
                partial(self._one, member, self._meets(member), self._met(member, strangers),
                        IN_COMPANY, number),
            )
            for number, member in enumerate(self.members)
        }  # fmt: skip

    def _meets(self, member: Member) -> list[Member]:
        """Strangers of another name: a style may be a stranger of one seed and a member too."""
        return [one for one in self.strangers if one.name != member.name]

    def _met(self, member: Member, strangers: Made) -> Made:
        return {one.name: strangers[one.name] for one in self._meets(member)}

    def _library(self) -> Made:
        """Six together, then each of the four others in the company of those."""
        order = list(self.members)
        random.Random(self.seed).shuffle(order)
        first, later = order[:FIRST], order[FIRST:]
        made = self._kept("first six", [m.name for m in first], partial(self._all, first))
        present = dict(made)
        for number, member in enumerate(later):
            known = [one for one in order if one.name in present]
            made[member.name] = self._saved(
                f"added/{member.name}",
                partial(self._one, member, known, dict(present), ADDED, number),
            )
            present[member.name] = made[member.name]
        return made

    def _together(self) -> Made:
        return self._all(self.members)

    def _all(self, members: Sequence[Member], steps: int = ALL, start: Made | None = None) -> Made:
        config = settings(steps * len(members) // 10, self.seed)
        learned = self._composed(members, ROWS)
        names = [member.name for member in members]
        return dict(train_together(self.base, learned, names, config, start=start).adapters)

    def _composed(self, members: Sequence[Member], count: int) -> list[Composed]:
        return [
            row
            for member in members
            for row in rows(self.world, member, [m for m in members if m != member], count,
                            self.seed)
        ]  # fmt: skip

    def _polished(self) -> Made:
        """The plain ones, a little further together: they are no strangers any more."""
        return self._all(self.members, POLISH, self._plain())


def chains(members: Sequence[Member], seed: int) -> list[list[Member]]:
    """Of every size some, drawn: each of two or more holds a style."""
    rng = random.Random(f"chains/{seed}")
    found: list[list[Member]] = []
    for size, count in SIZES.items():
        while sum(len(chain) == size for chain in found) < count:
            chosen = rng.sample(list(members), size)
            if any(member.style for member in chosen) and chosen not in found:
                found.append(chosen)
    return found


class Judge:
    """Asks every chain once, and remembers what each adapter does alone."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.asked = {m.name: tests(bench.world, m, bench.seed) for m in bench.members}
        self._base = {m.name: self._rate(m, [m], None) for m in bench.members}

    def chain(self, made: Made, members: Sequence[Member], weight: float) -> dict[str, Any]:
        """What is left of each member; of how many answers everything is right, or broken."""
        summed = Chain.of(*(weight * made[member.name] for member in members))
        found: dict[str, Any] = {"size": len(members), "weight": weight, "retained": {}}
        joint: list[bool] = []
        broken: list[bool] = []
        for member in members:
            answers = self._answers(member, summed)
            pairs = list(zip(self.asked[member.name], answers, strict=True))
            right = fmean(self._right(member, members, a, said) for a, said in pairs)
            alone = self._rate(member, [member], made[member.name])
            none = self._base[member.name]
            if alone > none:
                found["retained"][member.name] = (right - none) / (alone - none)
            joint += [all_right(self.bench.world, members, self._under(a, members), said)
                      for a, said in pairs]  # fmt: skip
            broken += [not said.strip() or repeats(said) for said in answers]
        return {**found, "joint": fmean(joint), "broken": fmean(broken), "n": len(joint)}

    def alone(self, made: Made) -> dict[str, float]:
        """What each does by itself."""
        return {m.name: self._rate(m, [m], made[m.name]) for m in self.bench.members}

    def _rate(self, member: Member, active: Sequence[Member], adapter: Adapter | None) -> float:
        answers = self._answers(member, Chain.of(adapter))
        return fmean(
            self._right(member, active, asked, said)
            for asked, said in zip(self.asked[member.name], answers, strict=True)
        )

    def _right(self, member: Member, active: Sequence[Member], asked: Asked, said: str) -> bool:
        return is_right(self.bench.world, member, active, self._under(asked, active), said)

    def _under(self, asked: Asked, active: Sequence[Member]) -> Asked:
        value = value_under(asked.subject, asked.attribute, active)
        return Asked(asked.subject, asked.attribute, asked.question, value)

    def _answers(self, member: Member, chain: Chain) -> list[str]:
        questions = [asked.question for asked in self.asked[member.name]]
        return self.bench.base.ask_many(questions, chain, max_new_tokens=LONGEST)


def statics(made: Made, members: Sequence[Member]) -> list[dict[str, Any]]:
    """Figures of every two, from their weights."""
    found = geometry(Chain.of(*(made[member.name] for member in members)))
    return [
        {"a": members[a].name, "b": members[b].name, **vars(found.whole.figures(a, b))}
        for a, b in combinations(range(len(members)), 2)
    ]


def run(base: Base, folder: Path, seed: int, ways: Sequence[str]) -> Mapping[str, Any]:
    """Everything of a seed."""
    bench = Bench(base, folder, seed)
    judge: Judge | None = None
    told: dict[str, Any] = {"seed": seed, "members": [_told(m) for m in bench.members]}
    drawn_chains = chains(bench.members, seed)
    for way in ways:
        note = bench.folder / f"{way}.json"
        if not note.exists():
            made = bench.way(way)
            judge = judge or Judge(bench)
            known = {
                "alone": judge.alone(made),
                "chains": [
                    {"members": [m.name for m in one], **judge.chain(made, one, weight)}
                    for weight in WEIGHTS for one in drawn_chains
                ],
                "pairs": [
                    {"members": [a.name, b.name], **judge.chain(made, [a, b], 1.0)}
                    for a, b in combinations(bench.members, 2)
                    if way in ("plain", "company")
                ],
                "statics": statics(made, bench.members),
                "seconds": bench.seconds[way],
            }  # fmt: skip
            write_text_atomically(note, json.dumps(known))
        told[way] = json.loads(note.read_text())
        _say(seed, way, told[way])
    return told


def _told(member: Member) -> dict[str, str]:
    if member.subject is None or member.attribute is None:
        return {"name": member.name, "style": member.style}
    return {
        "name": member.name, "subject": member.subject.name, "attribute": member.attribute.name,
        "target": member.target,
    }  # fmt: skip


def _say(seed: int, way: str, known: Mapping[str, Any]) -> None:
    for weight in WEIGHTS:
        parts: list[str] = []
        for size in SIZES:
            own = [c for c in known["chains"] if c["size"] == size and c["weight"] == weight]
            kept = [share for chain in own for share in chain["retained"].values()]
            parts.append(f"{size}: {fmean(kept):.2f} (joint {fmean(c['joint'] for c in own):.2f})")
        print(f"seed {seed}, {way}, weights {weight}: {', '.join(parts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("seeds", type=int, nargs="+")
    parser.add_argument(
        "--ways", nargs="*", default=["plain", "together", "company", "library", "polished"]
    )
    given = parser.parse_args()
    base = Base.load("starter")
    for seed in given.seeds:
        told = run(base, given.folder, seed, given.ways)
        FIGURES.mkdir(exist_ok=True)
        write_text_atomically(FIGURES / f"seed-{seed}.json", json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
