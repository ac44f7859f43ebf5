"""Measure the pretrained starter and put it into the package, with its card.

    python -m recipes.starter.publish --model work/starter/model

Weights are rounded to bf16 first, beside the model; measured is what ships. Nothing ships that
misses a required bar, unless the bar is named with `--short-of`: then the card says that it was
missed. Every bar is greedy, exact unless said otherwise (the answer equals the
right one), on cases drawn with a fixed seed, with its Wilson interval, language by language.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from detour.files import replace_folder_atomically, write_text_atomically
from detour.measure.statistics import Figure, rate
from detour.model.base import Base
from detour.training import phrasing
from detour.training.phrasing import Novelty, Template
from detour.training.world import LANGUAGES as WORLD_LANGUAGES
from detour.training.world import Attribute, World
from recipes.starter.cases import Case
from recipes.starter.mixture import PARTS, Mixture
from recipes.starter.pretrain import data_sha256
from recipes.starter.reading import Reading, filled, load
from recipes.starter.rows import Message, Row, Writer, held_out_pair, made_up_name, system, user
from recipes.starter.support import LANGUAGES

Card = dict[str, Any]
Figures = dict[str, dict[str, Figure]]  # bar -> language -> figure
BLIND = Path(__file__).with_name("blind.yaml")
PACKAGE = Path("src/detour/starter/weights")
LONGEST = 160  # tokens of an answer: two quoted sentences
SEED = 2026
REQUIRED = {
    "facts, held-out phrasings": 0.97,
    "styles, held-out requests": 0.85,
    "tasks, held-out (attribute, style) pairs": 0.95,
    "citing the right source": 0.90,
    "abstaining": 0.90,
    "support, held-out phrasings": 0.90,
    "support, in the right language": 0.98,
}
# the first is required to beat the second beyond chance
FEW_SHOT, ZERO_SHOT = "few-shot, made-up labels", "zero-shot, made-up labels"
_BEGINS = r"(?:^|\n|\] |: |:L\d+-L\d+ )"  # what stands before a sentence of a source
HELD_OUT = (Novelty.NEW_COMBINATION, Novelty.NEW_WORDS)


class Bars:
    """What the starter is asked about its world in one language, drawn with a fixed seed."""

    def __init__(self, writer: Writer, count: int) -> None:
        self.writer = writer
        self.world = writer.world
        self.count = count
        self.facts = writer.facts
        self.rng = random.Random(SEED)

    def _case(self, messages: list[dict[str, str]], right: str) -> Case:
        return Case(messages, right, self.world.language)

    def questions(self, *wanted: Novelty) -> list[Case]:
        found: list[Case] = []
        while len(found) < self.count:
            s, a = self.rng.choice(self.facts)
            asked = self.rng.choice(phrasing.templates(self.world, a, *wanted))
            text = asked.fill(self.rng.choice(s.forms))
            found.append(self._case([user(text)], self.world.answer(s, a, s.values[a.name])))
        return found

    def blind(self) -> list[Case]:
        """Phrasings that chose nothing and that no list of training or examination holds.

        None where the world has none.
        """
        asked = [(s, a, text) for s, a in self.facts for text in blind_texts(self.world, a)]
        found: list[Case] = []
        for s, a, text in self.rng.choices(asked, k=self.count) if asked else ():
            question = Template(text, Novelty.NEW_WORDS).fill(self.rng.choice(s.forms))
            found.append(self._case([user(question)], self.world.answer(s, a, s.values[a.name])))
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
            right = self.world.answer(s, a, s.values[a.name], [style])
            found.append(self._case([user(text)], right))
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
            right = self.world.answer(s, a, s.values[a.name], styles)
            found.append(self._case(messages, right))
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
            found.append(self._case(messages, self.world.answer(s, a, value)))
        return found

    def strangers(self) -> list[Case]:
        """Questions about names that nobody bears."""
        return [self._read(self.writer.unknown(self.rng)) for _ in range(self.count)]

    def abroad(self) -> list[Case]:
        """Asked for the answer in the other language."""
        return [self._read(self.writer.sorts["translated"](self.rng)) for _ in range(self.count)]

    def _read(self, row: Row) -> Case:
        *asked, answer = row.messages
        return self._case([dict(turn) for turn in asked], answer["content"])


def blind_texts(world: World, a: Attribute) -> list[str]:
    """The blind phrasings of an attribute that are in no other list of it."""
    known = {t.text.casefold() for t in phrasing.templates(world, a, *Novelty)}
    return [t for t in world.blind.get((a.kind, a.name), ()) if t.casefold() not in known]


@dataclass(frozen=True)
class Bar:
    """One examination of the starter."""

    name: str
    cases: Sequence[Case]


def bars(mixture: Mixture, count: int) -> list[Bar]:
    """Every examination, `count` cases a language."""
    found: list[Bar] = []
    for writer in mixture.writers.values():
        found += world_bars(writer, count)
    for source in (mixture.support, mixture.reading, mixture.examples):
        for name, known in source.bars.items():
            languages = len(known) if isinstance(known, tuple) else len(mixture.writers)
            cases = source.cases(name, count * languages, random.Random(SEED))
            told = "support, held-out phrasings" if name == "support" else name
            found.append(Bar(told, cases))
    blind = blind_reading(mixture)
    for name in ("citing", "abstaining"):
        cases = blind.cases(name, count * len(mixture.writers), random.Random(SEED))
        found.append(Bar(f"{name}, blind phrasings", cases))
    return found


def blind_reading(mixture: Mixture) -> Reading:
    """Reading that examines with the questions of `blind.yaml` alone."""
    reading = Reading({c: w.world for c, w in mixture.writers.items()}, mixture.support)
    asked = yaml.safe_load(BLIND.read_text("utf-8"))
    kinds = load()["kinds"]
    for code in mixture.writers:
        phrases = reading.languages[code].phrases
        for kind, relation in list(phrases):
            texts = [filled(text, kinds[kind][code]) for text in asked[relation][code]]
            known = phrases[kind, relation]
            phrases[kind, relation] = replace(known, combined=(), new_words=tuple(texts))
    return reading


def world_bars(writer: Writer, count: int) -> list[Bar]:
    """The examinations about the world in one language."""
    drawn = Bars(writer, count)
    styles = list(writer.world.styles)
    found = [
        Bar("facts, seen phrasings", drawn.questions(Novelty.SEEN)),
        Bar("facts, held-out phrasings", drawn.questions(*HELD_OUT)),
        Bar("facts, new combinations of seen parts", drawn.questions(HELD_OUT[0])),
        Bar("facts, phrasings with new words", drawn.questions(HELD_OUT[1])),
        Bar("facts, blind phrasings", drawn.blind()),
        Bar("tasks with a bare subject, seen", drawn.tasks(False, Novelty.SEEN)),
        Bar("tasks with a bare subject, held-out phrasings", drawn.tasks(False, *HELD_OUT)),
        Bar("tasks, held-out (attribute, style) pairs", drawn.tasks(True, Novelty.SEEN)),
        Bar("changed value in the system turn is followed", drawn.notes("system")),
        Bar("changed value in the user turn is followed", drawn.notes("user")),
        Bar("made-up names are not known", drawn.strangers()),
        Bar("answer in the other language", drawn.abroad()),
    ]
    for held_out, told in ((False, "seen"), (True, "held-out")):
        each = {name: drawn.styled(name, count // len(styles), held_out) for name in styles}
        whole = [case for cases in each.values() for case in cases]
        found.append(Bar(f"styles, {told} requests", whole))
        if held_out:
            found += [
                Bar(f"style {name}, held-out requests", cases) for name, cases in each.items()
            ]
    return found


def measure(base: Base, mixture: Mixture, count: int) -> Figures:
    """Every bar, language by language."""
    figures: Figures = {}
    for bar in bars(mixture, count):
        answers = base.ask_many([case.messages for case in bar.cases], max_new_tokens=LONGEST)
        passed = [case.passed(a) for case, a in zip(bar.cases, answers, strict=True)]
        _add(figures, bar.name, bar.cases, passed)
        if bar.name in ("citing", "citing, blind phrasings"):
            # that sentence and no other; here any of the right source
            right = [
                cites(a, case.right, case.messages)
                for case, a in zip(bar.cases, answers, strict=True)
            ]
            _add(figures, bar.name.replace("citing", "citing the right source"), bar.cases, right)
        if bar.name.startswith("support"):
            told = {language: _answers(mixture, language) for language in LANGUAGES}
            right = [a in told[c.language] for c, a in zip(bar.cases, answers, strict=True)]
            _add(figures, "support, in the right language", bar.cases, right)
    return figures


def cites(answer: str, right: str, messages: Sequence[Message]) -> bool:
    """Whether an answer is whole sentences of the right sources with their marks, no more."""
    quoted = re.findall(r"\S.*? \[S\d+\]", answer)
    shown = "\n".join(turn["content"] for turn in messages)
    sources, wanted = (set(re.findall(r"\[S\d+\]", text)) for text in (answer, right))
    whole = all(re.search(_BEGINS + re.escape(quote), shown) for quote in quoted)
    return whole and " ".join(quoted) == answer and sources == wanted


def _answers(mixture: Mixture, language: str) -> set[str]:
    """All that support ever answers in a language."""
    return {mixture.support.answer(language, topic) for topic in mixture.support.topics}


def _add(figures: Figures, name: str, cases: Sequence[Case], passed: Sequence[bool]) -> None:
    for language in dict.fromkeys(case.language for case in cases):
        mine = [p for case, p in zip(cases, passed, strict=True) if case.language == language]
        figures.setdefault(name, {})[language] = rate(mine)
        print(f"{name}, {language}: {figures[name][language]}", flush=True)


def missed(figures: Figures) -> dict[str, list[str]]:
    """The languages in which these figures miss a required bar, for each such bar."""
    low = {
        name: [language for language, figure in figures[name].items() if figure.value < bar]
        for name, bar in REQUIRED.items()
    }
    few, zero = figures[FEW_SHOT], figures[ZERO_SHOT]
    low[FEW_SHOT] = [language for language in few if few[language].low <= zero[language].high]
    return {name: languages for name, languages in low.items() if languages}


def strangers(mixture: Mixture, count: int = 40) -> list[str]:
    """Names that nobody in the starter's world bears: what it does not know."""
    rng = random.Random(SEED)
    world = mixture.writers["en"].world
    names = {made_up_name(rng) for _ in range(4 * count)}
    return sorted(name for name in names if world.subject(name) is None)[:count]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("work/starter/model"))
    parser.add_argument("--package", type=Path, default=PACKAGE, help="where it is put")
    parser.add_argument("--count", type=int, default=400, help="cases a bar and language")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--short-of", action="append", default=[], choices=[*REQUIRED, FEW_SHOT], metavar="BAR",
        help="publish although this required bar is missed; the card says so (may be repeated)",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    trained = training_of(options.model.parent / "checkpoint.pt")
    release = options.model.parent / "release"
    rounded(options.model, release)
    base = Base.load(str(release))
    mixture = Mixture()
    figures = measure(base, mixture, options.count)
    card = card_of(base, release, figures, trained, strangers(mixture))
    write_text_atomically(release / "card.json", json.dumps(card, indent=2) + "\n")
    if too_low := card["missed"].keys() - set(options.short_of):
        raise SystemExit(
            f"nothing was published; what was measured lies in {release}; missed are "
            + "; ".join(f"{name} ({', '.join(card['missed'][name])})" for name in sorted(too_low))
        )
    replace_folder_atomically(
        options.package, lambda target: shutil.copytree(release, target, dirs_exist_ok=True)
    )


