"""Measure the pretrained starter and put it into the package, with its card.

    python -m recipes.starter.publish --model work/starter/model

Weights are rounded to bf16 first, beside the model; measured is what ships, and nothing ships that
misses a required bar. Every bar is greedy, exact (the answer
equals the world's own), on phrasings drawn with a fixed seed, with its Wilson interval.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from detour.files import replace_folder_atomically, write_text_atomically
from detour.measure.statistics import Figure, rate
from detour.model.base import Base
from detour.training import phrasing
from detour.training.phrasing import Novelty, Template
from detour.training.world import World
from recipes.starter.pretrain import Recipe, data_sha256
from recipes.starter.rows import SHARES, Writer, held_out_pair, system, user

Case = tuple[list[dict[str, str]], str]  # messages, the right answer
Card = dict[str, Any]
PACKAGE = Path("src/detour/starter/weights")
REQUIRED = {"facts, held-out phrasings": 0.97, "styles, held-out requests": 0.80}


class Bars:
    """The starter's examination: cases by bar, drawn with a fixed seed."""

    def __init__(self, world: World, count: int) -> None:
        self.world = world
        self.count = count
        self.facts = [(s, a) for s in world.subjects for a in world.attributes_of(s.kind)]
        self.rng = random.Random(2026)
        self.writer = Writer(world)

    def questions(self, *wanted: Novelty) -> list[Case]:
        found: list[Case] = []
        while len(found) < self.count:
            s, a = self.rng.choice(self.facts)
            asked = self.rng.choice(phrasing.templates(self.world, a, *wanted))
            text = asked.fill(self.rng.choice(s.forms))
            found.append(([user(text)], self.world.answer(s, a, s.values[a.name])))
        return found

    def blind(self) -> list[Case]:
        """Phrasings written after the training was over; none where the world has none."""
        asked = [
            (s, a, text)
            for s, a in self.facts
            for text in self.world.blind.get((a.kind, a.name), ())
        ]
        found: list[Case] = []
        for s, a, text in self.rng.choices(asked, k=self.count) if asked else ():
            question = Template(text, Novelty.NEW_WORDS).fill(self.rng.choice(s.forms))
            found.append(([user(question)], self.world.answer(s, a, s.values[a.name])))
        return found

    def styled(self, style: str, count: int, held_out: bool) -> list[Case]:
        """One style asked for in words; the question's own phrasing is a seen one.

        Held out is the request's wording, or the frame around it.
        """
        found: list[Case] = []
        while len(found) < count:
            s, a = self.rng.choice(self.facts)
            asked = self.rng.choice(phrasing.templates(self.world, a, Novelty.SEEN))
            new_request = held_out and self.rng.random() < 0.75
            new_frame = held_out and not new_request
            how = self.rng.choice(phrasing.style_requests(self.world, style, new_request))
            frame = self.rng.choice(
                phrasing.styled_frames(self.world, "styled_question", new_frame)
            )
            text = frame.format(q=asked.fill(self.rng.choice(s.forms)), how=how)
            found.append(([user(text)], self.world.answer(s, a, s.values[a.name], [style])))
        return found

    def tasks(self, styled: bool, *wanted: Novelty) -> list[Case]:
        """The task in the system turn, the bare subject in the user turn.

        With `styled`, only (attribute, style) pairs that never met in this form.
        """
        found: list[Case] = []
        while len(found) < self.count:
            s, a = self.rng.choice(self.facts)
            told = self.rng.choice(phrasing.tasks(self.world, a, *wanted)).text
            styles: list[str] = []
            if styled:
                new = [n for n in self.world.styles if held_out_pair(a, n)]
                if not new:
                    continue
                styles = [self.rng.choice(new)]
                frame = self.rng.choice(phrasing.styled_frames(self.world, "styled_system"))
                how = self.rng.choice(phrasing.style_requests(self.world, styles[0]))
                told = f"{told} {frame.format(how=how)}"
            messages = [system(told), user(self.rng.choice(s.bare))]
            found.append((messages, self.world.answer(s, a, s.values[a.name], styles)))
        return found

    def notes(self, place: str) -> list[Case]:
        """A changed value told in the prompt, in the wordings of pretraining; it should win."""
        found: list[Case] = []
        while len(found) < self.count:
            s, a = self.rng.choice(self.facts)
            value = self.rng.choice([v for v in self.world.values(a) if v != s.values[a.name]])
            frame = self.rng.choice(phrasing.note_frames(self.world))
            told = frame.format(statement=self.world.statement(s, a, value))
            asked = self.rng.choice(phrasing.templates(self.world, a, Novelty.SEEN))
            text = asked.fill(self.rng.choice(s.forms))
            messages = [system(told), user(text)] if place == "system" else [user(f"{told} {text}")]
            found.append((messages, self.world.answer(s, a, value)))
        return found

    def strangers(self) -> list[Case]:
        rows = [self.writer.unknown(self.rng) for _ in range(self.count)]
        return [([dict(row.messages[0])], row.messages[1]["content"]) for row in rows]


def exact(base: Base, cases: Sequence[Case]) -> Figure:
    answers = base.ask_many([messages for messages, _ in cases], max_new_tokens=96)
    return rate(answer == right for answer, (_, right) in zip(answers, cases, strict=True))


