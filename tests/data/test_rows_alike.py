"""Duplicates, damage, languages and misspelled classes."""

import random

import numpy as np
import pytest

from detour.data.damage import is_damaged, repaired
from detour.data.duplicates import NEAR, Digests, near_duplicates, shingles
from detour.data.labels import likely_typos, same_but_form
from detour.data.languages import language_of


def digests(*texts: str) -> Digests:
    found = Digests()
    for text in texts:
        found.add(text)
    return found


def test_repeated_rows_are_all_but_the_first_whatever_their_case() -> None:
    assert digests("a b", "c", "A  B", "c", "d", "a b").repeated() == [2, 3, 5]
    assert digests().repeated() == []
    assert digests("straße", "STRASSE", "stra\u00dfe").repeated() == [1, 2]
    assert digests("\u00e9", "e\u0301").repeated() == [1]


def test_rows_of_one_part_within_another() -> None:
    assert digests("x", "a", "y").within(digests("a", "b", "X")) == [0, 1]


def test_the_same_input_with_another_answer_contradicts_the_first() -> None:
    inputs, answers = digests("a", "a", "b", "a"), digests("1", "2", "1", "1")
    assert inputs.contradicted(answers) == [1]


def test_near_duplicates_are_those_of_a_search_of_all_pairs() -> None:
    """Beside the true similarity of every pair; sketches may miss one that is close to the edge."""
    rng = random.Random(1)
    words = [f"word{number}" for number in range(200)]
    texts = [" ".join(rng.choices(words, k=20)) for _ in range(60)]
    for place in range(30):
        parts = texts[place].split()
        for _ in range(place % 4):
            parts[rng.randrange(20)] = rng.choice(words)
        texts.append(" ".join(parts))
    found = {place for place, _ in near_duplicates(texts)}
    sets = [shingles(text) for text in texts]

    def similarity(place: int) -> float:
        shares = [len(sets[place] & s) / len(sets[place] | s) for s in sets[:place]
                  if s != sets[place]]  # fmt: skip
        return max(shares, default=0.0)

    similar = np.array([similarity(place) for place in range(len(texts))])
    assert found <= set(np.flatnonzero(similar >= NEAR).tolist())
    assert found >= set(np.flatnonzero(similar >= 0.92).tolist())
    assert len(found) >= 7


def test_near_duplicates_against_another_part() -> None:
    told = "The quick brown fox jumps over the lazy dog near the river bank"
    assert near_duplicates([told + "s", "Something else entirely"], [told]) == [(0, 0)]


@pytest.mark.parametrize("text", ["Größe", "naïve – “quoted” café", "Straße in Zürich kostet 5 €"])
def test_one_wrong_decoding_is_seen_and_undone(text: str) -> None:
    wrong = text.encode().decode("windows-1252", "ignore")
    if wrong.encode("windows-1252") == text.encode():
        assert is_damaged(wrong)
        assert repaired(wrong) == text
    assert not is_damaged(text)
    assert repaired(text) == text


def test_damage_that_cannot_be_undone_is_still_seen() -> None:
    assert is_damaged("Gr\ufffd\ufffde")
    assert repaired("Gr\ufffd\ufffde") == "Gr\ufffd\ufffde"
    assert not is_damaged("SÃO PAULO é grande")  # a Portuguese word, and no wrong decoding


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Wer war Albert Einstein, und wo wurde er geboren?", "de"),
        ("Who was Albert Einstein, and where was he born?", "en"),
        ("Qui était-il et où est sa maison dans la ville ?", "fr"),
        ("Quién es y cuando fue la boda de los dos", "es"),
        ("Berlin 1905", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages_by_their_common_words(text: str, language: str) -> None:
    assert language_of(text) == language


def test_rare_names_that_resemble_frequent_ones_may_be_slips() -> None:
    counts = {"positive": 60, "negative": 58, "positve": 1, "Negative": 9, "neutral": 20}
    assert likely_typos(counts) == {"positve": "positive"}
    assert likely_typos({"1": 50, "11": 1, "0": 40}) == {}
    assert likely_typos({"cat": 50, "car": 1}) == {}
    assert likely_typos({"sales": 50, "scales": 40}) == {}
    assert likely_typos({"positive": 50, "Positve": 1, "positve": 1}) == {"Positve": "positive"}


def test_names_that_differ_in_form_only_are_one_class() -> None:
    counts = {"positive": 60, "Positive": 70, " positive.": 2, '"POSITIVE"': 1, "negative": 9}
    assert set(same_but_form(counts)) == {"positive", " positive.", '"POSITIVE"'}
    assert set(same_but_form(counts).values()) == {"Positive"}
    assert same_but_form({"top-5": 3, "top_5": 2, "top 5": 1}) == {
        "top_5": "top-5", "top 5": "top-5",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("frequent", "rare"),
    [
        ("legal", "illegal"), ("active", "inactive"), ("valid", "invalid"), ("known", "unknown"),
        ("male", "female"), ("1", "-1"), ("A", "A-"), ("A", "A+"), ("?", "!"), (".", ","),
        ("5", ".5"), ("15", "1-5"), ("1 5", "1-5"), ("yes", "yes!"),
    ],
)  # fmt: skip
def test_opposites_are_two_classes(frequent: str, rare: str) -> None:
    """However rare one of them is; also where one name holds the other, or only a sign differs."""
    for counts in ({frequent: 975, rare: 25}, {frequent: 1000, rare: 1}):
        assert same_but_form(counts) == {}
        assert likely_typos(counts) == {}
