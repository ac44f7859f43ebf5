"""Rows about examples, classes and values: what they hold, and what is held out."""

import json
import random
import re
from collections import Counter

import pytest
from recipes.starter.examples import LANGUAGES, TASKS, Examples, data, expand, slots_of
from recipes.starter.rows import words_of

from detour.training.phrasing import bare

COUNT = 3000


@pytest.fixture(scope="module")
def examples():
    return Examples()


@pytest.fixture(scope="module")
def rows(examples):
    rng = random.Random(11)
    return {sort: [draw(rng) for _ in range(COUNT)] for sort, draw in examples.sorts.items()}


@pytest.fixture(scope="module")
def cases(examples):
    return {bar: examples.cases(bar, 400, random.Random(7)) for bar in examples.bars}


def said(messages):
    return "\n".join(message["content"] for message in messages)


def classes(examples):
    """(language, task, class, pool) of every pool."""
    for language, tasks in examples.pools.items():
        for task, pools in tasks.items():
            for name, pool in pools.items():
                yield language, task, name, pool


def test_the_same_seed_draws_the_same(examples):
    other = Examples()
    for sort, draw in examples.sorts.items():
        one, two = random.Random(3), random.Random(3)
        assert [draw(one) for _ in range(50)] == [other.sorts[sort](two) for _ in range(50)]
    for bar in examples.bars:
        assert examples.cases(bar, 20, random.Random(3)) == other.cases(bar, 20, random.Random(3))
        assert examples.cases(bar, 20, random.Random(3)) != other.cases(bar, 20, random.Random(4))


def test_every_class_has_many_sentences_and_no_sentence_two_classes(examples):
    for language in LANGUAGES:
        assert len(examples.pools[language]["topic"]) == 14
        for task, pools in examples.pools[language].items():
            every = [text for pool in pools.values() for text in {*pool.seen, *pool.held}]
            assert len(every) == len(set(every)), task
    for language, task, name, pool in classes(examples):
        least = 150 if task == "topic" else 120
        assert len(pool.seen) >= least, (language, task, name)
        assert len(pool.held) >= 50, (language, task, name)
        assert not set(pool.seen) & set(pool.held)


def test_sentences_are_whole(examples):
    for *_, pool in classes(examples):
        for text in pool.seen + pool.held:
            assert text[0].isupper() or text[0] == "¿"
            assert text[-1] in ".?"
            assert not re.search(r"[{}~]|  ", text)


def words(text):
    return set(re.findall(r"\w+", re.sub(r"\{\w+\}", " ", text.lower())))


def groups():
    """(where, phrases, words of the slots) of everything that holds phrases."""
    for language in LANGUAGES:
        told = data()[language]
        for name in ("shots", "few_shot", "layouts"):
            yield f"{language} {name}", told[name], set()
        yield f"{language} extract", told["extract"]["instructions"], set()
        yield f"{language} texts", told["extract"]["templates"], {"bestellnummer"}
        for task in TASKS:
            asked = told["classify"][task]
            yield f"{language} {task}", asked["listed"] + asked["open"], set()
        for name, topic in told["topics"].items():
            yield f"{language} {name}", topic["templates"], slot_words(topic)
        mood, form = told["sentiment"], told["form"]
        yield f"{language} mood", [p for n in told["sentiment_names"] for p in mood[n]], set()
        yield f"{language} form", form["question"] + form["statement"], slot_words(form)
    for name, told in data()["languages"].items():
        yield f"{name} sentences", told["templates"], slot_words(told)


def slot_words(told):
    return {word for values in told["slots"].values() for v in values for word in words(v)}


def test_held_out_phrases_are_new_but_use_known_words():
    for where, phrases, more in groups():
        seen = [p for p in phrases if not p.startswith("~")]
        held = [p for p in phrases if p.startswith("~")]
        assert len(held) >= 2, where
        assert len(seen) >= (2 if "form" in where else 6), where
        assert not {bare(p) for p in held} & set(seen), where
        known = more.union(*(words(p) for p in seen))
        assert not {w for p in held for w in words(bare(p)) - known}, where


def test_topics_have_enough_templates():
    for language in LANGUAGES:
        for name, topic in data()[language]["topics"].items():
            held = [t for t in topic["templates"] if t.startswith("~")]
            assert len(held) >= 3, name
            assert len(topic["templates"]) - len(held) >= 12, name


