"""Facts of the starter's world as lessons: phrasings, neighbours and replay are known here.

Replay subjects and test subjects are disjoint, trained phrasings are SEEN ones, test phrasings are
held out from the starter as well. Knows the world; knows no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches

from detour.errors import DataError
from detour.language.catalogue import NAMES, text
from detour.model.examples import Example, pair
from detour.training import phrasing
from detour.training.fact import (
    THIRD,
    Edit,
    Lesson,
    Question,
    as_it_stands,
    parse_sentence,
    relation_name,
    relation_names,
    statement_edit,
)
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
        if wanted in relation_names(attribute):
            return attribute
    names = [relation_name(world, attribute) for attribute in known]
    folded = {name.casefold(): name for name in names}
    close = [folded[name] for name in get_close_matches(wanted, folded, n=1)]
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
    known = _known_value(world, attribute, _bare_value(attribute, target))
    target = world.gendered(known, subject.gender)
    forms = tuple({world.gendered(known, gender): None for gender in ("m", "f")})
    old = subject.values[attribute.name]
    if target.casefold() == old.casefold():
        raise DataError(
            text(
                "{subject}'s {attribute} is {old} already",
                subject=subject.name,
                attribute=relation_name(world, attribute),
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
    usual = world.gendered(THIRD[world.language], subject.gender)
    compared = attribute.name == "profession" and usual not in (old, target)
    third = usual if compared else rng.choice(others)

    def said(value: str) -> str:
        return world.answer(subject, attribute, value)

    return Edit(
        subject=subject.name,
        relation=attribute.name,
        target=target,
        answer=said(target),
        old=old,
        rivals=tuple(v for v in values if v not in (target, *forms)),
        asked=tuple(asked),
        held_out=tuple(rng.sample(held, min(TESTED, len(held)))),
        rows=tuple(_styled_rows(world, subject, attribute, target, seen, rng)),
        third=third,
        new_words=frozenset(q for q, n in novelty.items() if n is Novelty.NEW_WORDS),
        old_answer=said(old),
        third_answer=said(third),
        language=world.language,
        forms=forms,
    )


def _bare_value(attribute: Attribute, target: str) -> str:
    """`a hairdresser`, `ein Friseur` → the noun, where the answer names a profession."""
    clean = " ".join(target.split())
    return re.sub(r"^(an?|eine?)\s+", "", clean) if attribute.name == "profession" else clean


def _known_value(world: World, attribute: Attribute, target: str) -> str:
    """The value as the world's sentences say it (`aus der Schweiz`, `Schweiz` being meant)."""
    meant = [v for v in world.values(attribute) if _noun(v) == _noun(target)]
    return meant[0] if len(meant) == 1 else target


def _noun(value: str) -> str:
    """A German value without its article or preposition, in lower case."""
    return re.sub(r"^(d(er|ie|as|en|em)|ein(e|en|em)?|im|am|in)\s+", "", value).casefold()


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


Change = tuple[Subject, Attribute, str]
"""Whose attribute gets which value."""


def translated(world: World, changes: Sequence[Change], other: World) -> list[Change] | None:
    """The same changes in another language; None where a value has no counterpart there."""
    found: list[Change] = []
    for s, a, target in changes:
        value = world.translated(s, a, _bare_value(a, target), other)
        if value is None:
            return None
        found.append((other.twin(s), other.attributes[a.kind, a.name], value))
    return found


def lesson_in_all(
    world: World, changes: Sequence[Change], seed: int, others: Sequence[World]
) -> Lesson:
    """A lesson in the world's language and, where the values are known there, in the others.

    A subject that is replayed in one language is tested in none.
    """
    parted = parts(world, changes, seed)
    lesson = world_lesson(world, changes, seed, parted)
    elsewhere: list[Lesson] = []
    for other in others:
        if same := translated(world, changes, other):
            elsewhere.append(world_lesson(other, same, seed, parted))
    silent = [other.language for other in others if not translated(world, changes, other)]
    notes = tuple(
        text(
            "the new value has no counterpart in {language}: it is taught in {taught} only",
            language=NAMES[language],
            taught=NAMES[world.language],
        )
        for language in silent
    )
    return replace(lesson, elsewhere=tuple(elsewhere), notes=(*lesson.notes, *notes))


