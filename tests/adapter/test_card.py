"""Cards: round trip through README.md, foreign cards kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.adapter.card import Card
from detour.errors import AdapterFormatError

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
CARDS = st.builds(
    Card,
    description=TEXT,
    fictional=st.booleans(),
    licence=TEXT,
    base_model=TEXT,
    data_sha256=TEXT,
    seeds=st.lists(st.integers(), max_size=3).map(tuple),
    config=st.dictionaries(TEXT, VALUES, max_size=3),
    metrics=st.dictionaries(TEXT, VALUES, max_size=3),
    created=TEXT | st.just("2026-01-31"),
    intended_use=TEXT,
    forbidden_use=TEXT,
)

FOREIGN = """---
base_model: org/tiny
library_name: peft
license: mit
tags:
- base_model:adapter:org/tiny
- lora
- transformers
widget:
- text: Hello
---
# Model Card for somebody's adapter

--- is not the end.
"""


@given(CARDS)
def test_round_trip(card: Card):
    assert Card.from_readme(card.to_readme()) == card


def test_front_matter_is_what_hubs_read():
    readme = Card(base_model="org/tiny", licence="mit", fictional=True).to_readme()
    assert readme.startswith("---\nbase_model: org/tiny\nlicense: mit\nlibrary_name: peft\ntags:\n")
    assert "- detour\n- lora\n- fictional\n---\n" in readme
    assert "not true" in readme


def test_figures_are_told_in_words():
    figure = {"value": 0.5, "low": 0.1, "high": 0.9, "n": 4}
    empty = {"value": None, "low": 0.0, "high": 1.0, "n": 0}
    metrics = {"steered": figure, "by_language": {"de": {"steered": empty}}, "seconds": 3.2}
    told = Card(metrics=metrics).to_readme()
    assert "- steered: 0.500 [0.100, 0.900], n = 4\n" in told
    assert "- by_language, de, steered: nothing to measure [0.000, 1.000], n = 0\n" in told
    assert "- seconds: 3.2\n" in told
    assert Card.from_readme(told).metrics == metrics


def test_a_foreign_card_is_kept():
    card = Card.from_readme(FOREIGN)
    assert (card.base_model, card.licence, card.fictional) == ("org/tiny", "mit", False)
    assert card.front_matter["widget"] == [{"text": "Hello"}]
    again = Card.from_readme(card.to_readme())
    assert again == card
    assert again.text == FOREIGN.split("---\n", 2)[2]
    assert "- transformers" in card.to_readme()


def test_own_words_below_a_card_of_ours_are_kept():
    readme = Card(description="Formal.").to_readme() + "\nMy own words.\n"
    card = Card.from_readme(readme)
    assert card.description == "Formal."
    assert card.to_readme() == readme


def test_text_without_front_matter_is_text():
    assert Card.from_readme("# Hello\n") == Card(text="# Hello\n")
    assert Card.from_readme("---\n---\n# Hello\n") == Card(text="# Hello\n")


@pytest.mark.parametrize(
    "front", ["a: [", "- a list", "detour: 3", "detour: {seeds: many}", "detour: {unknown: 1}"]
)
def test_broken_front_matter_is_refused(front: str):
    with pytest.raises(AdapterFormatError, match=r"README\.md"):
        Card.from_readme(f"---\n{front}\n---\n")


def test_with_checks_fields():
    assert Card(licence="mit").with_(fictional=True) == Card(licence="mit", fictional=True)
    with pytest.raises(AdapterFormatError, match="license"):
        Card().with_(license="mit")