def test_no_held_out_sentence_is_drawn(examples, rows, cases):
    whole = "\n".join(words_of(row) for sort in ("few_shot", "classify") for row in rows[sort])
    asked = "\n".join(said(case.messages) for case in cases["classification"])
    found = 0
    for _, _, _, pool in classes(examples):
        seen = "\n".join(pool.seen)
        held = [text for text in pool.held if text not in seen]
        assert not [text for text in held if text in whole]
        found += sum(text in asked for text in held)
    assert found > 200  # the same search finds those of the examination


def patterns(examples, held_out):
    """What a message before the answer looks like for each pair of wordings."""
    found = []
    for language in LANGUAGES:
        for (task, _), wordings in examples.asked[language].items():
            names = "|".join(examples.class_names[language][task].values())
            for told, layout in wordings.held if held_out else wordings.seen:
                shape = "{instruction}" if layout == "system" else layout
                shape = re.escape(shape.replace("{instruction}", told))
                shape = shape.replace(r"\{labels\}", rf"(?:(?:{names})(?:, | or | oder |\b))+")
                role = "system" if layout == "system" else "user"
                found.append((role, re.compile(shape.replace(r"\{text\}", "(?P<text>.+)"))))
    return found


def matches(messages, found, texts):
    first = messages[0]
    for role, pattern in found:
        if role == first["role"] and (match := pattern.fullmatch(first["content"])):
            text = match.groupdict().get("text")
            if text is None or text in texts:
                return True
    return False


def test_no_held_out_wording_of_classification_is_drawn(examples, rows, cases):
    texts = {t for *_, pool in classes(examples) for t in pool.seen + pool.held}
    texts |= {t.rstrip("?.") for t in texts}
    held, seen = patterns(examples, True), patterns(examples, False)
    for row in rows["classify"][:300]:
        assert matches(row.messages, seen, texts), row
        assert not matches(row.messages, held, texts), row
    for case in cases["classification"][:150]:
        assert matches(case.messages, held, texts), case
        assert not matches(case.messages, seen, texts), case


def test_no_marked_instruction_is_drawn(rows):
    for language in LANGUAGES:
        told = data()[language]
        marked = [p for p in told["few_shot"] + told["extract"]["instructions"] if p[0] == "~"]
        whole = "\n".join(words_of(row) for sort in ("few_shot", "extract") for row in rows[sort])
        for phrase in marked:
            pattern = re.escape(bare(phrase))
            pattern = re.sub(r"\\\{\w+\\\}", '[\\\\w", ]+?', pattern)
            assert not re.search(rf"(?m)^{pattern}", whole), phrase


def test_labels_and_names_of_the_examinations_are_new(examples, rows, cases):
    for case in cases["few-shot, made-up labels"]:
        assert case.right in examples.words.held
    answers = {m["content"] for r in rows["few_shot"] for m in r.messages if m["role"][0] == "a"}
    assert not answers & set(examples.words.held)
    assert len(answers & set(examples.words.seen)) > 800
    held = set(examples.names.held)
    drawn = "\n".join(words_of(row) for row in rows["extract"])
    assert not held & set(re.findall(r"\w+", drawn))
    asked = "\n".join(said(case.messages) for case in cases["extraction to JSON"])
    names = set(examples.names.seen)
    assert not names & set(re.findall(r"\w+", asked))


def topic_patterns(language):
    """Sentences of each topic, read from the data anew."""
    for name, topic in data()[language]["topics"].items():
        for template in topic["templates"]:
            pattern = re.escape(bare(template))
            for slot in set(slots_of(template)):
                values = "|".join(map(re.escape, topic["slots"][slot]))
                pattern = pattern.replace(rf"\{{{slot}\}}", f"(?:{values})")
            yield name, re.compile(pattern, re.IGNORECASE)


def told_labels(case, found):
    """(topic, label told after the sentence or None) of every sentence of a prompt, in order."""
    text = said(case.messages)
    hits = sorted((m.start(), -m.end(), name) for name, p in found for m in p.finditer(text))
    end, spans = 0, []
    for start, stop, name in hits:
        if start >= end:
            end = -stop
            spans.append((start, end, name))
    limits = [start for start, _, _ in spans[1:]] + [len(text)]
    for (_, stop, name), limit in zip(spans, limits, strict=True):
        after = text[stop:limit].split("\n\n")[0]
        told = re.findall(r"\b[a-zäöüß]+\b", after)
        yield name, told[0] if told else None


