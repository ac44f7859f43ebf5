"""Make the style adapters that ship with the starter: one per style, stackable by place.

    python -m recipes.starter.styles --out src/detour/starter/adapters

Each adapter learns to answer plain questions in its style, in every language. Half of its rows ask,
in words, for styles of *other* places as well, with the composed answer as target: so it learns
its own place and leaves the others alone. Measured are the style alone and stacks of three on
subjects and phrasings that no adapter was trained on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.evaluate.stacking import (
    Asked,
    answers_to,
    exact_rate,
    held_out_questions,
    known_facts,
    marker_rates,
)
from detour.files import write_text_atomically
from detour.model.base import Base
from detour.model.examples import Example, pair
from detour.training import phrasing
from detour.training.config import make_config
from detour.training.loop import train_with
from detour.training.phrasing import Novelty
from detour.training.world import LANGUAGES, PLACES, World

ROWS = 1000  # in each language
STEPS = 320
SETTINGS = {"rank": 8, "alpha": 16.0, "batch_size": 12, "steps": STEPS, "learning_rate": 1e-3,
            "patience": 0}  # fmt: skip
ALONE = 120  # questions to one adapter
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
            requests = [rng.choice(phrasing.style_requests(world, w)) for w in asked]
            how = phrasing.join_requests(requests, world.language)
            frame = rng.choice(phrasing.styled_frames(world, "styled_question"))
            question = frame.format(q=question, how=how)
            styles += asked
        rows.append(pair(question, world.answer(s, a, s.values[a.name], styles)))
    return rows


def train_style(base: Base, worlds: Sequence[World], style: str, seed: int) -> Adapter:
    """One style's adapter, trained in every language."""
    rng = random.Random(f"{seed}/{style}")
    known = worlds[0].styles[style]
    card = Card(
        description=f"Answers in the style {style} (place: {known.place}), in every language.",
        licence="apache-2.0",
        intended_use="Demonstration of stackable styles on the starter.",
    )
    config = make_config({**SETTINGS, "seed": seed})
    rows = [row for world in worlds for row in rows_for(world, style, rng)]
    rng.shuffle(rows)
    result = train_with(base, rows, config, name=style, card=card)
    print(f"{style}: loss {result.first_loss:.3f} to {result.best_loss:.4f}", flush=True)
    return result.adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", default="starter")
    parser.add_argument("--out", type=Path, default=Path("src/detour/starter/adapters"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", nargs="*", help="styles to make; others are kept as they are")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    base = Base.load(options.base)
    worlds = [World.load(language) for language in LANGUAGES]
    names = options.only or list(worlds[0].styles)
    made = {style: train_style(base, worlds, style, options.seed) for style in names}
    kept = [n for n in worlds[0].styles if n not in made and (options.out / n).is_dir()]
    every = made | {name: Adapter.load(options.out / name) for name in kept}
    told = measured(base, worlds, every)
    for style, adapter in every.items():
        metrics = {"exact_alone": told["alone"][style]}
        adapter.with_(card=adapter.card.with_(metrics=metrics)).save(options.out / style)
    write_text_atomically(options.out / "figures.json", json.dumps(told, indent=2) + "\n")


def measured(
    base: Base, worlds: Sequence[World], adapters: Mapping[str, Adapter]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Every style alone, and every stack of three, in every language."""
    alone: dict[str, dict[str, Any]] = {style: {} for style in adapters}
    stacks: dict[str, dict[str, Any]] = {}
    for world in worlds:
        asked = held_out_questions(world, ALONE, seed=7)
        for style, adapter in adapters.items():
            figure = exact_rate(world, asked, answers_to(base, adapter, asked), [style])
            print(f"{style}, {world.language}: {figure}", flush=True)
            alone[style][world.language] = figure.to_json()
        for stack in trios(world, list(adapters)):
            stacks.setdefault("+".join(stack), {})[world.language] = stacked(
                base, world, [adapters[name] for name in stack], asked[:STACKED]
            )
    return {"alone": alone, "stacks": stacks}


def stacked(
    base: Base, world: World, adapters: Sequence[Adapter], asked: Sequence[Asked]
) -> dict[str, Any]:
    """What is left of a stack: everything right at once, and each style's marker."""
    names = [adapter.name for adapter in adapters]
    answers = answers_to(base, Chain.of(*adapters), asked)
    whole = exact_rate(world, asked, answers, names)
    each = marker_rates(world, asked, answers, names)
    told = {name: round(figure.value, 2) for name, figure in each.items()}
    print(" + ".join(names), world.language, whole, told, flush=True)
    return {
        "exact": whole.to_json(),
        "markers": {name: figure.to_json() for name, figure in each.items()},
    }


def trios(world: World, names: list[str]) -> list[list[str]]:
    """All stacks of one wording, one opening and one ending."""
    by_place = {p: [n for n in names if world.styles[n].place == p] for p in PLACES}
    three = product(by_place["wording"], by_place["opening"], by_place["ending"])
    return [list(stack) for stack in three]


if __name__ == "__main__":
    main()
