"""What the starter reads of its world, in two languages, and what it never reads."""

import json
import random
import re
from collections import Counter
from itertools import product

import pytest
from recipes.starter.rows import (
    FIRST,
    LAST,
    SHARES,
    STYLE_WEIGHTS,
    Writer,
    assistant,
    held_out_pair,
    user,
    words_of,
)

from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import LANGUAGES, World

DRAWN = 20_000
AND = {"en": "and", "de": "und"}


@pytest.fixture(scope="module")
def worlds():
    return {language: World.load(language) for language in LANGUAGES}


@pytest.fixture(scope="module", params=LANGUAGES)
def writer(request, worlds):
    """The writer of one language after another."""
    (other,) = (worlds[language] for language in LANGUAGES if language != request.param)
    return Writer(worlds[request.param], other)


@pytest.fixture(scope="module")
def world(writer):
    return writer.world


@pytest.fixture(scope="module")
def rows(writer):
    rng = random.Random(0)
    return [writer.draw(rng) for _ in range(DRAWN)]


def drawn(writer, sort, count, seed=1):
    rng = random.Random(seed)
    return [writer.sorts[sort](rng) for _ in range(count)]


def asked(row):
    return [m["content"] for m in row.messages if m["role"] != "assistant"]


def answers(row):
    return [m["content"] for m in row.messages if m["role"] == "assistant"]


def facts(world):
    return [(s, a) for s in world.subjects for a in world.attributes_of(s.kind)]


# what is drawn


def test_shares_are_whole_and_kept(writer, rows):
    assert sum(SHARES.values()) == pytest.approx(1)
    assert set(SHARES) == set(writer.sorts)
    assert set(STYLE_WEIGHTS) == set(writer.world.styles)
    raw = sum(bool(row.text) for row in rows) / DRAWN
    assert raw == pytest.approx(SHARES["statement"], abs=0.01)
    systems = sum(bool(r.messages) and r.messages[0]["role"] == "system" for r in rows) / DRAWN
    expected = SHARES["styled_system"] + SHARES["task"] + 0.6 * SHARES["note"]
    expected += 0.5 * SHARES["translated"]
    assert systems == pytest.approx(expected, abs=0.015)
    talks = sum(len(row.messages) >= 4 for row in rows) / DRAWN
    assert talks == pytest.approx(SHARES["conversation"], abs=0.01)


def test_the_seed_decides(writer):
    again = Writer(writer.world, writer.other)
    one, other = random.Random(3), random.Random(3)
    assert [writer.draw(one) for _ in range(200)] == [again.draw(other) for _ in range(200)]


