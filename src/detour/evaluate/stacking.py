"""What is left of each style, and of the facts, when adapters are stacked.

Asked are subjects and phrasings that the style adapters were not trained on. Knows the world and
models; trains nothing.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from detour.evaluate.markers import carries, unwrapped
from detour.measure.metrics import mentions, states
from detour.measure.statistics import Figure, rate
from detour.model.base import AnyChain, Base
from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import Attribute, Subject, World

TEST_SHARE = 5  # every fifth subject is kept from the style adapters
LONGEST = 96  # tokens: an answer in capital letters is long


@dataclass(frozen=True)
class Asked:
    """One test question and what it is about; `value` is what a right answer names."""

    subject: Subject
    attribute: Attribute
    question: str
    value: str


def known_facts(world: World, tested: bool) -> list[tuple[Subject, Attribute]]:
    """All facts about the test subjects (every fifth), or about the others."""
    return [
        (s, a)
        for number, s in enumerate(world.subjects)
        if (number % TEST_SHARE == 0) is tested
        for a in world.attributes_of(s.kind)
    ]


def held_out_questions(world: World, count: int, seed: int) -> list[Asked]:
    """Held-out phrasings about test subjects."""
    rng = random.Random(seed)
    facts = known_facts(world, tested=True)
    found: list[Asked] = []
    for s, a in (rng.choice(facts) for _ in range(count)):
        held = phrasing.templates(world, a, Novelty.NEW_COMBINATION, Novelty.NEW_WORDS)
        question = rng.choice(held).fill(rng.choice(s.forms))
        found.append(Asked(s, a, question, s.values[a.name]))
    return found


def answers_to(base: Base, chain: AnyChain, asked: Sequence[Asked]) -> list[str]:
    """Greedy answers under a chain."""
    return base.ask_many([a.question for a in asked], chain, max_new_tokens=LONGEST)


def exact_rate(
    world: World, asked: Sequence[Asked], answers: Sequence[str], styles: Sequence[str]
) -> Figure:
    """Everything right in one answer: it equals the world's own answer in these styles."""
    return rate(
        answer == world.answer(a.subject, a.attribute, a.value, styles)
        for a, answer in zip(asked, answers, strict=True)
    )


def marker_rates(
    world: World, asked: Sequence[Asked], answers: Sequence[str], styles: Sequence[str]
) -> dict[str, Figure]:
    """The rate of each style's marker."""
    borne = markers_borne(world, asked, answers, styles)
    return {style: rate(flags) for style, flags in borne.items()}


def markers_borne(
    world: World, asked: Sequence[Asked], answers: Sequence[str], styles: Sequence[str]
) -> dict[str, list[bool]]:
    """Whether each answer bears each style's marker."""
    return {
        style: [
            carries(world, style, answer, a.subject, a.attribute, a.value)
            for a, answer in zip(asked, answers, strict=True)
        ]
        for style in styles
    }


def fact_rate(world: World, asked: Sequence[Asked], answers: Sequence[str]) -> Figure:
    """The rate of `facts_told`."""
    return rate(facts_told(world, asked, answers))


def facts_told(world: World, asked: Sequence[Asked], answers: Sequence[str]) -> list[bool]:
    """Whether each answer names the right subject and value, whatever the style."""
    return [
        states(unwrapped(answer, world.json_key), a.subject.name, a.value, _rivals(world, a))
        for a, answer in zip(asked, answers, strict=True)
    ]


def _rivals(world: World, asked: Asked) -> list[str]:
    """Other values of the attribute that are no words of the style's own sentences."""
    own = f"{asked.attribute.formal} {asked.attribute.pirate} {asked.attribute.pun}"
    return [v for v in world.values(asked.attribute) if not mentions(own, v)]
