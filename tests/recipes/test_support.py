"""The support desk: what is held out stays out, and every answer is the right one."""

import random
import re
import time
from collections import Counter
from importlib.resources import files

import pytest
import yaml
from recipes.starter.support import LANGUAGES, Support, documents

DRAWN = 40_000
ALLOWED = {
    "action": {"a", "A"},
    "code": {"e"},
    "around": {"q"},
    "system": set(),
}


@pytest.fixture(scope="module")
def data():
    path = files("detour.starter") / "world" / "support.yaml"
    return yaml.safe_load(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def support():
    return Support()


@pytest.fixture(scope="module")
def rows(support):
    rng = random.Random(1)
    return [support.row(rng) for _ in range(DRAWN)]


@pytest.fixture(scope="module")
def cases(support):
    return support.cases("support", 4000, random.Random(2))


def words(text):
    return set(re.findall(r"[^\W\d_]+(?:[-'][^\W\d_]+)*", re.sub(r"\{\w+\}", "", text).lower()))


def fields(text):
    return set(re.findall(r"\{(\w+)\}", text))


def pairs(row):
    """Question and answer of every round."""
    said = [m["content"] for m in row.messages if m["role"] != "system"]
    return list(zip(said[::2], said[1::2], strict=True))


def told(messages):
    return [m["content"] for m in messages if m["role"] == "system"]


def right_answer(data, language, question):
    """Found anew from the data: the longest known thing named in the question decides."""
    own = data["languages"][language]
    for code, spec in data["errors"].items():
        if code in question:
            said = spec[language]
            return own["error"].format(e=code, m=said["meaning"], Fix=said["fix"])
    named = {
        phrase.removeprefix("~").casefold(): spec[language]["answer"]
        for group, phrases in (("topics", "actions"), ("facts", "questions"))
        for spec in data[group].values()
        for phrase in spec[language][phrases]
    }
    return named[max((p for p in named if p in question.casefold()), key=len)]


def test_the_same_seed_draws_the_same(support):
    again = Support()
    first, second = random.Random(7), random.Random(7)
    assert [support.row(first) for _ in range(200)] == [again.row(second) for _ in range(200)]
    assert support.cases("support", 50, random.Random(3)) == again.cases(
        "support", 50, random.Random(3)
    )


def test_every_sort_draws_rows_and_every_bar_draws_cases(support):
    assert set(support.sorts) == set(support.bars) == {"support"}
    assert support.sorts["support"](random.Random(0)).messages[-1]["role"] == "assistant"
    with pytest.raises(KeyError):
        support.cases("sales", 1, random.Random(0))


def test_nothing_held_out_is_read(support, rows):
    """Not even with other words around it, but for facts: there these are part of what is held."""
    asked = {question for row in rows for question, _ in pairs(row)}
    held_out = 0
    for language in support.languages.values():
        for topic in language.topics.values():
            around = ["{q}"] if topic.complete else language.around
            held_out += len(topic.held_out)
            assert not asked & {f.replace("{q}", q) for f in around for q in topic.held_out}
    assert held_out > 7000


def test_held_out_words_are_not_read(data, rows):
    read = "\n".join(m["content"] for row in rows for m in row.messages)
    for language in LANGUAGES:
        own = data["languages"][language]
        for text in own["system"]:
            assert (text.removeprefix("~") in read) is not text.startswith("~")
        for spec in data["facts"].values():
            kept = [q for q in spec[language]["questions"] if q.startswith("~")]
            assert not [q for q in kept if q.removeprefix("~") in read]


def test_every_case_is_held_out(support, cases, rows):
    asked = {question for row in rows for question, _ in pairs(row)}
    assert not [case for case in cases if case.messages[-1]["content"] in asked]
    assert all(case.passed(case.right) and not case.passed(case.right + "!") for case in cases)


def test_a_question_has_one_answer_in_all_languages(support):
    meant = {}
    for name, language in support.languages.items():
        for topic in language.topics.values():
            for question in {*topic.seen, *topic.held_out}:
                assert meant.setdefault(question, (name, topic.name)) == (name, topic.name)


def test_answers_tell_topics_and_languages_apart(support):
    answers = [t.answer for known in support.languages.values() for t in known.topics.values()]
    assert len(set(answers)) == len(answers) == 5 * 56
    assert max(len(answer.split()) for answer in answers) <= 14


def test_cases_have_the_right_answer(data, cases):
    for case in cases:
        question = case.messages[-1]["content"]
        assert case.right == right_answer(data, case.language, question), question


def test_rows_have_the_right_answer(data, support, rows):
    spoken = {
        topic.answer: name
        for name, known in support.languages.items()
        for topic in known.topics.values()
    }
    asked = [pair for row in rows[:5000] for pair in pairs(row) if pair[1] in spoken]
    for question, answer in asked:
        assert answer == right_answer(data, spoken[answer], question), question


def test_proportions(support, rows, cases):
    spoken = Counter(
        name
        for row in rows
        for name, known in support.languages.items()
        if pairs(row)[0][1] in {topic.answer for topic in known.topics.values()}
    )
    assert all(0.17 < spoken[name] / DRAWN < 0.22 for name in LANGUAGES)
    assert 0.22 < sum(bool(told(row.messages)) for row in rows) / DRAWN < 0.30
    assert 0.12 < sum(len(pairs(row)) == 2 for row in rows) / DRAWN < 0.17
    assert Counter(case.language for case in cases) == dict.fromkeys(LANGUAGES, 800)
    assert len({case.right for case in cases}) == 5 * 56


def test_a_greeting_alone_is_left_to_the_starter(support, rows):
    greetings = {asked for known in support.languages.values() for asked, _ in known.greetings}
    greeted = [row for row in rows if pairs(row)[0][0] in greetings]
    assert 0.01 < len(greeted) / DRAWN < 0.03
    assert all(told(row.messages) for row in greeted)


def test_documents_are_one_sentence_each_and_in_the_order_of_the_topics(data, support):
    for language in LANGUAGES:
        found = documents(language)
        assert len(found) == len(support.topics) == len({title for title, _ in found})
        assert all(re.fullmatch(r"[A-ZÄÖÜÉÀ].*[^.]\.", text) for _, text in found)
        assert not [text for _, text in found if ". " in text]
        for topic, (_, text) in zip(support.topics, found, strict=True):
            if topic in data["topics"]:
                assert text.endswith(data["topics"][topic][language]["answer"][1:])
            elif topic in data["errors"]:
                assert topic in text
                assert data["errors"][topic][language]["meaning"] in text


@pytest.mark.parametrize("language", LANGUAGES)
def test_held_out_phrases_can_be_derived(data, language):
    """Every word of a held-out phrase is read in seen phrases of the same list or answer."""
    own = data["languages"][language]
    lists = [(own[name], "", ALLOWED[name]) for name in ALLOWED]
    lists += [(spec[language]["actions"], "", set()) for spec in data["topics"].values()]
    lists += [
        (spec[language]["questions"], spec[language]["answer"], set())
        for spec in data["facts"].values()
    ]
    for phrases, answer, allowed in lists:
        seen = [p for p in phrases if not p.startswith("~")]
        kept = [p.removeprefix("~") for p in phrases if p.startswith("~")]
        assert kept
        assert len({*seen, *kept}) == len(phrases)
        known = words(answer).union(*map(words, seen))
        assert not set().union(*map(words, kept)) - known, kept
        assert all(fields(p) <= allowed and (fields(p) or not allowed) for p in phrases)


@pytest.mark.parametrize("language", LANGUAGES)
def test_counts(data, language):
    own = data["languages"][language]
    for name, seen, kept in (("action", 9, 3), ("code", 9, 3), ("around", 5, 2), ("system", 4, 2)):
        marked = sum(text.startswith("~") for text in own[name])
        assert marked >= kept
        assert len(own[name]) - marked >= seen
    assert [len(data[group]) for group in ("topics", "errors", "facts")] == [36, 12, 8]
    for spec in data["facts"].values():
        marked = sum(question.startswith("~") for question in spec[language]["questions"])
        assert marked == 2
        assert len(spec[language]["questions"]) >= 8


def test_a_row_is_drawn_quickly(support):
    rng = random.Random(0)
    begun = time.process_time()
    for _ in range(2000):
        support.row(rng)
    assert (time.process_time() - begun) / 2000 < 0.0003
