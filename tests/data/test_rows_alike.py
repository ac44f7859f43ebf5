"""Duplicates, damage, languages and misspelled classes."""

import random
from pathlib import Path

import numpy as np
import pytest

import detour
from detour.data.damage import is_damaged, repaired
from detour.data.duplicates import NEAR, Digests, near_duplicates, near_others, shingles
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
    found = {place for place, _ in near_duplicates([(text, "") for text in texts])}
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
    assert near_others([told + "s", "Something else entirely"], [told]) == [0]


def test_near_duplicates_are_answered_alike_and_repeat_what_is_kept() -> None:
    told = "The quick brown fox jumps over the lazy dog near the river bank"
    rows = [
        (told, "yes"),
        (f"{told}s", "no"),
        (f"{told}!", "yes"),
        (told, "yes"),
        (told, "yes sir"),
    ]
    assert near_duplicates(rows) == [(2, 0)]
    long = "it is the river bank that it jumps over"
    assert near_duplicates([(told, long), (told, f"{long}.."), (told, long)]) == [(1, 0)]


@pytest.mark.parametrize("text", ["Größe", "naïve – “quoted” café", "Straße in Zürich kostet 5 €"])
def test_one_wrong_decoding_is_seen_and_undone(text: str) -> None:
    wrong = text.encode().decode("windows-1252", "ignore")
    if wrong.encode("windows-1252") == text.encode():
        assert is_damaged(wrong)
        assert repaired(wrong) == text
    assert not is_damaged(text)
    assert repaired(text) == text


def misread(text: str) -> str:
    """UTF-8 read as Windows-1252, as browsers do it: five bytes stand for nothing there, and become
    control characters.
    """
    told = ""
    for byte in text.encode():
        try:
            told += bytes([byte]).decode("cp1252")
        except UnicodeDecodeError:
            told += chr(byte)
    return told


@pytest.mark.parametrize(
    "text",
    [
        "Er sagte: “Größe” – und „nein“ zu ‘Á’.", "À la carte, Íñigo, Ýmir, Ï", "Zürich\u00a0à",
        "żółć i gęś", "5 € für ein œuvre™", "Österreich → Übermut", "Öl", "schön 😀", "Привет, Öl",
    ],
)  # fmt: skip
def test_every_letter_of_a_wrong_decoding_comes_back(text: str) -> None:
    """Also where a byte stands for nothing in Windows-1252, and in Latin-1."""
    for wrong in (misread(text), text.encode().decode("latin-1")):
        assert is_damaged(wrong)
        assert repaired(wrong) == text
    assert repaired(text) == text
    assert not is_damaged(text)


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ("fÃ¼r → uns", "für → uns"),
        ("fÃ¼r 😀", "für 😀"),
        ("„grÃ¶ÃŸer“ als größer", "„größer“ als größer"),
        ("so â€œsaidâ€\x9d → he", "so “said” → he"),
        ("kostet 5 â‚¬ → wenig", "kostet 5 € → wenig"),
        ("schÃ¶n ðŸ˜€ → 😀", "schön 😀 → 😀"),
        ("„CAFÉ“ fÃ¼r alle", "„CAFÉ“ für alle"),
        ("20Â°C → warm, â€¦", "20°C → warm, …"),
        ("proszÄ™ → źle", "proszę → źle"),
        ("6 Ã— 7 ≥ 5, 3 â‰¤ 4", "6 × 7 ≥ 5, 3 ≤ 4"),
        ("Â« oui Â» → non", "« oui » → non"),
    ],
)
def test_a_wrong_decoding_is_undone_beside_what_was_read_rightly(wrong: str, right: str) -> None:
    assert is_damaged(wrong)
    assert repaired(wrong) == right


@pytest.mark.parametrize(
    "text",
    [
        "SÃO PAULO é grande", "„CAFÉ“", "auf „PÅ“ und BÄ“", "PÅ“ og hjem", "“MAÇÔ, “IRMÔ", "IRMÃ…",
        "12 Å² und 10 Å³ je Kanal", "»MAMÄ«", "»Café«…", "TÄMÄ\u00a0ON", "AMANHÃ\u00a0É", "4 Å–6 Å",
        "Â und Ã", "ÄÖÜ – äöü", "naïve “quotes” → ‘ok’", "Þórður Ðað", "ÑANDÚ", "Ελληνικά, русский",
    ],
)  # fmt: skip
def test_rare_but_right_letters_stay(text: str) -> None:
    assert not is_damaged(text)
    assert repaired(text) == text


def test_no_line_of_our_own_texts_is_taken_for_damage() -> None:
    """Thousands of lines with umlauts, quotes and signs; and most come back from a misreading."""
    paths = [*Path(detour.__file__).parent.rglob("*.yaml")]
    lines = [line for path in paths for line in path.read_text("utf-8").splitlines()]
    odd = [line for line in lines if not line.isascii() and "Ã" not in line]
    assert len(odd) > 500
    assert [line for line in odd if is_damaged(line)] == []
    back = sum(repaired(misread(line)) == line for line in odd)
    assert back >= 0.99 * len(odd)


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