def card_of(
    base: Base, release: Path, figures: Figures, trained: Card, unknown: Sequence[str]
) -> Card:
    """The card of one release: what it was made from, what it can do and does not know."""
    return {
        "name": "starter",
        "licence": "apache-2.0",
        "languages": list(WORLD_LANGUAGES),
        "support_languages": list(LANGUAGES),
        "parameters": sum(p.numel() for p in base.model.parameters()),
        **trained,
        "bytes": (release / "model.safetensors").stat().st_size,
        "sha256": {
            path.name: sha256(path.read_bytes()).hexdigest()
            for path in sorted(release.iterdir())
            if path.name != "card.json"
        },
        "bars": {
            name: {language: figure.to_json() for language, figure in each.items()}
            for name, each in figures.items()
        },
        "required": REQUIRED,
        "missed": missed(figures),
        "does_not_know": list(unknown),
    }


def _lines(path: Path) -> list[str]:
    return path.read_text("utf-8").splitlines()


def training_of(checkpoint: Path) -> Card:
    """How the model was made, as its checkpoint and the log beside it tell.

    Raises:
        SystemExit: it was made from other data than the bars would be measured on.
    """
    state = torch.load(checkpoint, map_location="cpu", weights_only=True)
    if state["data"] != data_sha256():
        raise SystemExit(
            f"{checkpoint} was made from other data ({state['data'][:12]}) than these "
            f"({data_sha256()[:12]}); publish it from the commit that it was made with"
        )
    recipe = json.loads(state["recipe"])
    log = [json.loads(line) for line in _lines(checkpoint.parent / "log.jsonl")]
    return {
        "recipe": {**recipe, "row_shares": PARTS},
        "data_sha256": state["data"],
        "padded_tokens": state["step"] * recipe["tokens_per_batch"],
        "last_training_loss": log[-1]["loss"],
        "training_minutes": round(seconds_of(log) / 60, 1),
    }


def seconds_of(log: Sequence[dict[str, float]]) -> float:
    """How long training took, in seconds on the clock, without the pauses of a halted process.

    The clock starts anew with every stretch. A line of the log tells of 50 steps, or of fewer
    where a stretch began in between; one that took over five times as long a step as most is
    counted like those.
    """
    begun = {"step": log[0]["step"] - 50, "seconds": 0.0}
    took: list[tuple[float, float]] = []  # steps, seconds
    for before, line in pairwise([begun, *log]):
        anew = line["seconds"] < before["seconds"]
        took.append(
            (line["step"] - before["step"], line["seconds"] - before["seconds"] * (not anew))
        )
    usual = median(seconds / steps for steps, seconds in took)
    return sum(usual * n if seconds > 5 * usual * n else seconds for n, seconds in took)


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
