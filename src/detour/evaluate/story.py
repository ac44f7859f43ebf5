"""The demo's story, scene by scene: a generator of scenes, each with its text and its figures.

What is told is measured while it is told. Knows the pieces of `teach`; knows no terminal: the
command prints the scenes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.adapter.library import Library
from detour.evaluate import render
from detour.evaluate.limits import NotLatent, TenAdapters, not_latent, ten_adapters
from detour.evaluate.sentence import STYLE, FromSentence, from_sentence
from detour.evaluate.stacking import (
    LONGEST,
    Asked,
    answers_to,
    fact_rate,
    held_out_questions,
    marker_rates,
)
from detour.evaluate.steer_report import SteerReport, measure, prompt_arms
from detour.evaluate.teach import (
    Untouched,
    card_sentences,
    described,
    lesson_config,
    make_lesson,
    name_of,
    prove_loading,
    settings_told,
    teach_lesson,
)
from detour.language.catalogue import Catalogue, Text
from detour.measure.statistics import Figure
from detour.model.base import Base
from detour.training.fact import Edit, Lesson
from detour.training.loop import Watcher
from detour.training.world import World, spoken
from detour.training.world_fact import find_attribute

STYLES = ("formal", "sportscaster", "pun")
# nine of the ten styles; a brief answer names no subject, so no fact could be read from it
CROWD = (*STYLES, "json", "storyteller", "pirate", "bullet", "upper", "polite")
STACKED = 60  # questions about the trio, and about the trio with the new fact
CROWDED = 30  # questions to ten adapters at once
SAMPLES = {
    "en": (
        "Who was Albert Einstein?",
        "What did Einstein do for a living?",
        "Where did Marie Curie live?",
        "What is Paris famous for?",
        "What does the penguin eat?",
    ),
    "de": (
        "Wer war Albert Einstein?",
        "Was machte Einstein beruflich?",
        "Wo lebte Marie Curie?",
        "Wofür ist Paris bekannt?",
        "Was frisst der Pinguin?",
    ),
}
TARGETS = {"en": "hairdresser", "de": "Friseur"}


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
    t: Catalogue = field(default_factory=Catalogue.load)
    began: float = field(default_factory=time.monotonic)
    report: SteerReport | None = None
    chain: dict[str, Any] = field(default_factory=lambda: {})
    sentence: FromSentence | None = None
    impossible: NotLatent | None = None
    crowd: TenAdapters | None = None
    styles: dict[str, Adapter] = field(default_factory=lambda: {})

    @property
    def train_seconds(self) -> float:
        """Of the fact and of the wish."""
        assert self.report is not None
        assert self.impossible is not None
        return self.report.train_seconds + self.impossible.seconds

    def to_json(self) -> dict[str, Any]:
        """The contract of `detour demo --json`."""
        assert self.report is not None
        assert self.impossible is not None
        assert self.crowd is not None
        assert self.sentence is not None
        return {
            **self.report.to_json(),
            "language": self.world.language,
            "chain": self.chain,
            "sentence": self.sentence.to_json(),
            "markers": self.chain["markers"],
            "limits": {
                "not_latent": self.impossible.to_json(),
                "ten_adapters": self.crowd.to_json(),
            },
        }

    def scenes(self, watcher: Watcher | None = None) -> Iterator[Scene]:
        """Tell and measure, scene by scene.

        Raises:
            WrongBase: the packaged styles are of another release than the base.
        """
        t = self.t
        self._load_styles()
        lesson = self._lesson()
        edit = lesson.edits[0]
        yield self._knows()
        arms = prompt_arms(self.base, self.world, lesson, self.seed)
        yield Scene(
            t("2  Prompts alone"),
            "\n".join(
                [
                    t('{count} prompts say "{answer}" and then ask.',
                      count=sum(len(arm.by_wording) for arm in arms), answer=edit.answer),
                    render.line(t("user prompts, all wordings"), arms[0].rate, t),
                    render.line(_best(arms[0].best_wording, t), arms[0].best, t),
                    render.line(t("system prompts, all wordings"), arms[1].rate, t),
                    render.line(_best(arms[1].best_wording, t), arms[1].best, t),
                ]
            ),
        )  # fmt: skip
        yield Scene(t("3  An adapter, trained while you watch"), _plan(lesson, t))
        config = lesson_config({}, self.seed)
        question = SAMPLES[self.world.language][0]
        untouched = Untouched.of(self.base, question)
        result = teach_lesson(self.base, lesson, config, name_of(lesson), watcher=watcher)
        folder = result.adapter.save(self.folder / name_of(lesson))
        not_loaded = self.base.ask(question)
        loader, adapter = prove_loading(self.base, folder, untouched)
        report = measure(self.base, self.world, lesson, adapter, loader, self.seed, arms)
        self.report = replace(
            report,
            here=replace(
                report.here,
                question=question,
                base_answer=not_loaded,
                steered_answer=self.base.ask(question, adapter),
            ),
            adapter=str(folder),
            train_seconds=result.seconds,
            settings=settings_told(config, result),
        )
        change = {"subject": edit.subject, "relation": edit.relation, "target": edit.target,
                  "seed": self.seed, "language": self.world.language}  # fmt: skip
        described(adapter, self.report, change, lesson).save(folder)
        yield self._loader(folder, not_loaded)
        rates = [render.rates_text(self.report, t), render.languages_text(self.report, t)]
        told = "\n\n".join(part for part in rates if part)
        yield Scene(t("5  What changed, and what did not"), told)
        drawn = [render.dose_text(self.report, t), "", render.trace_text(self.report, t)]
        yield Scene(t("6  Dose and depth"), "\n".join(drawn))
        yield self._stack(edit, adapter)
        yield self._one_sentence()
        yield self._impossible(edit, watcher)
        yield self._crowd(edit, adapter)
        self.report = replace(self.report, total_seconds=time.monotonic() - self.began)
        yield self._responsibility(folder, lesson)

    def _load_styles(self) -> None:
        """Those that ship; known to fit before any time is spent."""
        library = Library.packaged()
        self.styles = {name: library.load(name) for name in CROWD}
        for adapter in self.styles.values():
            self.base.bind(adapter)

    def _lesson(self) -> Lesson:
        """The story's fact; its example question is not trained."""
        language = self.world.language
        subject = self.world.subject("Albert Einstein", "person")
        assert subject is not None
        lesson = make_lesson(
            self.base, subject.name, "profession", TARGETS[language],
            seed=self.seed, world=self.world,
        )  # fmt: skip
        edit = lesson.edits[0]
        asked = tuple(q for q in edit.asked if q != SAMPLES[language][0])
        return replace(lesson, edits=(replace(edit, asked=asked),))

    def _knows(self) -> Scene:
        own = self.world.language
        asked = [
            q for each in sorted(spoken(), key=lambda x: x != own) for q in self._samples(each)
        ]
        answers = self.base.ask_many(asked)
        told = [f"  {q}\n    {a}" for q, a in zip(asked, answers, strict=True)]
        title = self.t("1  What the frozen base {name!r} says", name=self.base.name)
        return Scene(title, "\n".join(told))

    def _samples(self, language: str) -> tuple[str, ...]:
        """All in the story's own language, two in any other."""
        return SAMPLES[language] if language == self.world.language else SAMPLES[language][:2]

    def _loader(self, folder: Path, not_loaded: str) -> Scene:
        assert self.report is not None
        t = self.t
        return Scene(
            t("4  On disk, loaded, removed"),
            "\n".join(
                [
                    t("  saved to {folder}", folder=folder),
                    t("  on disk, not loaded:  {answer}", answer=not_loaded),
                    t("  loaded:               {answer}", answer=self.report.here.steered_answer),
                    render.loader_text(self.report, t),
                ]
            ),
        )

    def _stack(self, edit: Edit, adapter: Adapter) -> Scene:
        t = self.t
        trio = Chain.of(*(self.styles[name] for name in STYLES))
        asked = held_out_questions(self.world, STACKED, self.seed)
        answers = answers_to(self.base, trio, asked)
        figures = marker_rates(self.world, asked, answers, STYLES)
        fact = fact_rate(self.world, asked, answers)
        four = trio + adapter
        about = self._about(edit)[:STACKED]
        steered = answers_to(self.base, four, about)
        with_fact = marker_rates(self.world, about, steered, STYLES)
        new_fact = fact_rate(self.world, about, steered)
        spec = "+".join(STYLES)
        example = (asked[0].question, answers[0])
        question = SAMPLES[self.world.language][0]
        final = self.base.ask(question, four, max_new_tokens=LONGEST)
        self.chain = {
            "spec": spec,
            "example": {"question": example[0], "answer": example[1]},
            "markers": _json(figures),
            "fact": fact.to_json(),
            "with_fact": {
                "spec": f"{spec}+{adapter.name}",
                "example": {"question": question, "answer": final},
                "markers": _json(with_fact),
                "fact": new_fact.to_json(),
            },
        }
        return Scene(
            t("7  Adapters in a chain"),
            "\n".join(
                [
                    f"  {spec}",
                    f"    {example[0]}\n      {example[1]}",
                    *self._markers(figures),
                    render.line(t("right fact"), fact, t),
                    f"\n  {spec}+{adapter.name}",
                    f"    {question}\n      {final}",
                    *self._markers(with_fact),
                    render.line(edit.target, new_fact, t),
                ]
            ),
        )

    def _one_sentence(self) -> Scene:
        t = self.t
        question = SAMPLES[self.world.language][0]
        made = self.sentence = from_sentence(self.base, self.world, question, self.seed)
        made.adapter.save(self.folder / made.adapter.name)
        label = self.world.styles[STYLE].label
        return Scene(
            t("8  An adapter from one sentence"),
            "\n".join(
                [
                    f"  {made.sentence}",
                    t("  no training: {milliseconds:.0f} ms; understood as {names}, confidence "
                      "{confidence:.2f}", milliseconds=made.milliseconds,
                      names=" + ".join(made.understood), confidence=made.confidence),
                    f"    {made.question}\n      {made.answer}",
                    render.line(label, made.marker, t),
                    render.line(t("{style}, the base alone", style=label), made.without, t),
                    f"  {made.elsewhere}",
                    f"    {made.refusal}",
                ]
            ),
        )  # fmt: skip

    def _markers(self, figures: dict[str, Figure]) -> list[str]:
        """One line a style, by the name it has in the story's language."""
        styles = self.world.styles
        return [render.line(styles[n].label, figure, self.t) for n, figure in figures.items()]

    def _about(self, edit: Edit) -> list[Asked]:
        subject = self.world.subject(edit.subject)
        assert subject is not None
        attribute = find_attribute(self.world, subject, edit.relation)
        return [Asked(subject, attribute, question, edit.target) for question in edit.held_out]

    def _impossible(self, edit: Edit, watcher: Watcher | None) -> Scene:
        t = self.t
        tried = not_latent(self.base, self.world, edit.answer, self.seed, watcher)
        self.impossible = tried
        pieces = ", ".join(f"{word} {count}" for word, count in tried.pieces.items())
        return Scene(
            t("9  A limit: a wish that is not in the model"),
            "\n".join(
                [
                    f"  {tried.wish}",
                    t("  tokens a word (one or two where it was read often): {pieces}",
                      pieces=pieces),
                    t("  nats a token before training: {told:.1f}; the fact above: {compared:.1f}",
                      told=tried.log_probability, compared=tried.compared),
                    t("Trained all the same, {steps} steps. What comes out:",
                      steps=tried.steps),
                    *(f"    {q}\n      {a}" for q, a in tried.samples[:4]),
                    render.line(t("the sentence, recited"), tried.recited, t),
                    render.line(t("its parts, understood"), tried.understood, t),
                    render.line(t("the subject's other facts"), tried.own_facts, t),
                    t("An adapter opens an exit on a road that is there. It builds no new land."),
                ]
            ),
        )  # fmt: skip

    def _crowd(self, edit: Edit, adapter: Adapter) -> Scene:
        t = self.t
        styles = [self.styles[name] for name in CROWD]
        tried = ten_adapters(self.base, self.world, adapter, styles, self._about(edit)[:CROWDED])
        self.crowd = tried
        return Scene(
            t("10  A limit: ten adapters at once"),
            "\n".join(
                [
                    f"  {tried.spec}",
                    f"    {tried.question}\n      {tried.answer}",
                    render.line(t("the fact, of what one alone tells"), tried.retained, t),
                    render.line(t("endless repetition, or nothing"), tried.broken, t),
                    *(
                        line
                        for crowd in tried.by_count
                        for line in (
                            render.line(t("{count} adapters: fact", count=crowd.adapters),
                                        crowd.fact, t),
                            *([render.line(t("{count} adapters: styles", count=crowd.adapters),
                                           crowd.markers, t)] if crowd.markers.n else []),
                        )
                    ),
                    *(
                        render.line(t("all weights × {factor}: fact", factor=factor),
                                    crowd.fact, t)
                        for factor, crowd in tried.scaled.items()
                    ),
                    t("Several styles claim the same place of the answer: they fight."),
                ]
            ),
        )  # fmt: skip

    def _responsibility(self, folder: Path, lesson: Lesson) -> Scene:
        assert self.report is not None
        t = self.t
        card = Adapter.load(folder).card
        asked = [
            f"  [{'x' if answer else ' '}] {question:<44} {answer or t('open')}"
            for question, answer in approval(card, self.report, t, card_sentences(lesson))
        ]
        return Scene(
            t("11  Whose responsibility it is"),
            "\n".join(
                [
                    t("  The card: {path}", path=folder / "README.md"),
                    t("  What an approval would ask before anybody is served this:"),
                    *asked,
                ]
            ),
        )


