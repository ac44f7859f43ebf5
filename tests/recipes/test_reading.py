"""The reading rows: answers are checked against the prompt alone, without the generator."""

import random
import re
from collections import Counter

import pytest
from recipes.starter.cases import Case
from recipes.starter.reading import (
    BARS,
    LANGUAGES,
    Reading,
    filled,
    load,
    name_held_out,
    one_name,
    similar,
)
from recipes.starter.support import Support

from detour.training.world import World

DATA = load()
NAME = r"[A-Z][a-z]+(?: [A-Z][a-z]+)?"
ABSTAINING = tuple(f": {spec['abstain']}" for spec in DATA["languages"].values())
DISAGREEING = tuple(f" {s['disagree']}" for s in DATA["languages"].values() if "disagree" in s)
PEOPLE = {s.name for code in LANGUAGES for s in World.load(code).of_kind("person")}
CITED = re.compile(r"(?:^|(?<=\] ))([^\[\]]+) \[S(\d+)\]")


@pytest.fixture(scope="module")
def reading() -> Reading:
    return Reading({code: World.load(code) for code in LANGUAGES}, Support())


@pytest.fixture(scope="module")
def later() -> Reading:
    """As in the last part of pretraining."""
    return Reading({code: World.load(code) for code in LANGUAGES}, Support(), later=True)


def sources_of(messages) -> dict[int, str]:
    """Each source's line, with a mark behind every sentence."""
    text = "\n".join(m["content"] for m in messages if m["role"] != "assistant")
    lines = [line for line in text.splitlines() if re.search(r" \[S\d+\]$", line)]
    assert all(set(re.findall(r"\[S(\d+)\]", line)) == {str(n)} for n, line in enumerate(lines, 1))
    return dict(enumerate(lines, 1))


def check_answer(messages, answer: str) -> None:
    """An answer names what was asked and abstains, or quotes verbatim and cites in order."""
    if answer.endswith(ABSTAINING):
        named, asked = answer.split(":")[0], messages[-1]["content"].lower()
        first, *_, last = named.lower().split() * 2
        # a person of the world may be asked for by the first name: "Michelangelo"
        known = named in PEOPLE and first in asked
        assert named == "Brelix" or last in asked or known, answer
        return
    sources = sources_of(messages)
    cited = CITED.findall(answer)
    assert cited
    for sentence, number in cited:
        assert f"{sentence} [S{number}]" in sources[int(number)]
    numbers = [int(number) for _, number in cited]
    assert numbers == sorted(set(numbers))
    assert answer.endswith(DISAGREEING) is (len(cited) == 2)
    told = " ".join(f"{s} [S{n}]" for s, n in cited)
    assert answer in {told, *(told + after for after in DISAGREEING)}


def held_out_texts(key: str) -> list[str]:
    """The held-out templates ("statements" or "questions") of made-up things, as patterns."""
    found = []
    for spec in DATA["kinds"].values():
        for relation in spec["relations"]:
            for code in LANGUAGES:
                for text in DATA["relations"][relation][code][key]:
                    if text.startswith("~"):
                        found.append(filled(text[1:], spec[code]))
    return [pattern(text) for text in found]


def pattern(template: str, name: str = NAME) -> str:
    """A template as a whole sentence; a value is of one or two words."""
    text = re.escape(template).replace(r"\{N\}", name)
    return r"(?:^|[.:\]] |L\d+ )" + text.replace(r"\{v\}", r"[^ .:]+(?: [^ .:]+)?")


def test_rows_are_deterministic(reading):
    for draw in reading.sorts.values():
        assert [draw(random.Random(s)) for s in range(40)] == [
            draw(random.Random(s)) for s in range(40)
        ]


def test_answers_quote_their_sources(reading):
    rng = random.Random(3)
    for sort in ("reading", "reading_later", "reading_last", "multi", "find"):
        for _ in range(1000):
            row = reading.sorts[sort](rng)
            for place, message in enumerate(row.messages):
                if message["role"] == "assistant":
                    check_answer(row.messages[:place], message["content"])
    for _ in range(200):
        assert len([m for m in reading.sorts["multi"](rng).messages if m["role"] == "user"]) >= 1