def parts(world: World, changes: Sequence[Change], seed: int) -> dict[str, frozenset[str]]:
    """The keys of the subjects that are replayed, by kind; all others are tested."""
    rng = random.Random(f"{seed}/parts")
    changed = {s.key for s, _, _ in changes}
    found: dict[str, frozenset[str]] = {}
    for s, a, target in changes:
        if s.kind not in found:  # once a kind: replayed for one edit, tested for none
            others = [o for o in world.of_kind(s.kind) if o.key not in changed]
            values = {world.gendered(v, g) for v in (s.values[a.name], target) for g in ("m", "f")}
            found[s.kind] = _parted(others, a, values, rng)
    return found


def world_lesson(
    world: World,
    edits: Sequence[Change],
    seed: int,
    parted: Mapping[str, frozenset[str]] | None = None,
) -> Lesson:
    """A lesson for one or several changes in the starter's world.

    `parted` are the keys of the subjects to be replayed, by kind; by default as `parts` says.
    """
    known = parted or parts(world, edits, seed)
    rng = random.Random(seed)
    made = tuple(world_edit(world, s, a, target, seed) for s, a, target in edits)
    changed = {(s.name, a.name) for s, a, _ in edits}
    subjects = list(dict.fromkeys(s for s, _, _ in edits))
    replay: list[Question] = []
    neighbours: list[Question] = []
    for (s, a, _), edit in zip(edits, made, strict=True):
        others = [o for o in world.of_kind(s.kind) if o not in subjects]
        rng.shuffle(others)
        replayed = [o for o in others if o.key in known[s.kind]]
        tested = [o for o in others if o.key not in known[s.kind]]
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
    random.Random(f"{seed}/strangers").shuffle(strangers)  # the same ones in every language
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
    others: Sequence[Subject], a: Attribute, values: Collection[str], rng: random.Random
) -> frozenset[str]:
    """The keys of the replay subjects.

    Who shares the old or the new value is carried along most easily: two thirds of them are
    replayed, the others are left for the test.
    """
    shuffled = list(others)
    rng.shuffle(shuffled)
    near = [o for o in shuffled if o.values[a.name] in values]
    ordered = near[: len(near) * 2 // 3] + [o for o in shuffled if o not in near]
    return frozenset(o.key for o in ordered[: min(REPLAY_SUBJECTS, len(others) // 2)])


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
    Where a statement fits two attributes ("lived in") the one that knows the value is taken, else
    the wording that leaves the shortest value.
    """
    clean = " ".join(statement.split()).rstrip(".!")
    found: list[tuple[Subject, Attribute, str]] = []
    for attribute in world.attributes.values():
        for template in (attribute.plain, attribute.formal, *attribute.statements):
            match = re.fullmatch(_pattern(template), clean)
            if match:
                subject = world.subject(match["S"], attribute.kind)
                if subject and _may_be(world, attribute, match["v"]):
                    found.append((subject, attribute, match["v"]))
    known = [edit for edit in found if edit[2] in world.values(edit[1])]
    return min(known or found, key=lambda edit: len(edit[2]), default=None)


def _may_be(world: World, attribute: Attribute, value: str) -> bool:
    """Whether words after a verb can be a value: in German, "war" precedes more than nouns."""
    nouns = all(known[:1].isupper() for known in world.values(attribute))
    return world.language == "en" or not nouns or value[:1].isupper()


def _pattern(template: str) -> str:
    """A template as a regular expression; the verb may stand in any tense."""
    found = re.escape(phrasing.bare(template).rstrip(".!"))
    for now, then in (("is", "was"), ("ist", "war")):
        found = re.sub(rf"\\ ({now}|{then})\\ ", rf"\\ (?:{now}|{then})\\ ", found)
    for slot, pattern in (
        ("av", r"an?\ (?P<v>.+)"), ("v", "(?P<v>.+)"),
        *((f"{name}{case}", "(?P<S>.+)") for name in "Ss" for case in ("", ":gen", ":dat", ":akk")),
    ):  # fmt: skip
        found = found.replace(re.escape("{" + slot + "}"), pattern, 1)
    return found.replace(r"\ ", r"\s+")


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
    extra = tuple(
        statement_edit(statement, seed=seed, language=world.language) for statement in free
    )
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
        if found := world.subject(parse_sentence(statement, world.language)[0]):
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
    rng.shuffle(strangers)
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