def approval(
    card: Card, report: SteerReport, t: Catalogue, sentences: Sequence[Text] = ()
) -> list[tuple[str, str]]:
    """What an approval would ask of an adapter, and what its card and report answer.

    An empty answer is open: nobody has given it yet. What a card says in one of `sentences` is told
    in the catalogue's language.
    """
    known = {str(sentence): t.say(sentence) for sentence in sentences}
    steered, near = report.here.steered.figure, report.here.neighbours.figure
    return [
        (t("What does it claim?"), known.get(card.description, card.description)),
        (t("Is the claim true?"), t("no, and it is marked") if card.fictional else ""),
        (t("Under which licence?"), card.licence),
        (t("Trained on which data?"), card.data_sha256[:16]),
        (
            t("Does it do what it claims?"),
            t("{rate:.3f} of {n} held-out phrasings", rate=steered.value, n=steered.n),
        ),
        (
            t("What else does it change?"),
            t("{rate:.3f} of {n} neighbours unchanged", rate=near.value, n=near.n),
        ),
        (t("What is it for?"), known.get(card.intended_use, card.intended_use)),
        (
            t("What must it not be used for?"),
            known.get(card.forbidden_use, card.forbidden_use),
        ),
        (t("Who answers for it?"), ""),
        (t("Who else has checked it (four eyes)?"), ""),
        (t("Until when, and how is it withdrawn?"), ""),
    ]