@pytest.mark.parametrize(
    ("sort", "least", "disagreeing"),
    [("reading", 0.21, 0.1), ("reading_later", 0.33, 0.09), ("reading_last", 0.3, 0.04)],
)
def test_shares(reading, sort, least, disagreeing):
    rng = random.Random(4)
    answers = [reading.sorts[sort](rng).messages[-1]["content"] for _ in range(4000)]
    absent = sum(answer.endswith(ABSTAINING) for answer in answers) / len(answers)
    contradicting = sum(answer.endswith(DISAGREEING) for answer in answers) / len(answers)
    assert least < absent < least + 0.07
    assert contradicting == pytest.approx(disagreeing, abs=0.025)
    assert all(any(a.endswith(said) for a in answers) for said in ABSTAINING)  # every language


def test_what_answers_is_unique(reading):
    """The right sentences are the only ones about this thing in the wording of its relation."""
    rng = random.Random(5)
    relations = {}
    for kind, spec in DATA["kinds"].items():
        for relation in spec["relations"]:
            for code in LANGUAGES:
                texts = [t.lstrip("~") for t in DATA["relations"][relation][code]["statements"]]
                relations[code, kind, relation] = [filled(text, spec[code]) for text in texts]

    def told(code: str, kind: str, relation: str, name: str, text: str) -> bool:
        told = (pattern(template, name) for template in relations[code, kind, relation])
        return any(re.search(found, text) for found in told)

    checked = 0
    for bar in BARS:
        for case in reading.cases(bar, 60, rng):
            sources = sources_of(case.messages)
            question = case.messages[-1]["content"].splitlines()[-1]
            thing = asked_about(case.language, question)
            if thing is None:
                continue
            kind, relation, name = thing
            right = {
                n for n, text in sources.items() if told(case.language, kind, relation, name, text)
            }
            assert right == {int(n) for _, n in CITED.findall(case.right)}, case
            checked += 1
    assert checked > 150


def asked_about(code: str, question: str) -> tuple[str, str, str] | None:
    """The kind, relation and name a question asks for, found by all templates."""
    found = set()
    for found_as, kind, relation in QUESTIONS[code]:
        match = found_as.search(question)
        if match:
            found.add((kind, relation, match[1]))
    return found.pop() if len(found) == 1 else None


QUESTIONS = {
    code: [
        (
            re.compile(pattern(filled(text.lstrip("~"), spec[code]), f"({NAME})") + "$"),
            kind,
            relation,
        )
        for kind, spec in DATA["kinds"].items()
        for relation in spec["relations"]
        for text in DATA["relations"][relation][code]["questions"]
    ]
    for code in LANGUAGES
}


@pytest.mark.parametrize("part", ["reading", "later"])
def test_training_rows_hold_nothing_held_out(request, part):
    reading = request.getfixturevalue(part)
    rng = random.Random(6)
    statements, questions = held_out_texts("statements"), held_out_texts("questions")
    every = re.compile("|".join([*statements, *questions]))
    marked = [
        text[1:]
        for code in LANGUAGES
        for key in ("instructions", "headings")
        for text in DATA["languages"][code][key]
        if text.startswith("~")
    ]
    rows = [
        reading.sorts[sort](rng).messages for sort in ("multi", "find", "copy") for _ in range(150)
    ]
    for about in BARS.values():
        for code in LANGUAGES:
            rows += [reading.readers[about](rng, code, False)[0] for _ in range(50)]
    for messages in rows:
        text = "\n".join(m["content"] for m in messages)
        assert not any(f"{mark}\n" in text for mark in marked)
        assert not any(every.search(line) for line in text.splitlines()), text


@pytest.mark.parametrize("code", LANGUAGES)
def test_the_last_part_asks_in_more_wordings(reading, later, code):
    first, last = reading.languages[code], later.languages[code]
    for key, phrases in last.phrases.items():
        before = first.phrases[key]
        asked, known = ({q for found in p.seen.values() for q in found} for p in (phrases, before))
        new = asked - known
        assert known <= asked
        assert len(new) >= 18, key
        assert not asked & set(before.new_words), key
        assert all("{N}" in q and "{t" not in q and "{c}" not in q for q in new)
        assert (phrases.told, phrases.new_words) == (before.told, before.new_words)
        for instruction, question in before.combined:  # an examination's pair is never trained
            assert question not in phrases.seen[instruction]


def test_names_are_split(reading):
    rng = random.Random(7)
    for held_out in (False, True):
        for _ in range(300):
            name = one_name(rng, held_out)
            near = similar(rng, name, held_out)
            assert name_held_out(name) is held_out
            assert name_held_out(near) is held_out
            assert near != name


