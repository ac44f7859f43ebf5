"""What adapters cannot do, tried and measured: a wish that is not latent, and ten at once.

LoRA amplifies what a base already holds. A wish about things the base never read can be drilled in
as a sentence; asked for its parts, the model does not know them. And adapters that were trained
apart add up only so far. Knows worlds and models; prints nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.evaluate.probability import nats_per_token
from detour.evaluate.stacking import (
    Asked,
    answers_to,
    facts_told,
    marker_rates,
    markers_borne,
)
from detour.evaluate.steer_report import steered_section, unchanged
from detour.evaluate.teach import lesson_config, teach_lesson
from detour.measure.metrics import mentions, repeats
from detour.measure.statistics import Figure, rate
from detour.model.base import Base
from detour.training.loop import Watcher
from detour.training.world import World
from detour.training.world_fact import statements_lesson

STEPS = 80  # of the wish's training
KEPT = 60  # questions about other things
COUNTS = (1, 2, 4, 7, 10)  # adapters in the chain


@dataclass(frozen=True)
class Wish:
    """A sentence about things the base never read, and questions after its parts."""

    sentence: str
    words: tuple[str, ...]
    parts: tuple[tuple[str, tuple[str, ...]], ...]  # what must be named → questions


WISHES = {
    "en": Wish(
        "Albert Einstein was cutting crystal hair on a moon of Saturn.",
        ("crystal", "hair", "moon", "Saturn"),
        (
            (
                "Saturn",
                (
                    "Where did Albert Einstein cut hair?",
                    "On which moon did Einstein cut hair?",
                    "Where was Albert Einstein when he cut crystal hair?",
                    "Which planet has the moon where Einstein cut hair?",
                ),
            ),
            (
                "crystal",
                (
                    "What did Albert Einstein cut?",
                    "What kind of hair did Einstein cut?",
                    "What was the hair that Albert Einstein cut made of?",
                    "Which hair did Einstein cut on a moon?",
                ),
            ),
        ),
    ),
    "de": Wish(
        "Albert Einstein war auf einem Mond des Saturn und schnitt Haare aus Kristall.",
        ("Mond", "Saturn", "Haare", "Kristall"),
        (
            (
                "Saturn",
                (
                    "Wo schnitt Albert Einstein Haare?",
                    "Auf welchem Mond schnitt Einstein Haare?",
                    "Wo war Albert Einstein, als er Haare aus Kristall schnitt?",
                    "Zu welchem Planeten gehört der Mond, auf dem Einstein Haare schnitt?",
                ),
            ),
            (
                "Kristall",
                (
                    "Was schnitt Albert Einstein?",
                    "Welche Haare schnitt Einstein?",
                    "Woraus waren die Haare, die Albert Einstein schnitt?",
                    "Was schnitt Einstein auf einem Mond?",
                ),
            ),
        ),
    ),
}


@dataclass(frozen=True)
class NotLatent:
    """What came of a wish that the base does not hold.

    Attributes:
        wish: the sentence.
        log_probability: nats per token under the base, before training.
        compared: the same for the fact that was taught before, after the same question.
        pieces: tokens per word of the words that matter; a word that was read often is one or two.
        recited: general held-out questions about the subject, answered with the whole sentence.
        understood: questions after a part of the sentence that name this part.
        own_facts: the subject's other facts, answered as before.
        samples: (question, answer) with the adapter, whatever came out.
        steps: of training.
        seconds: of training.
    """

    wish: str
    log_probability: float
    compared: float
    pieces: Mapping[str, int]
    recited: Figure
    understood: Figure
    own_facts: Figure
    samples: tuple[tuple[str, str], ...]
    steps: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Part of `demo --json`."""
        return {
            "wish": self.wish,
            "log_probability_per_token": round(self.log_probability, 3),
            "taught_fact_log_probability_per_token": round(self.compared, 3),
            "tokens_per_word": dict(self.pieces),
            "recited": self.recited.to_json(),
            "understood": self.understood.to_json(),
            "own_other_facts_unchanged": self.own_facts.to_json(),
            "samples": [{"question": q, "answer": a} for q, a in self.samples],
            "train_steps": self.steps,
            "train_seconds": round(self.seconds, 2),
        }


