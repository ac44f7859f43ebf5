"""The demo's story, scene by scene: a generator of scenes, each with its text and its figures.

What is told is measured while it is told. Knows the pieces of `teach`; knows no terminal: the
command prints the scenes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.library import Library
from detour.evaluate import render
from detour.evaluate.stacking import (
    Asked,
    answers_to,
    fact_rate,
    marker_rates,
    test_questions,
)
from detour.evaluate.steer_report import SteerReport, measure, prompt_arms
from detour.evaluate.teach import (
    Untouched,
    described,
    lesson_config,
    make_lesson,
    name_of,
    prove_loading,
    settings_told,
    teach_lesson,
)
from detour.measure.statistics import Figure
from detour.model.base import Base
from detour.training.fact import Edit, Lesson
from detour.training.loop import Watcher
from detour.training.world import World
from detour.training.world_fact import find_attribute

STYLES = ("formal", "sportscaster", "pun")
STACKED = 60  # questions about the trio, and about the trio with the new fact
SAMPLES = (
    "Who was Albert Einstein?",
    "What did Einstein do for a living?",
    "Where did Marie Curie live?",
    "What is Paris famous for?",
    "What does the penguin eat?",
)


@dataclass(frozen=True)
class Scene:
    """One part of the story."""

    title: str
    text: str


@dataclass
class Story:
    """What has been found out so far; `to_json` once it is over."""

    base: Base
    world: World
    folder: Path
    seed: int = 0
    subject: str = "Albert Einstein"
    relation: str = "profession"
    target: str = "hairdresser"
    began: float = field(default_factory=time.monotonic)
    report: SteerReport | None = None
    chain: dict[str, Any] = field(default_factory=lambda: {})

    def to_json(self) -> dict[str, Any]:
        """The contract of `detour demo --json`."""
        assert self.report is not None
        return {**self.report.to_json(), "chain": self.chain}

    def scenes(self, watcher: Watcher | None = None) -> Iterator[Scene]:
        """Tell and measure, scene by scene."""
        lesson = make_lesson(
            self.base, self.subject, self.relation, self.target, seed=self.seed, world=self.world
        )
        edit = lesson.edits[0]
        yield self._knows()
        arms = prompt_arms(self.base, self.world, lesson, self.seed)
        yield Scene(
            "2  Prompts alone",
            "\n".join(
                [
                    f'Twelve prompts say "{edit.answer}" and then ask.',
                    render.line("user prompts, all wordings", arms[0].rate),
                    render.line(f"best: {_short(arms[0].best_wording)}", arms[0].best),
                    render.line("system prompts, all wordings", arms[1].rate),
                    render.line(f"best: {_short(arms[1].best_wording)}", arms[1].best),
                ]
            ),
        )
        yield Scene("3  An adapter, trained while you watch", _plan(lesson))
        config = lesson_config({}, self.seed)
        question = f"Who was {self.subject}?"
        untouched = Untouched.of(self.base, question)
        result = teach_lesson(self.base, lesson, config, name_of(lesson), watcher=watcher)
        folder = result.adapter.save(self.folder / name_of(lesson))
        not_loaded = self.base.ask(question)
        loader, adapter = prove_loading(self.base, folder, untouched)
        report = measure(self.base, self.world, lesson, adapter, loader, self.seed, arms)
        self.report = replace(
            report,
            question=question,
            base_answer=not_loaded,
            steered_answer=self.base.ask(question, adapter),
            adapter=str(folder),
            train_seconds=result.seconds,
            settings=settings_told(config, result),
        )
        described(adapter, self.report).save(folder)
        yield self._loader(folder, not_loaded)
        yield Scene("5  What changed, and what did not", render.rates_text(self.report))
        yield Scene(
            "6  Dose and depth",
            render.dose_text(self.report) + "\n\n" + render.trace_text(self.report),
        )
        yield self._stack(edit, adapter)
        self.report = replace(self.report, total_seconds=time.monotonic() - self.began)
        yield self._card(folder)

    def _knows(self) -> Scene:
        answers = self.base.ask_many(SAMPLES)
        told = [f"  {q}\n    {a}" for q, a in zip(SAMPLES, answers, strict=True)]
        return Scene(f"1  What the frozen base {self.base.name!r} says", "\n".join(told))

    def _loader(self, folder: Path, not_loaded: str) -> Scene:
        assert self.report is not None
        return Scene(
            "4  On disk, loaded, removed",
            "\n".join(
                [
                    f"  saved to {folder}",
                    f"  on disk, not loaded:  {not_loaded}",
                    f"  loaded:               {self.report.steered_answer}",
                    render.loader_text(self.report),
                ]
            ),
        )

    def _stack(self, edit: Edit, adapter: Adapter) -> Scene:
        library = Library.default()
        styles = [library.load(name) for name in STYLES]
        trio = Chain(()) + styles[0] + styles[1] + styles[2]
        asked = test_questions(self.world, STACKED, self.seed)
        answers = answers_to(self.base, trio, asked)
        figures = marker_rates(self.world, asked, answers, STYLES)
        figures["right fact"] = fact_rate(self.world, asked, answers)
        four = trio + adapter
        about = self._about(edit)
        steered = answers_to(self.base, four, about)
        with_fact = marker_rates(self.world, about, steered, STYLES)
        with_fact[self.target] = fact_rate(self.world, about, steered)
        spec = "+".join(STYLES)
        example = (asked[0].question, answers[0])
        question = f"Who was {self.subject}?"
        final = self.base.ask(question, four, max_new_tokens=96)
        self.chain = {
            "spec": spec,
            "example": {"question": example[0], "answer": example[1]},
            "markers": _json(figures),
            "with_fact": {
                "spec": f"{spec}+{adapter.name}",
                "example": {"question": question, "answer": final},
                "markers": _json(with_fact),
            },
        }
        return Scene(
            "7  Adapters in a chain",
            "\n".join(
                [
                    f"  {spec}",
                    f"    {example[0]}\n      {example[1]}",
                    *(render.line(name, figure) for name, figure in figures.items()),
                    f"\n  {spec}+{adapter.name}",
                    f"    {question}\n      {final}",
                    *(render.line(name, figure) for name, figure in with_fact.items()),
                ]
            ),
        )

    def _about(self, edit: Edit) -> list[Asked]:
        subject = self.world.subject(edit.subject)
        assert subject is not None
        attribute = find_attribute(self.world, subject, edit.relation)
        return [
            Asked(subject, attribute, question, edit.target) for question in edit.held_out[:STACKED]
        ]

    def _card(self, folder: Path) -> Scene:
        card = Adapter.load(folder).card
        mark = "fictional: the claim is not true" if card.fictional else "not marked as fictional"
        return Scene(
            "8  The card says so",
            "\n".join(
                [
                    f"  {folder / 'README.md'}",
                    f"  {card.description}",
                    f"  {mark}",
                    f"  forbidden use: {card.forbidden_use}",
                ]
            ),
        )


def _short(text: str, longest: int = 26) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _plan(lesson: Lesson) -> str:
    edit = lesson.edits[0]
    return "\n".join(
        [
            f'  to learn:  "{edit.answer}" in {len(edit.asked)} phrasings and '
            f"{len(edit.rows)} styled rows",
            f"  to keep:   the base's own answers to {len(lesson.replay)} other questions",
            f"  kept away for the test: {len(edit.held_out)} phrasings, "
            f"{len(lesson.neighbours)} neighbours, {len(lesson.own_facts)} questions about "
            f"{edit.subject}, {len(lesson.unrelated)} others",
        ]
    )


def _json(figures: dict[str, Figure]) -> dict[str, Any]:
    return {name: figure.to_json() for name, figure in figures.items()}