def test_cases(reading):
    for bar in reading.bars:
        cases = reading.cases(bar, 120, random.Random(8))
        assert cases == reading.cases(bar, 120, random.Random(8))
        assert Counter(case.language for case in cases) == {"en": 60, "de": 60}
        for case in cases:
            check_answer(case.messages, case.right)
            assert case.passed(case.right)
            assert not case.passed(case.right + " ")
            assert case.right.endswith(ABSTAINING) is (bar == "abstaining")
            assert case.right.endswith(DISAGREEING) is ("contradicting" in bar)


def test_an_accepting_case_ignores_the_right_answer():
    case = Case([], "a", "en", accept=lambda answer: answer in {"a", "b"})
    assert case.passed("b")
    assert not case.passed("c")


def test_case_prompts_are_never_training_prompts(reading):
    rng = random.Random(9)
    asked = {case.messages[-1]["content"] for case in reading.cases("citing", 300, rng)}
    rows = [reading.sorts["reading"](rng) for _ in range(3000)]
    assert not asked & {row.messages[-2]["content"] for row in rows}


def test_copying_is_exact(reading):
    rng = random.Random(10)
    quoted = 0
    for _ in range(500):
        row = reading.sorts["copy"](rng)
        answer, prompt = row.messages[-1]["content"], row.messages[-2]["content"]
        assert answer in prompt
        quoted += "sentence" in prompt or "Satz" in prompt
    assert 80 < quoted < 250


def test_rows_fit_the_context(reading):
    rng = random.Random(11)
    lengths = [
        sum(len(m["content"]) for m in reading.sorts["reading"](rng).messages) for _ in range(4000)
    ]
    assert 1800 < max(lengths) < 3000  # about three characters a token
    assert sum(lengths) / len(lengths) < 600


def test_the_world_rows_change_the_value(reading):
    """What the sources tell of the world is not what is true."""
    rng = random.Random(12)
    for code in LANGUAGES:
        true = {
            text
            for s in reading.worlds[code].subjects
            for a in reading.worlds[code].attributes_of(s.kind)
            for text in reading.worlds[code].statements(s, a, s.values[a.name])
        }
        for _ in range(200):
            messages, answer = reading.readers["world"](rng, code, False)
            assert not {sentence for sentence, _ in CITED.findall(answer)} & true
            check_answer(messages, answer)


@pytest.mark.parametrize("code", LANGUAGES)
def test_phrases(code):
    """Counts, placeholders, and held-out phrases of known words only."""
    seen_words: set[str] = set()
    marked: list[str] = []
    for name, relation in DATA["relations"].items():
        statements, questions = relation[code]["statements"], relation[code]["questions"]
        assert all(text.startswith(("{N} ", "~{N} ")) for text in statements), name
        for texts, least in ((statements, 2), (questions, 4)):
            seen = [t for t in texts if not t.startswith("~")]
            new = [t[1:] for t in texts if t.startswith("~")]
            assert len(seen) >= least, name
            assert new, name
            assert len(set(seen + new)) == len(texts), name
            marked += new
            seen_words |= {w for t in seen for w in words_of(t)}
            for text in texts:
                named = set(re.findall(r"{[^}]*}", text))
                assert named <= {"{N}", "{t}", "{t:gen}", "{t:dat}", "{t:akk}", "{v}"} | {
                    "{built}",
                    "{stands}",
                }, text
                assert code == "de" or not named & {"{t:gen}", "{t:dat}", "{t:akk}"}, text
        assert len([q for q in questions if q.startswith("~")]) >= 2, name
        assert all(("{v}" in t) for t in statements), name
        assert not any(("{v}" in t) for t in questions), name
    spec = DATA["languages"][code]
    for key in ("instructions", "headings", "labels"):
        seen_words |= {w for t in spec[key] if not t.startswith("~") for w in words_of(t)}
        marked += [t[1:] for t in spec[key] if t.startswith("~")]
    unknown = {w for t in marked for w in words_of(t)} - seen_words
    assert not unknown


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", re.sub(r"{[^}]*}", "", text).lower())


def test_values_match_between_languages():
    for name, values in DATA["values"].items():
        assert len(values["en"]) == len(values["de"]) == len(set(values["de"])), name
