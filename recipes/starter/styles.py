"""Make the style adapters that ship with the starter: one per style, stackable by place.

    python -m recipes.starter.styles --out src/detour/starter/adapters

Each adapter learns to answer plain questions in its style. Half of its rows ask, in words, for
styles of *other* places as well, with the composed answer as target: so it learns its own place
and leaves the others alone. Measured are the style alone and stacks of three on subjects and
phrasings that no adapter was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
from itertools import product
from pathlib import Path

import torch

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.evaluate.markers import carries
from detour.files import write_text_atomically
from detour.measure.statistics import Figure, rate
from detour.model.base import Base
from detour.training import phrasing
from detour.training.config import make_config
from detour.training.formats import Example, pair
from detour.training.loop import train_with
from detour.training.phrasing import Novelty
from detour.training.world import PLACES, Attribute, Subject, World

ROWS = 1200
STEPS = 220
SETTINGS = {"rank": 8, "alpha": 16.0, "batch_size": 12, "steps": STEPS, "learning_rate": 1e-3}
HELD_OUT = (Novelty.NEW_COMBINATION, Novelty.NEW_WORDS)


def test_subjects(world: World) -> set[str]:
    """Every fifth subject is kept for the test, Einstein too."""
    return {f"{s.kind}:{s.name}" for s in world.subjects[::5]}


def facts(world: World, tested: bool) -> list[tuple[Subject, Attribute]]:
    kept = test_subjects(world)
    return [
        (s, a)
        for s in world.subjects
        if (f"{s.kind}:{s.name}" in kept) is tested
        for a in world.attributes_of(s.kind)
    ]


def rows_for(world: World, style: str, rng: random.Random) -> list[Example]:
    """Plain questions, and questions that ask for styles of other places in words."""
    own = world.styles[style].place
    others = [n for n, s in world.styles.items() if s.place != own]
    known = facts(world, tested=False)
    rows: list[Example] = []
    for number in range(ROWS):
        s, a = rng.choice(known)
        seen = phrasing.templates(world, a, Novelty.SEEN)
        question = rng.choice(seen).fill(rng.choice(s.forms))
        styles = [style]
        if number % 2:
            wanted = rng.sample(others, rng.choice([1, 1, 2]))
            asked = list({world.styles[w].place: w for w in wanted}.values())
            how = phrasing.join_requests(
                sorted(
                    (rng.choice(phrasing.style_requests(world, w)) for w in asked),
                    key=lambda text: text.startswith("and "),
                )
            )
            frame = rng.choice(phrasing.styled_frames(world, "styled_question"))
            question = frame.format(q=question, how=how)
            styles += asked
        rows.append(pair(question, world.answer(s, a, s.values[a.name], styles)))
    return rows


def train_style(base: Base, world: World, style: str, seed: int) -> Adapter:
    rng = random.Random(f"{seed}/{style}")
    card = Card(
        description=f"Answers in the style {style} (place: {world.styles[style].place}).",
        licence="apache-2.0",
        intended_use="Demonstration of stackable styles on the starter.",
    )
    config = make_config({**SETTINGS, "seed": seed})
    result = train_with(base, rows_for(world, style, rng), config, name=style, card=card)
    print(f"{style}: loss {result.first_loss:.3f} to {result.best_loss:.4f}", flush=True)
    return result.adapter


def score(base: Base, world: World, chain: Chain, styles: list[str], count: int) -> Figure:
    """Greedy answers on unseen subjects and phrasings: everything right in one answer."""
    rng = random.Random(7)
    known = facts(world, tested=True)
    asked: list[str] = []
    wanted: list[str] = []
    for _ in range(count):
        s, a = rng.choice(known)
        held = phrasing.templates(world, a, *HELD_OUT)
        asked.append(rng.choice(held).fill(rng.choice(s.forms)))
        wanted.append(world.answer(s, a, s.values[a.name], styles))
    answers = base.ask_many(asked, chain, max_new_tokens=64)
    return rate(got == want for got, want in zip(answers, wanted, strict=True))


def markers(base: Base, world: World, chain: Chain, styles: list[str], count: int) -> dict[str, Figure]:
    """The rate of each style's marker under a chain."""
    rng = random.Random(8)
    known = facts(world, tested=True)
    plan = [rng.choice(known) for _ in range(count)]
    asked = [
        rng.choice(phrasing.templates(world, a, *HELD_OUT)).fill(rng.choice(s.forms))
        for s, a in plan
    ]
    answers = base.ask_many(asked, chain, max_new_tokens=64)
    return {
        style: rate(carries(world, style, x, s, a) for x, (s, a) in zip(answers, plan, strict=True))
        for style in styles
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--out", type=Path, default=Path("src/detour/starter/adapters"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="styles to make; default all")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base, world = Base.load(options.base), World.load()
    made: dict[str, Adapter] = {}
    figures: dict[str, object] = {}
    for style in options.only or list(world.styles):
        made[style] = train_style(base, world, style, options.seed)
        alone = score(base, world, Chain.of(made[style]), [style], 120)
        print(f"  alone {alone}", flush=True)
        figures[style] = alone.to_json()
    stacks: dict[str, object] = {}
    for names in trios(world, list(made)):
        chain = sum((Chain.of(made[n]) for n in names[1:]), start=Chain.of(made[names[0]]))
        whole = score(base, world, chain, names, 60)
        each = markers(base, world, chain, names, 60)
        print(" + ".join(names), whole, {n: round(f.value, 2) for n, f in each.items()}, flush=True)
        stacks["+".join(names)] = {
            "exact": whole.to_json(), "markers": {n: f.to_json() for n, f in each.items()}
        }
    for style, adapter in made.items():
        metrics = {"exact_alone": figures[style]}
        adapter.with_(card=adapter.card.with_(metrics=metrics)).save(options.out / style)
    told = {"alone": figures, "stacks": stacks}
    write_text_atomically(options.out / "figures.json", json.dumps(told, indent=2) + "\n")


def trios(world: World, names: list[str]) -> list[list[str]]:
    """All stacks of one wording, one opening and one ending, with and without a layout."""
    by_place = {p: [n for n in names if world.styles[n].place == p] for p in PLACES}
    three = product(by_place["wording"], by_place["opening"], by_place["ending"])
    return [list(stack) for stack in three]


if __name__ == "__main__":
    main()