def _best(wording: str, t: Catalogue, longest: int = 24) -> str:
    short = wording if len(wording) <= longest else wording[: longest - 1] + "…"
    return t("best: {wording}", wording=short)


def _plan(lesson: Lesson, t: Catalogue) -> str:
    edit = lesson.edits[0]
    every = lesson.in_all()
    sentences = " / ".join(t('"{told}"', told=each.edits[0].answer) for each in every)
    return "\n".join(
        [
            t(
                "  to learn:  {sentences} in {asked} phrasings and {rows} styled rows",
                sentences=sentences,
                asked=sum(len(each.edits[0].asked) for each in every),
                rows=sum(len(each.edits[0].rows) for each in every),
            ),
            t(
                "  to keep:   the base's own answers to {count} other questions",
                count=sum(len(each.replay) for each in every),
            ),
            t(
                "  kept away for the test: {held} phrasings, {near} neighbours, {own} questions "
                "about {subject}, {far} others",
                held=sum(len(each.edits[0].held_out) for each in every),
                near=sum(len(each.neighbours) for each in every),
                own=sum(len(each.own_facts) for each in every),
                subject=edit.subject,
                far=sum(len(each.unrelated) for each in every),
            ),
        ]
    )


def _json(figures: dict[str, Figure]) -> dict[str, Any]:
    return {name: figure.to_json() for name, figure in figures.items()}
