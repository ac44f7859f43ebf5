"""Metrics of texts: Unicode-safe ROUGE, and sacrebleu's own BLEU and chrF."""

import math

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

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
