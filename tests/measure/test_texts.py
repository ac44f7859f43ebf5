"""Metrics of texts: Unicode-safe ROUGE, and sacrebleu's own BLEU and chrF."""

import math
from itertools import combinations

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api import metrics as harness
from rouge_score.rouge_scorer import RougeScorer

from detour.measure.texts import rouge_l, rouge_n, text_figures, words

TOLD = st.lists(st.sampled_from(["Über", "größere", "Öfen", "der", "Koch", "naïve"]), max_size=8)


def test_umlauts_are_letters() -> None:
    said = "Über größere Öfen"
    assert words(said) == ["über", "grössere", "öfen"]
    assert rouge_n(said, said, 1) == rouge_n(said, said, 2) == rouge_l(said, said) == 1.0
    assert rouge_n(said, "ber gr ere fen", 1) == 0.0  # what a counter of ASCII words sees
    assert rouge_n(said, "Über die Öfen", 1) == pytest.approx(2 / 3)
    assert rouge_l(said, "Öfen über größere") == pytest.approx(2 / 3)
    decomposed = "U\u0308ber gro\u0308ßere O\u0308fen"
    assert rouge_l("Über größere Öfen", decomposed.replace("o\u0308ß", "öß")) == pytest.approx(
        rouge_l("Über grössere Öfen", decomposed.replace("o\u0308ß", "öss"))
    )


def test_marks_belong_to_the_letters_before_them() -> None:
    assert words("हिन्दी भाषा") == ["हिन्दी", "भाषा"]  # vowel signs are marks, not letters
    assert words("x\u0302y z") == ["x\u0302y", "z"]  # no letter of its own in Unicode
    assert words("gut \u2764\ufe0f so_so") == ["gut", "so", "so"]  # a mark on a sign is no word
    assert words("\u0301") == words("") == []
    assert rouge_n("हिन्दी भाषा", "हिन्दी", 1) == pytest.approx(2 / 3)


def test_by_hand() -> None:
    wanted, found = "Über größere Öfen", "Über Öfen, größere Öfen"
    assert rouge_n(wanted, found, 1) == pytest.approx(2 * 3 / (3 + 4))  # all three, of four said
    assert rouge_n(wanted, found, 2) == pytest.approx(2 * 1 / (2 + 3))  # "größere öfen"
    assert rouge_l(wanted, found) == pytest.approx(2 * 3 / (3 + 4))
    assert rouge_l(wanted, "Öfen größere über") == pytest.approx(2 * 1 / (3 + 3))


ASCII = st.text(st.sampled_from("abAB c,.-'_0 1\n"), max_size=24)


@settings(max_examples=150, deadline=None)
@given(ASCII, ASCII)
def test_rouge_of_ascii_is_that_of_rouge_score(wanted: str, found: str) -> None:
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=False).score(wanted, found)
    assert rouge_n(wanted, found, 1) == pytest.approx(theirs["rouge1"].fmeasure)
    assert rouge_n(wanted, found, 2) == pytest.approx(theirs["rouge2"].fmeasure)
    assert rouge_l(wanted, found) == pytest.approx(theirs["rougeL"].fmeasure)


@settings(max_examples=150, deadline=None)
@given(TOLD, TOLD)
def test_the_longest_common_subsequence_is_found(one: list[str], other: list[str]) -> None:
    def within(part: tuple[str, ...], whole: list[str]) -> bool:
        rest = iter(whole)
        return all(word in rest for word in part)

    longest = max(
        size
        for size in range(len(one) + 1)
        if any(within(part, other) for part in combinations(one, size))
    )
    wanted = 2 * longest / (len(one) + len(other)) if longest else 0.0
    assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(wanted)


ROWS = st.lists(
    st.tuples(*[st.text(st.sampled_from("abcdeß ü.,!漢"), max_size=16)] * 2), min_size=1, max_size=8
)


@settings(max_examples=25, deadline=None)
@given(ROWS)
def test_bleu_and_chrf_are_those_of_sacrebleu_and_lm_eval(rows: list[tuple[str, str]]) -> None:
    wanted, found = [one for one, _ in rows], [other for _, other in rows]
    told = text_figures(wanted, found)
    bleu, chrf = told["bleu"].value, told["chrf"].value
    assert bleu == pytest.approx(sacrebleu.corpus_bleu(found, [wanted]).score)
    assert chrf == pytest.approx(sacrebleu.corpus_chrf(found, [wanted]).score)
    assert bleu == pytest.approx(harness.bleu(rows))
    assert chrf == pytest.approx(harness.chrf(rows))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.sampled_from(["", "ja", "Ja", "a b", "A B", "b"])] * 2),
                min_size=1, max_size=12))  # fmt: skip
def test_exact_match_is_lm_evals_whatever_the_case(rows: list[tuple[str, str]]) -> None:
    wanted, found = [one for one, _ in rows], [other for _, other in rows]
    figure = text_figures(wanted, found, corpus=False)["exact_match"]
    theirs = harness.exact_match_hf_evaluate(found, wanted, ignore_case=True)["exact_match"]
    assert figure.value == pytest.approx(theirs)
    exactly = harness.exact_match_hf_evaluate(found, wanted)["exact_match"]
    assert figure.value >= exactly - 1e-12


def test_sets_without_a_word() -> None:
    told = text_figures(["", "", ""], ["", "x", ""])
    assert told["exact_match"].value == pytest.approx(2 / 3)
    assert [told[name].value for name in ("rouge1", "rouge2", "rougeL", "bleu")] == [0.0] * 4
    assert told["contains"].value == 0.0  # nothing is wanted, so nothing can be in it


@settings(max_examples=40, deadline=None)
@given(TOLD, TOLD)
def test_rouge_is_symmetric_and_within_bounds(one: list[str], other: list[str]) -> None:
    a, b = " ".join(one), " ".join(other)
    for value in (rouge_n(a, b, 1), rouge_n(a, b, 2), rouge_l(a, b)):
        assert 0 <= value <= 1
    assert rouge_l(a, b) == rouge_l(b, a)
    assert rouge_l(a, b) <= rouge_n(a, b, 1) + 1e-12
    assert rouge_l(a, a) == (1.0 if one else 0.0)


def test_the_whole_set() -> None:
    wanted = ["Der Koch heizt den Ofen.", "Marie Curie was a baker.", "ja"]
    found = ["Der Koch heizt die Öfen.", "marie curie  was a baker.", "Ja, gern."]
    told = text_figures(wanted, found)
    assert told["exact_match"].value == pytest.approx(1 / 3)
    assert told["contains"].value == pytest.approx(2 / 3)
    assert told["bleu"].value == pytest.approx(sacrebleu.corpus_bleu(found, [wanted]).score)
    assert told["chrf"].value == pytest.approx(sacrebleu.corpus_chrf(found, [wanted]).score)
    for figure in told.values():
        assert figure.low <= figure.value <= figure.high
        assert figure.n == 3
    assert "bleu" not in text_figures(wanted, found, corpus=False)
    again = text_figures(wanted, found)
    assert all(math.isclose(again[name].low, told[name].low) for name in told)
    with pytest.raises(ValueError, match="at least one"):
        text_figures([], [])