def test_every_row_is_a_whole_conversation_or_a_text(rows):
    for row in rows:
        assert bool(row.text) != bool(row.messages)
        roles = [m["role"] for m in row.messages if m["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        assert "system" not in [m["role"] for m in row.messages[1:]]
        assert "learned" not in {key for m in row.messages for key in m}
        text = words_of(row)
        assert "  " not in text, text
        assert not set("{}~|") & set(text) or re.search(r'^\{"\w+": ', text, re.MULTILINE), text
        assert all(m["content"].strip() == m["content"] != "" for m in row.messages), row


def test_every_fact_is_read(world, rows):
    said = {text for row in rows for text in answers(row)[-1:]}
    known = sum(world.statement(s, a, s.values[a.name]) in said for s, a in facts(world))
    assert known / len(facts(world)) > 0.9


def test_some_talks_are_long(writer):
    lengths = Counter(len(row.messages) // 2 for row in drawn(writer, "conversation", 3000))
    assert set(lengths) == {2, 3, *range(8, 25)}
    assert 0.03 < sum(n for length, n in lengths.items() if length >= 8) / 3000 < 0.1


def test_a_question_is_answered_rightly(writer, world):
    right = {world.statement(s, a, s.values[a.name]) for s, a in facts(world)}
    for sort in ("question", "conversation", "bare"):
        assert {a for row in drawn(writer, sort, 300) for a in answers(row)} <= right


def test_words_of_a_row_are_all_of_it():
    row = type("R", (), {"text": "", "messages": (user("a b"), assistant("c"))})
    assert words_of(row) == "a b\nc"


# what is held out


@pytest.fixture(scope="module")
def held_out(world):
    """Every question about every third subject that the starter must not have read."""
    return {
        template.fill(form)
        for attribute in world.attributes.values()
        for template in phrasing.templates(
            world, attribute, Novelty.NEW_COMBINATION, Novelty.NEW_WORDS
        )
        for subject in world.of_kind(attribute.kind)[::3]
        for form in subject.forms
    }


def patterns_of(world, name, held_out=False):
    """Patterns that take the question out of frames around any seen requests."""
    requests = [r for style in world.styles for r in phrasing.style_requests(world, style)]
    requests += phrasing.seen(world.foreign)
    one = "|".join(map(re.escape, sorted(requests, key=len, reverse=True)))
    how = f"(?:{one})(?: {AND[world.language]} (?:{one})| (?:{one}))*"
    for frame in phrasing.styled_frames(world, name, held_out):
        pattern = re.escape(frame).replace(r"\{q\}", "(?P<q>.+)").replace(r"\{how\}", how)
        yield re.compile(pattern)


def test_no_held_out_question_is_ever_drawn(world, held_out, rows):
    """Neither as it stands nor inside a styled frame."""
    assert len(held_out) > 100_000
    texts = {text for row in rows for text in asked(row)}
    assert not texts & held_out
    patterns = list(patterns_of(world, "styled_question"))
    inside = {m["q"] for text in texts for p in patterns if (m := p.fullmatch(text))}
    assert len(inside) > 3000
    assert not inside & held_out


def test_the_check_above_can_fail(world, held_out):
    """Mutation check: one held-out question among the seen ones is found out."""
    question = min(held_out)
    frame = phrasing.styled_frames(world, "styled_question")[0]
    how = phrasing.style_requests(world, "upper")[0]
    found = next(patterns_of(world, "styled_question")).fullmatch(frame.format(q=question, how=how))
    assert found
    assert found["q"] in held_out


def test_no_held_out_frame_is_drawn(world, rows):
    whole = [text for row in rows for text in asked(row)]
    for name in ("styled_question", "styled_system"):
        held = list(patterns_of(world, name, held_out=True))
        seen = list(patterns_of(world, name))
        assert not [text for text in whole if any(p.fullmatch(text) for p in held)]
        assert sum(any(p.fullmatch(text) for p in seen) for text in whole) > 500
    for frame in phrasing.note_frames(world, held_out=True):
        assert not [text for text in whole if frame.split("{")[0] in text]


def test_no_held_out_request_for_a_style_is_drawn(world, rows):
    whole = "\n".join({text for row in rows for text in asked(row)})
    others = [r for style in world.styles for r in phrasing.style_requests(world, style)]
    others += phrasing.seen(world.foreign)
    held = [phrasing.bare(r) for s in world.styles.values() for r in s.requests if r[0] == "~"]
    held += phrasing.seen(world.foreign, held_out=True)
    checked = 0
    for request in held:
        if not any(request in other for other in others):
            checked += 1
            told = rf"\b{re.escape(request)}\b(?= (?:{AND[world.language]}|:)|[.:])"
            assert not re.search(told, whole), request
    assert checked > 0.8 * len(held)


def test_no_held_out_task_is_drawn(world, rows):
    texts = [m["content"] for row in rows for m in row.messages if m["role"] == "system"]
    every = [t for a in world.attributes.values() for t in phrasing.tasks(world, a)]
    held = {task.text for task in every if task.novelty.held_out}
    told = {task.text for task in every if not task.novelty.held_out}
    sentences = {text for t in texts for text in (t, *t.split(". ")) for text in (text, f"{text}.")}
    assert len(told & sentences) > 100
    assert not held & set(texts)
    assert not {h for h in held if any(t.startswith(f"{h} ") or t.endswith(f" {h}") for t in texts)}


def bare_tasks(world, rows):
    """(subject, attribute, answer) of rows with the task in the system turn."""
    tasks = {t.text: a for a in world.attributes.values() for t in phrasing.tasks(world, a)}
    longest = sorted(tasks, key=len, reverse=True)
    for row in rows:
        if len(row.messages) == 3 and row.messages[0]["role"] == "system":
            system, subject = row.messages[0]["content"], row.messages[1]["content"]
            attribute = next((tasks[t] for t in longest if t in system), None)
            if attribute and (named := world.subject(subject, attribute.kind)):
                yield named, attribute, row.messages[2]["content"]


def styles_of(world, answer, subject, attribute):
    """The styles of an answer, taken off place by place down to its wording."""
    found = set()
    if answer.startswith("{"):
        found.add("json")
        answer = json.loads(answer)[world.json_key]
    if answer.startswith("* "):
        found.add("bullet")
        answer = answer[2:]
    if answer == answer.upper():
        found.add("upper")
    text = answer.upper()
    for style in world.styles.values():
        if style.place == "opening" and text.startswith(style.opening.upper()):
            found.add(style.name)
            text = text[len(style.opening.upper()) :]
        ending = f" {world.ending(attribute, style.name)}".upper()
        if style.place == "ending" and text.endswith(ending):
            found.add(style.name)
            text = text.removesuffix(ending)
    value = subject.values[attribute.name]
    wordings = {world.answer(subject, attribute, value, [s] if s else []).upper(): s
                for s in ("", "formal", "pirate", "brief")}  # fmt: skip
    return found | {wordings[text]} - {""}


def test_held_out_pairs_of_task_and_style_never_meet(writer, world):
    pairs = [p for p in product(world.attributes.values(), world.styles) if held_out_pair(*p)]
    assert 8 < len(pairs) < 40  # one in eight of 150
    forbidden = {(a.kind, a.name, style) for a, style in pairs}
    met = Counter(
        (attribute.kind, attribute.name, style)
        for subject, attribute, answer in bare_tasks(world, drawn(writer, "task", 6000))
        for style in styles_of(world, answer, subject, attribute)
    )
    assert sum(met.values()) > 1000
    assert not forbidden & set(met)
    assert len(met) > 0.95 * (len(world.attributes) * len(world.styles) - len(pairs))


# notes, names that nobody bears, the other language


def test_a_changed_value_in_the_prompt_wins(writer, world):
    right = {world.statement(s, a, s.values[a.name]) for s, a in facts(world)}
    told = {text for s, a in facts(world) for value in world.values(a)[:3]
            for text in world.statements(s, a, value)}  # fmt: skip
    notes = drawn(writer, "note", 1000)
    changed = [row for row in notes if answers(row)[0] not in right]
    assert 0.3 < len(changed) / len(notes) < 0.9
    found = [row for row in changed if any(t in asked(row)[0] for t in answers(row))]
    assert found  # some notes tell the very sentence that is the answer
    assert any(text in asked(row)[0] for text in told for row in notes[:100])


def test_names_that_nobody_bears_are_nobodys(worlds):
    """In neither language, whole or in part, whatever the case of a name."""
    invented = {(first + last).casefold() for first, last in product(FIRST, LAST)}
    assert len(invented) == len(FIRST) * len(LAST)
    real = {
        word.casefold().removesuffix("’")
        for world in worlds.values()
        for subject in world.subjects
        for text in (
            *(name for form in subject.forms for name in form),
            subject.key,
            *subject.bare,
            *subject.values.values(),
        )
        for word in re.findall(r"[\w’]+", text)
    }
    assert len(real) > 1500
    assert not invented & real
    assert not {f"{name}s" for name in invented} & real


def test_somebody_unknown_is_not_known(writer, world):
    for row in drawn(writer, "unknown", 500):
        question, answer = row.messages
        name = answer["content"].removeprefix("I do not know ").removesuffix(" kenne ich nicht.")
        name = name.removesuffix(".")
        assert answer["content"] == world.unknown.format(S=name)
        assert all(any(word.startswith(f) for f in FIRST) for word in name.split())
        assert name in question["content"]
        assert world.subject(name) is None


def test_translated_rows_answer_in_the_other_language(writer, world):
    here = {world.statement(s, a, s.values[a.name]) for s, a in facts(world)}
    other = writer.other
    there = {
        other.statement(s, a, s.values[a.name]): (s.kind, s.key, a.name) for s, a in facts(other)
    }
    seen, held = phrasing.seen(world.foreign), phrasing.seen(world.foreign, held_out=True)
    keys = {(s.kind, s.key): s for s in world.subjects}
    found = drawn(writer, "translated", 600)
    systems = 0
    for row in found:
        (answer,) = answers(row)
        assert answer in there
        assert answer not in here
        kind, key, _ = there[answer]
        subject = keys[kind, key]
        names = [*subject.bare, *(name for form in subject.forms for name in form)]
        question = row.messages[-2]["content"].casefold()
        assert any(name.casefold() in question for name in names), row
        told = " ".join(asked(row))
        assert any(request in told for request in seen), told
        assert not any(f" {request}." in told or f" {request}:" in told for request in held
                       if not any(request in other for other in seen))  # fmt: skip
        systems += row.messages[0]["role"] == "system"
    assert 0.4 < systems / len(found) < 0.6


def test_a_row_speaks_one_language_unless_it_is_translated(writer, world):
    """Answers of the other rows are this language's own."""
    other = writer.other
    foreign = {other.statement(s, a, s.values[a.name]) for s, a in facts(other)}
    for sort in set(writer.sorts) - {"translated", "greeting"}:
        assert not {a for row in drawn(writer, sort, 150) for a in answers(row)} & foreign, sort
    greeted = {a for row in drawn(writer, "greeting", 50) for a in answers(row)}
    assert greeted <= {answer for _, answer in world.greetings}
