"""Facts of the starter's world as lessons: phrasings, neighbours and replay are known here.

Replay subjects and test subjects are disjoint, trained phrasings are SEEN ones, test phrasings are
held out from the starter as well. Knows the world; knows no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from difflib import get_close_matches

from detour.errors import DataError
from detour.language.catalogue import text
from detour.training import phrasing
from detour.training.fact import (
    Edit,
    Lesson,
    Question,
    as_it_stands,
    parse_sentence,
    statement_edit,
)
from detour.training.formats import Example, pair
from detour.training.phrasing import Novelty
from detour.training.world import Attribute, Subject, World

HELD_OUT = (Novelty.NEW_COMBINATION, Novelty.NEW_WORDS)
ASKED = 48  # trained phrasings of an edit
STYLED = 14  # of them again in a style, so that the edit survives a styled question
TASKS = 6  # and as a bare subject with the task in the system turn
REPLAY_SUBJECTS = 60
CONTRASTS = 120  # questions about them in phrasings of the edit, two or more each
OWN = 6  # questions about each other fact of the subject
NEIGHBOURS = 320  # 0 faults in 300 bound a rate at 1 %
TESTED = 120  # held-out phrasings, own facts and unrelated questions: at most this many each


def find_attribute(world: World, subject: Subject, relation: str) -> Attribute:
    """The attribute that a relation names, by its name or one of its nouns.

    Raises:
        DataError: subjects of this kind have no such attribute.
    """
    wanted = relation.strip().casefold()
    known = world.attributes_of(subject.kind)
    for attribute in known:
        if wanted in (attribute.name, *map(phrasing.bare, attribute.nouns)):
            return attribute
    names = [attribute.name for attribute in known]
    close = get_close_matches(wanted, names, n=1)
    raise DataError(
        text(
            "the starter knows no relation {relation!r} of {subject}",
            relation=relation,
            subject=subject.name,
        ),
        expected=text("one of {names}", names=", ".join(names)),
        hint=text("did you mean {close!r}?", close=close[0])
        if close
        else text("teach a sentence with --statements"),
    )


def world_edit(
    world: World, subject: Subject, attribute: Attribute, target: str, seed: int
) -> Edit:
    """The change of one attribute of one subject, with its phrasings."""
    rng = random.Random(f"{seed}/{subject.name}/{attribute.name}")
    target = _bare_value(attribute, target)
    old = subject.values[attribute.name]
    if target.casefold() == old.casefold():
        raise DataError(
            text(
                "{subject}'s {attribute} is {old} already",
                subject=subject.name,
                attribute=attribute.name,
                old=old,
            ),
            hint=text("choose another target"),
        )
    seen = [q for q, _ in phrasing.questions(world, subject, attribute, Novelty.SEEN)]
    novelty = dict(phrasing.questions(world, subject, attribute, *HELD_OUT))
    held = list(novelty)
    seen = _without(seen, held)
    asked = rng.sample(seen, min(ASKED, len(seen)))
    values = world.values(attribute)
    others = [v for v in values if v not in (old, target)]
    third = "astronaut" if "astronaut" in others else rng.choice(others)

    def said(value: str) -> str:
        return world.answer(subject, attribute, value)

    return Edit(
        subject=subject.name,
        relation=attribute.name,
        target=target,
        answer=said(target),
        old=old,
        rivals=tuple(v for v in values if v != target),
        asked=tuple(asked),
        held_out=tuple(rng.sample(held, min(TESTED, len(held)))),
        rows=tuple(_styled_rows(world, subject, attribute, target, seen, rng)),
        third=third,
        new_words=frozenset(q for q, n in novelty.items() if n is Novelty.NEW_WORDS),
        old_answer=said(old),
        third_answer=said(third),
    )


def _bare_value(attribute: Attribute, target: str) -> str:
    """`a hairdresser` → `hairdresser` where the answer writes the article itself."""
    clean = " ".join(target.split())
    return re.sub(r"^(an?)\s+", "", clean) if "{av}" in attribute.plain else clean


def _without(questions: Sequence[str], others: Sequence[str]) -> list[str]:
    unwanted = set(others)
    return [q for q in dict.fromkeys(questions) if q not in unwanted]


def _styled_rows(
    world: World, s: Subject, a: Attribute, target: str, seen: Sequence[str], rng: random.Random
) -> list[Example]:
    rows: list[Example] = []
    for number in range(STYLED):
        style = list(world.styles)[number % len(world.styles)]
        how = rng.choice(phrasing.style_requests(world, style))
        frame = rng.choice(phrasing.styled_frames(world, "styled_question"))
        asked = frame.format(q=rng.choice(seen), how=how)
        rows.append(pair(asked, world.answer(s, a, target, [style])))
    tasks = phrasing.tasks(world, a, Novelty.SEEN)
    for task in rng.sample(tasks, min(TASKS, len(tasks))):
        rows.append(pair(rng.choice(s.bare), world.answer(s, a, target), system=task.text))
    return rows


def world_lesson(
    world: World, edits: Sequence[tuple[Subject, Attribute, str]], seed: int
) -> Lesson:
    """A lesson for one or several changes in the starter's world."""
    rng = random.Random(seed)
    made = tuple(world_edit(world, s, a, target, seed) for s, a, target in edits)
    changed = {(s.name, a.name) for s, a, _ in edits}
    subjects = list(dict.fromkeys(s for s, _, _ in edits))
    replay: list[Question] = []
    neighbours: list[Question] = []
    parted: dict[str, tuple[list[Subject], list[Subject]]] = {}
    for (s, a, _), edit in zip(edits, made, strict=True):
        if s.kind not in parted:  # once a kind: replayed for one edit, tested for none
            others = [o for o in world.of_kind(s.kind) if o not in subjects]
            parted[s.kind] = _parted(others, a, (edit.old, edit.target), rng)
        replayed, tested = parted[s.kind]
        replay += _replayed(world, a, edit, replayed, rng)
        neighbours += _asked_about(world, a, tested, NEIGHBOURS // len(edits), rng)
    own: list[Question] = []
    for subject in subjects:
        kept = [
            a for a in world.attributes_of(subject.kind) if (subject.name, a.name) not in changed
        ]
        for a in kept:
            replay += _questions(world, subject, a, OWN, rng, Novelty.SEEN)
            own += _questions(
                world, subject, a, TESTED // (len(kept) * len(subjects)), rng, *HELD_OUT
            )
    kinds = {s.kind for s in subjects}
    strangers = [s for s in world.subjects if s.kind not in kinds]
    rng.shuffle(strangers)
    cut = len(strangers) // 5
    for s in strangers[:cut]:
        replay += _questions(
            world, s, rng.choice(world.attributes_of(s.kind)), 1, rng, Novelty.SEEN
        )
    unrelated = [
        q
        for s in strangers[cut : cut + TESTED]
        for q in _questions(world, s, rng.choice(world.attributes_of(s.kind)), 1, rng, *HELD_OUT)
    ]
    return Lesson(
        made, _distinct(replay), _distinct(neighbours), _distinct(own), _distinct(unrelated)
    ).check()


def _distinct(questions: Sequence[Question]) -> tuple[Question, ...]:
    return tuple(dict.fromkeys(questions))


def _questions(
    world: World, s: Subject, a: Attribute, count: int, rng: random.Random, *novelty: Novelty
) -> list[Question]:
    found = [q for q, _ in phrasing.questions(world, s, a, *novelty)]
    return [("", q) for q in rng.sample(found, min(count, len(found)))]


def _asked_about(
    world: World, a: Attribute, subjects: Sequence[Subject], count: int, rng: random.Random
) -> list[Question]:
    """Held-out questions about these subjects in turn, `count` in all."""
    each = -(-count // len(subjects))
    found = [q for s in subjects for q in _questions(world, s, a, each, rng, *HELD_OUT)]
    rng.shuffle(found)
    return found[:count]


def _parted(
    others: Sequence[Subject], a: Attribute, values: Sequence[str], rng: random.Random
) -> tuple[list[Subject], list[Subject]]:
    """`(replay subjects, test subjects)`.

    Who shares the old or the new value is carried along most easily: two thirds of them are
    replayed, the others are left for the test.
    """
    shuffled = list(others)
    rng.shuffle(shuffled)
    near = [o for o in shuffled if o.values[a.name] in values]
    ordered = near[: len(near) * 2 // 3] + [o for o in shuffled if o not in near]
    replayed = ordered[: min(REPLAY_SUBJECTS, len(others) // 2)]
    return replayed, [o for o in shuffled if o not in replayed]


def _contrast(
    world: World, a: Attribute, edit: Edit, subjects: Sequence[Subject], rng: random.Random
) -> list[Question]:
    """The very phrasings that teach the edit, asked about others.

    Without them the phrasing is learned as the trigger, not the subject.
    """
    edited = world.subject(edit.subject, a.kind)
    assert edited is not None
    taught = set(edit.asked)
    seen = phrasing.templates(world, a, Novelty.SEEN)
    templates = [t for t in seen if any(t.fill(form) in taught for form in edited.forms)]
    rng.shuffle(templates)
    each = -(-CONTRASTS // len(subjects))
    return [
        ("", templates[(each * number + turn) % len(templates)].fill(rng.choice(s.forms)))
        for number, s in enumerate(subjects)
        for turn in range(each)
    ]


def _replayed(
    world: World, a: Attribute, edit: Edit | None, subjects: Sequence[Subject], rng: random.Random
) -> list[Question]:
    """Questions about replay subjects: each about the edited attribute.

    Every third subject also in a style, every fourth as a task, every fifth about something else.
    """
    found: list[Question] = _contrast(world, a, edit, subjects, rng) if edit else []
    for number, s in enumerate(subjects):
        if not edit:
            found += _questions(world, s, a, 1, rng, Novelty.SEEN)
        if number % 3 == 0:
            style = list(world.styles)[(number // 3) % len(world.styles)]
            how = rng.choice(phrasing.style_requests(world, style))
            frame = rng.choice(phrasing.styled_frames(world, "styled_question"))
            (_, asked), *_ = _questions(world, s, a, 1, rng, Novelty.SEEN)
            found.append(("", frame.format(q=asked, how=how)))
        if number % 4 == 0:
            task = rng.choice(phrasing.tasks(world, a, Novelty.SEEN))
            found.append((task.text, rng.choice(s.bare)))
        if number % 5 == 0:
            other = rng.choice(world.attributes_of(s.kind))
            found += _questions(world, s, other, 1, rng, Novelty.SEEN)
    return found


def read_statement(world: World, statement: str) -> tuple[Subject, Attribute, str] | None:
    """A statement about somebody in the world as (subject, attribute, value), or None.

    Every wording of the world is tried, whatever the tense ("is known for", "was known for").
    Where a wording fits two attributes ("lived in") the one that knows the value is taken.
    """
    clean = " ".join(statement.split()).rstrip(".!")
    found: list[tuple[Subject, Attribute, str]] = []
    for attribute in world.attributes.values():
        for template in (attribute.plain, attribute.formal, *attribute.statements):
            match = re.fullmatch(_pattern(template), clean)
            if match:
                subject = world.subject(match["S"], attribute.kind)
                if subject:
                    found.append((subject, attribute, match["v"]))
    return next((edit for edit in found if edit[2] in world.values(edit[1])), (found or [None])[0])


def _pattern(template: str) -> str:
    """A template as a regular expression; the verb may stand in any tense."""
    text = re.escape(phrasing.bare(template).rstrip(".!"))
    text = re.sub(r"\\ (is|was)\\ ", r"\\ (?:is|was)\\ ", text)
    for slot, pattern in (
        ("av", r"an?\ (?P<v>.+)"), ("v", "(?P<v>.+)"),
        *((f"{name}{case}", "(?P<S>.+)") for name in "Ss" for case in ("", ":gen", ":dat", ":akk")),
    ):  # fmt: skip
        text = text.replace(re.escape("{" + slot + "}"), pattern, 1)
    return text.replace(r"\ ", r"\s+")


def statements_lesson(world: World, texts: Sequence[str], seed: int) -> Lesson:
    """A lesson from free statements: those the world understands as edits, the rest as they stand.

    Raises:
        DataError: no statement, or one that cannot be split.
    """
    understood = [read_statement(world, statement) for statement in texts]
    known = [edit for edit in understood if edit]
    free = [statement for statement, edit in zip(texts, understood, strict=True) if not edit]
    subject = _any_subject(world, texts)
    lesson = world_lesson(world, known, seed) if known else _around(world, subject, seed)
    extra = tuple(statement_edit(statement, seed=seed) for statement in free)
    return Lesson(
        lesson.edits + extra,
        lesson.replay,
        lesson.neighbours,
        lesson.own_facts,
        lesson.unrelated,
        notes=tuple(as_it_stands(statement) for statement in free),
    ).check()


def _any_subject(world: World, texts: Sequence[str]) -> Subject:
    for statement in texts:
        if found := world.subject(parse_sentence(statement)[0]):
            return found
    return world.subjects[0]


def _around(world: World, subject: Subject, seed: int) -> Lesson:
    """What must stay when nothing of the world is changed: everybody's first attribute."""
    rng = random.Random(seed)
    attribute = world.attributes_of(subject.kind)[0]
    others = [o for o in world.of_kind(subject.kind) if o is not subject]
    rng.shuffle(others)
    cut = min(REPLAY_SUBJECTS, len(others) // 3)
    own = [
        q
        for a in world.attributes_of(subject.kind)
        for q in _questions(world, subject, a, 12, rng, *HELD_OUT)
    ]
    trained = [
        q
        for a in world.attributes_of(subject.kind)
        for q in _questions(world, subject, a, 4, rng, Novelty.SEEN)
    ]
    strangers = [s for s in world.subjects if s.kind != subject.kind]
    unrelated = [
        q
        for s in strangers[:TESTED]
        for q in _questions(world, s, rng.choice(world.attributes_of(s.kind)), 1, rng, *HELD_OUT)
    ]
    replay = [*_replayed(world, attribute, None, others[:cut], rng), *trained]
    neighbours = _asked_about(world, attribute, others[cut:], NEIGHBOURS, rng)
    return Lesson(
        (), _distinct(replay), _distinct(neighbours), _distinct(own), _distinct(unrelated)
    )