def test_the_examples_decide_the_right_label(examples, cases):
    found = {language: list(topic_patterns(language)) for language in LANGUAGES}
    sizes = Counter()
    for case in cases["few-shot, made-up labels"]:
        *shots, (topic, open_label) = told_labels(case, found[case.language])
        assert open_label is None
        labels = dict(shots)
        assert all(labels[name] == label for name, label in shots), case
        assert labels[topic] == case.right, case
        assert case.passed(labels[topic])
        assert len(set(labels.values())) == len(labels)
        assert 2 <= len(shots) <= 8
        sizes[len(labels)] += 1
    assert set(sizes) == {2, 3, 4}


def test_without_examples_the_queries_are_the_same(examples, cases):
    found = {language: list(topic_patterns(language)) for language in LANGUAGES}
    few, zero = cases["few-shot, made-up labels"], cases["zero-shot, made-up labels"]
    for one, two in zip(few, zero, strict=True):
        assert one.right == two.right
        assert one.language == two.language
        ((topic, _),) = told_labels(two, found[two.language])
        assert topic == list(told_labels(one, found[one.language]))[-1][0]
        assert re.search(rf"\b{two.right}\b", said(two.messages))


def test_made_up_labels_are_learned_only_after_their_first_example(rows):
    unlearned = 0
    for row in rows["few_shot"]:
        answers = [m for m in row.messages if m["role"] == "assistant"]
        marked = [m for m in answers if "learned" in m]
        known = set()
        for message in answers if marked else []:
            assert message.get("learned", True) is (message["content"] in known)
            known.add(message["content"])
        unlearned += bool(marked)
        assert answers[-1].get("learned", True)
    assert 0.3 < unlearned / COUNT < 0.4


def test_examinations_carry_no_marks(cases):
    for bar in cases.values():
        assert all(set(m) == {"role", "content"} for case in bar for m in case.messages)
        assert all(case.messages[-1]["role"] == "user" for case in bar)


def test_classes_are_answered_rightly(examples, cases, rows):
    asked = [(case.messages, case.right, case.language) for case in cases["classification"]]
    for messages, right, language in asked:
        text = said(messages)
        found = {
            (task, examples.class_names[language][task][name])
            for where, task, name, pool in classes(examples)
            if where == language
            for sentence in pool.held
            if sentence.rstrip("?.") in text
        }
        assert right in {label for _, label in found}, text
    answers = Counter(row.messages[-1]["content"] for row in rows["classify"])
    for language in LANGUAGES:
        for names in examples.class_names[language].values():
            assert all(answers[name] > 5 for name in names.values())


def test_values_are_copied_in_the_order_asked_for(examples, rows, cases):
    asked = [(row.messages[:-1], row.messages[-1]["content"]) for row in rows["extract"]]
    asked += [(case.messages, case.right) for case in cases["extraction to JSON"]]
    missing = 0
    for messages, right in asked:
        text, answer = said(messages), json.loads(right)
        assert json.dumps(answer, ensure_ascii=False) == right
        assert all(value is None or value in text for value in answer.values())
        positions = r"\W+(?:(?:and|und)\s+\W*)?".join(answer)
        assert re.search(rf"\b{positions}\b", text), text
        missing += None in answer.values()
        assert any(answer.values())
        if answer.get("email", "") is None:
            assert "@" not in text
    assert 0.15 < missing / len(asked) < 0.25


def test_both_languages_come_equally_often(rows, cases):
    for bar in cases.values():
        assert Counter(case.language for case in bar) == {"en": 200, "de": 200}
    german = r"\b(der|die|das|ist|ich|und|Text|Gib|als)\b"
    whole = [bool(re.search(german, words_of(r).replace("Text:", ""))) for r in rows["extract"]]
    assert 0.4 < sum(whole) / COUNT < 0.6


def test_a_held_out_sentence_equal_to_a_seen_one_is_dropped():
    pool = expand(["{a} runs.", "~{a} runs."], {"a": list("abcdefghijklmnop")})
    assert pool.seen
    assert not set(pool.seen) & set(pool.held)