def measure(base: Base, world: World, count: int) -> dict[str, Figure]:
    bars = Bars(world, count)
    held = (Novelty.NEW_COMBINATION, Novelty.NEW_WORDS)
    drawn: dict[str, Callable[[], list[Case]]] = {
        "facts, seen phrasings": lambda: bars.questions(Novelty.SEEN),
        "facts, held-out phrasings": lambda: bars.questions(*held),
        "facts, new combinations of seen parts": lambda: bars.questions(held[0]),
        "facts, phrasings with new words": lambda: bars.questions(held[1]),
        "tasks with a bare subject, seen": lambda: bars.tasks(False, Novelty.SEEN),
        "tasks with a bare subject, held-out phrasings": lambda: bars.tasks(False, *held),
        "tasks, held-out (attribute, style) pairs": lambda: bars.tasks(True, Novelty.SEEN),
        "changed value in the system turn is followed": lambda: bars.notes("system"),
        "changed value in the user turn is followed": lambda: bars.notes("user"),
        "made-up names are not known": bars.strangers,
    }
    figures: dict[str, Figure] = {}
    for name, draw in drawn.items():
        figures[name] = exact(base, draw())
        print(f"{name}: {figures[name]}", flush=True)
    styles = list(world.styles)
    for held_out, told in ((False, "seen"), (True, "held-out")):
        each = {s: bars.styled(s, count // len(styles), held_out) for s in styles}
        name = f"styles, {told} requests"
        figures[name] = exact(base, [case for cases in each.values() for case in cases])
        print(f"{name}: {figures[name]}", flush=True)
        if held_out:
            for style, cases in each.items():
                figures[f"style {style}, held-out requests"] = exact(base, cases)
                print(f"  {style}: {figures[f'style {style}, held-out requests']}", flush=True)
    if blind := bars.blind():  # drawn last: the draws of the other bars stay as they were
        name = "facts, phrasings written after the training was over"
        figures[name] = exact(base, blind)
        print(f"{name}: {figures[name]}", flush=True)
    return figures


def missed(figures: Mapping[str, Figure]) -> list[str]:
    """The required bars that these figures miss, in words."""
    return [
        f"{name}: {figures[name].value:.3f} of at least {bar}"
        for name, bar in REQUIRED.items()
        if figures[name].value < bar
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("work/starter/model"))
    parser.add_argument("--package", type=Path, default=PACKAGE, help="where it is put")
    parser.add_argument("--count", type=int, default=600, help="questions a bar")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    release = options.model.parent / "release"
    rounded(options.model, release)
    base = Base.load(str(release))
    figures = measure(base, World.load(), options.count)
    card = card_of(base, options.model, release, figures)
    write_text_atomically(release / "card.json", json.dumps(card, indent=2) + "\n")
    if too_low := missed(figures):
        raise SystemExit(f"nothing was published; what was measured lies in {release}; missed are "
                         + "; ".join(too_low))  # fmt: skip
    replace_folder_atomically(
        options.package, lambda target: shutil.copytree(release, target, dirs_exist_ok=True)
    )


def card_of(base: Base, model: Path, release: Path, figures: Mapping[str, Figure]) -> Card:
    recipe = Recipe()
    log = [json.loads(line) for line in _lines(model.parent / "log.jsonl")]
    return {
        "name": "starter",
        "licence": "apache-2.0",
        "parameters": sum(p.numel() for p in base.model.parameters()),
        "recipe": {**asdict(recipe), "row_shares": SHARES},
        "trained_on_sha256": trained_on(model.parent / "checkpoint.pt"),
        "measured_on_sha256": data_sha256(),
        "padded_tokens": recipe.total * recipe.tokens_per_batch,
        "last_training_loss": log[-1]["loss"],
        "training_minutes": round(sum(stretches(log)) / 60, 1),
        "bytes": (release / "model.safetensors").stat().st_size,
        "sha256": {
            path.name: sha256(path.read_bytes()).hexdigest()
            for path in sorted(release.iterdir())
            if path.name != "card.json"
        },
        "figures": {name: figure.to_json() for name, figure in figures.items()},
    }


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def trained_on(checkpoint: Path) -> str | None:
    """`data_sha256` of the pretraining; None where its checkpoint does not say, or is gone."""
    if not checkpoint.exists():
        return None
    return torch.load(checkpoint, map_location="cpu", weights_only=True).get("data")


def stretches(log: Sequence[dict[str, float]]) -> list[float]:
    """The seconds of each uninterrupted stretch of the run: where its clock starts anew."""
    ends = [
        line["seconds"]
        for line, following in pairwise(log)
        if following["seconds"] < line["seconds"]
    ]
    return [*ends, log[-1]["seconds"]]


def rounded(model: Path, folder: Path) -> None:
    """The model in bf16 and its tokenizer, put there in one move."""

    def fill(target: Path) -> None:
        weights = LlamaForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        weights.save_pretrained(target)
        PreTrainedTokenizerFast.from_pretrained(model).save_pretrained(target)
        for path in target.iterdir():
            path.chmod(0o644)

    replace_folder_atomically(folder, fill)


if __name__ == "__main__":
    main()
