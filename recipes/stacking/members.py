"""The adapters that are stacked: changed facts and styles of the starter's world, and their rows.

A member says what it makes of an answer, so that the right answer under any chain of members is
known: the changed value, worded, opened, ended and laid out. Knows the world; trains nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from detour.evaluate.markers import carries, unwrapped
from detour.evaluate.stacking import Asked, held_out_questions, known_facts
from detour.measure.metrics import mentions, repeats, states
from detour.model.examples import pair
from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.together import Composed
from detour.training.world import Attribute, Subject, World
from detour.training.world_fact import world_edit

PLACES = ("wording", "opening", "ending", "layout")
FACTS, STYLES = 6, 4
STRENGTHS = (0.6, 1.0, 1.0)  # of company that acts
TESTS = 20  # questions of each member


@dataclass(frozen=True)
class Member:
    """One adapter: a changed fact, or a style."""

    name: str
    subject: Subject | None = None
    attribute: Attribute | None = None
    target: str = ""
    style: str = ""

    def changes(self, subject: Subject, attribute: Attribute) -> bool:
        """Whether it is this fact that it changes."""
        return self.subject == subject and self.attribute == attribute


Act = Mapping[str, float]


def drawn(world: World, seed: int, strangers: bool = False) -> list[Member]:
    """Ten members: six facts about six people and animals, and a style of every place.

    Strangers are ten others: no fact and no style is in both.
    """
    rng = random.Random(f"members/{seed}")
    known = [(s, a) for s, a in known_facts(world, tested=False) if s.kind == "person"]
    rng.shuffle(known)
    facts: list[Member] = []
    seen: set[str] = set()
    for subject, attribute in known:
        if subject.key in seen or len(facts) == 2 * FACTS:
            continue
        values = [v for v in world.values(attribute) if v != subject.values[attribute.name]]
        target = rng.choice(values)
        name = f"{subject.short.split()[-1]}-{attribute.name}".casefold()
        if name not in {member.name for member in facts}:
            seen.add(subject.key)
            facts.append(Member(name, subject, attribute, target))
    styles: list[tuple[Member, Member]] = []
    for place in PLACES:
        own = [n for n, style in world.styles.items() if style.place == place]
        one, other = rng.sample(own, 2)
        styles.append((Member(one, style=one), Member(other, style=other)))
    if strangers:
        return [*facts[FACTS:], *(other for _, other in styles)]
    return [*facts[:FACTS], *(one for one, _ in styles)]


def value_under(subject: Subject, attribute: Attribute, active: Sequence[Member]) -> str:
    """What the fact is where these act."""
    changed = [m.target for m in active if m.changes(subject, attribute)]
    return changed[0] if changed else subject.values[attribute.name]


def answer_under(
    world: World, subject: Subject, attribute: Attribute, active: Sequence[Member]
) -> str:
    """The right answer where these act."""
    value = value_under(subject, attribute, active)
    return world.answer(subject, attribute, value, [m.style for m in active if m.style])


def rows(
    world: World,
    focus: Member,
    others: Sequence[Member],
    count: int,
    seed: int,
    alone: float = 0.4,
) -> list[Composed]:
    """Rows on which a member acts, in `alone` of them without company.

    Else one to all of the others act too, no two styles at one place. Half of a fact's rows ask for
    it, a fifth of the others for a fact that company changes.
    """
    rng = random.Random(f"rows/{seed}/{focus.name}")
    known = known_facts(world, tested=False)
    found: list[Composed] = []
    for number in range(count):
        company = _company(world, focus, others, rng) if rng.random() >= alone else []
        active = [focus, *company]
        subject, attribute = _asked(focus, company, known, number, rng)
        seen = phrasing.templates(world, attribute, Novelty.SEEN)
        question = rng.choice(seen).fill(rng.choice(subject.forms))
        row = pair(question, answer_under(world, subject, attribute, active))
        weights = {member.name: rng.choice(STRENGTHS) for member in company}
        found.append(Composed(row, {focus.name: 1.0, **weights}))
    return found


def _company(
    world: World, focus: Member, others: Sequence[Member], rng: random.Random
) -> list[Member]:
    wanted = rng.sample(list(others), rng.randint(1, len(others))) if others else []
    taken = {world.styles[focus.style].place} if focus.style else set[str]()
    found: list[Member] = []
    for member in wanted:
        if member.style:
            place = world.styles[member.style].place
            if place in taken:
                continue
            taken.add(place)
        found.append(member)
    return found


def _asked(
    focus: Member,
    company: Sequence[Member],
    known: Sequence[tuple[Subject, Attribute]],
    number: int,
    rng: random.Random,
) -> tuple[Subject, Attribute]:
    changed = [focus] if focus.subject and number % 2 else []
    if not changed and rng.random() < 0.2:
        changed = [member for member in company if member.subject]
    if changed:
        one = rng.choice(changed)
        assert one.subject is not None
        assert one.attribute is not None
        return one.subject, one.attribute
    while True:
        subject, attribute = rng.choice(known)
        if not focus.changes(subject, attribute):
            return subject, attribute


def tests(world: World, member: Member, seed: int) -> list[Asked]:
    """Questions in phrasings that nothing was trained on; of a style about subjects as well."""
    if member.subject is None or member.attribute is None:
        return held_out_questions(world, TESTS, seed)
    edit = world_edit(world, member.subject, member.attribute, member.target, seed)
    return [
        Asked(member.subject, member.attribute, question, member.target)
        for question in edit.held_out[:TESTS]
    ]


def is_right(
    world: World, member: Member, active: Sequence[Member], asked: Asked, answer: str
) -> bool:
    """Strictly: whole text, the right subject and value and no rival, and of a style its mark.

    The subject need not be named where the style that leaves it out acts.
    """
    if not answer.strip() or repeats(answer):
        return False
    told, subject = unwrapped(answer, world.json_key), asked.subject.name
    if any(one.style == "brief" for one in active):
        told = f"{told} ({subject})"
    own = f"{asked.attribute.formal} {asked.attribute.pirate} {asked.attribute.pun}"
    rivals = [v for v in world.values(asked.attribute) if not mentions(own, v)]
    if not states(told, subject, asked.value, rivals):
        return False
    if not member.style:
        return True
    return carries(world, member.style, answer, asked.subject, asked.attribute, asked.value)


def all_right(world: World, active: Sequence[Member], asked: Asked, answer: str) -> bool:
    """Everything at once: the answer is, case and space aside, the one that should come."""
    wanted = answer_under(world, asked.subject, asked.attribute, active)
    return " ".join(answer.split()) == " ".join(wanted.split())