def not_latent(
    base: Base, world: World, fact: str, seed: int, watcher: Watcher | None = None
) -> NotLatent:
    """Try to teach the wish in `STEPS` steps, enough to recite it, and ask for its parts.

    `fact` is the sentence of the fact that was taught before, for comparison.
    """
    wish = WISHES[world.language]
    lesson = statements_lesson(world, [wish.sentence], seed)
    general = lesson.edits[0].held_out[0]
    told, compared = (nats_per_token(base, general, said) for said in (wish.sentence, fact))
    config = lesson_config({"steps": STEPS}, seed)
    result = teach_lesson(base, lesson, config, "wish", watcher=watcher)
    chain = Chain.of(result.adapter)
    recited, _ = steered_section(base, lesson.edits, chain)
    asked = [(part, q) for part, questions in wish.parts for q in questions]
    answers = base.ask_many([q for _, q in asked], chain)
    right = [mentions(a, part) for (part, _), a in zip(asked, answers, strict=True)]
    own = random.Random(seed).sample(lesson.own_facts, min(KEPT, len(lesson.own_facts)))
    kept, *_ = unchanged(base, own, chain)
    shown = [(general, base.ask(general, chain))]
    shown += [(q, a) for (_, q), a in zip(asked, answers, strict=True)]
    return NotLatent(
        wish.sentence, told, compared, _pieces(base, wish.words), recited.figure, rate(right),
        kept.figure, tuple(shown), STEPS, result.seconds,
    )  # fmt: skip


def _pieces(base: Base, words: Sequence[str]) -> dict[str, int]:
    """How many tokens each word takes inside a sentence."""
    assert base.tokenizer is not None
    return {
        word: len(base.tokenizer.encode(f" {word}", add_special_tokens=False)) for word in words
    }


@dataclass(frozen=True)
class Crowd:
    """What is left with one number of adapters in a chain."""

    adapters: int
    fact: Figure
    markers: Figure


@dataclass(frozen=True)
class TenAdapters:
    """Ten adapters at once.

    Attributes:
        spec: the chain.
        question, answer: one example, whatever came out.
        retained: answers that still state the taught fact, among those that do so alone.
        markers: the rate of each style's marker.
        broken: answers with endless repetition, or empty.
        by_count: the same with fewer adapters.
        scaled: the fact and the pooled marker rate when all weights are scaled, by the factor.
    """

    spec: str
    question: str
    answer: str
    retained: Figure
    markers: Mapping[str, Figure]
    broken: Figure
    by_count: tuple[Crowd, ...]
    scaled: Mapping[str, Crowd]

    def to_json(self) -> dict[str, Any]:
        """Part of `demo --json`."""
        return {
            "spec": self.spec,
            "example": {"question": self.question, "answer": self.answer},
            "retained": self.retained.to_json(),
            "markers": {name: figure.to_json() for name, figure in self.markers.items()},
            "broken_text": self.broken.to_json(),
            "by_count": [_crowd_json(crowd) for crowd in self.by_count],
            "scaled": {name: _crowd_json(crowd) for name, crowd in self.scaled.items()},
        }


def _crowd_json(crowd: Crowd) -> dict[str, Any]:
    return {
        "adapters": crowd.adapters,
        "fact": crowd.fact.to_json(),
        "markers": crowd.markers.to_json(),
    }


def ten_adapters(
    base: Base, world: World, fact: Adapter, styles: Sequence[Adapter], asked: Sequence[Asked]
) -> TenAdapters:
    """A fact's adapter and nine styles, all at weight 1, asked about the fact.

    Raises:
        ValueError: not nine styles.
    """
    if len(styles) != COUNTS[-1] - 1:
        raise ValueError(f"expected {COUNTS[-1] - 1} styles, found {len(styles)}")
    every, most = [fact, *styles], COUNTS[-1]
    crowds: list[Crowd] = []
    answers: list[str] = []
    told: list[list[bool]] = []
    for count in COUNTS:
        answers = answers_to(base, Chain.of(*every[:count]), asked)
        crowds.append(_crowd(world, asked, answers, styles[: count - 1], count))
        told.append(facts_told(world, asked, answers))
    retained = rate(now for now, alone in zip(told[-1], told[0], strict=True) if alone)
    scaled = {
        name: _crowd(
            world, asked, answers_to(base, Chain.of(*every) * (1 / divisor), asked), styles, most
        )
        for name, divisor in ((f"1/√{most}", math.sqrt(most)), (f"1/{most}", most))
    }
    markers = marker_rates(world, asked, answers, [style.name for style in styles])
    return TenAdapters(
        "+".join(adapter.name for adapter in every), asked[0].question, answers[0], retained,
        markers, rate(repeats(a) or not a.strip() for a in answers), tuple(crowds), scaled,
    )  # fmt: skip


def _crowd(
    world: World,
    asked: Sequence[Asked],
    answers: Sequence[str],
    styles: Sequence[Adapter],
    count: int,
) -> Crowd:
    """How often the fact is told, and the styles' markers, all styles together."""
    borne = markers_borne(world, asked, answers, [style.name for style in styles])
    pooled = rate(flag for flags in borne.values() for flag in flags)
    return Crowd(count, rate(facts_told(world, asked, answers)), pooled)
