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
from detour.evaluate.stacking import (
    answers_to,
    exact_rate,
    known_facts,
    marker_rates,
    test_questions,
)
from detour.files import write_text_atomically
from detour.model.base import Base
from detour.training import phrasing
from detour.training.config import make_config
from detour.training.formats import Example, pair
from detour.training.loop import train_with
from detour.training.phrasing import Novelty
from detour.training.world import PLACES, World

ROWS = 1200
STEPS = 220
SETTINGS = {"rank": 8, "alpha": 16.0, "batch_size": 12, "steps": STEPS, "learning_rate": 1e-3}
STACKED = 60  # questions per stack


def rows_for(world: World, style: str, rng: random.Random) -> list[Example]:
    """Plain questions, and questions that ask for styles of other places in words."""
    own = world.styles[style].place
    others = [n for n, s in world.styles.items() if s.place != own]
    known = known_facts(world, tested=False)
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
    asked = test_questions(world, 120, seed=7)
    made: dict[str, Adapter] = {}
    figures: dict[str, object] = {}
    for style in options.only or list(world.styles):
        made[style] = train_style(base, world, style, options.seed)
        answers = answers_to(base, made[style], asked)
        alone = exact_rate(world, asked, answers, [style])
        print(f"  alone {alone}", flush=True)
        figures[style] = alone.to_json()
    stacks: dict[str, object] = {}
    for names in trios(world, list(made)):
        chain = sum((Chain.of(made[n]) for n in names[1:]), start=Chain.of(made[names[0]]))
        answers = answers_to(base, chain, asked[:STACKED])
        whole = exact_rate(world, asked[:STACKED], answers, names)
        each = marker_rates(world, asked[:STACKED], answers, names)
        print(" + ".join(names), whole, {n: round(f.value, 2) for n, f in each.items()}, flush=True)
        stacks["+".join(names)] = {
            "exact": whole.to_json(),
            "markers": {n: f.to_json() for n, f in each.items()},
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
