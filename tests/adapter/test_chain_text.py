"""The text form of chains: round trip and clear refusals."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.adapter.chain_text import LayerWeight, TermText, parse, render
from detour.errors import ChainError

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.one_of(
    st.text(min_size=1, max_size=12),
    st.text('ab+:@{}",\\ ./-=\n', min_size=1, max_size=8),
)


@st.composite
def layers(draw: st.DrawFn) -> tuple[LayerWeight, ...]:
    edges = sorted(draw(st.sets(st.integers(0, 200), max_size=6)))
    pairs = zip(edges[::2], edges[1::2], strict=False)
    return tuple(LayerWeight(first, last, draw(NUMBERS)) for first, last in pairs)


TERMS = st.builds(TermText, NAMES, st.none() | NAMES, NUMBERS, layers())


@given(st.lists(TERMS, min_size=1, max_size=4))
def test_round_trip(terms: list[TermText]):
    assert parse(render(terms)) == tuple(terms)


@given(st.text('ab+:@{}",.=-0123456789elayrsn \\', max_size=30))
def test_any_text_is_read_or_refused_as_a_chain(text: str):
    try:
        terms = parse(text)
    except ChainError:
        return
    assert parse(render(terms)) == terms


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("formal", [TermText("formal")]),
        (" formal : 0.8 + pun ", [TermText("formal", None, 0.8), TermText("pun")]),
        ("a-b@v2:-1", [TermText("a-b", "v2", -1.0)]),
        ('"x/a+b:c":.5', [TermText("x/a+b:c", None, 0.5)]),
        ("./shelf/a:1e+2+b", [TermText("./shelf/a", None, 100.0), TermText("b")]),
        (
            "a:2{layers.0-2=0.3, layers.5=0}",
            [TermText("a", None, 2.0, (LayerWeight(0, 2, 0.3), LayerWeight(5, 5, 0.0)))],
        ),
    ],
)
def test_reads(text: str, terms: list[TermText]):
    assert parse(text) == tuple(terms)


def test_weights_are_short_and_exact():
    assert render([TermText("a", None, 0.8), TermText("b", None, 2.0)]) == "a:0.8+b:2"
    assert render([TermText("a", None, 0.1 + 0.2)]) == "a:0.30000000000000004"


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "name"),
        ("a+", 3, "name"),
        ("+a", 1, "name"),
        ("a b", 3, "`\\+`"),
        ("a:", 3, "finite number"),
        ("a:x", 3, "finite number"),
        ("a:nan", 3, "finite number"),
        ("a:inf", 3, "finite number"),
        ("a:1e999", 3, "range of a double"),
        ("a:0.8x", 6, "`\\+`"),
        ("a@", 3, "revision"),
        ('"a', 1, "closing"),
        ("a{", 3, "layers.N"),
        ("a{q=1}", 3, "layers.N"),
        ("a{layers.1}", 11, "`=`"),
        ("a{layers.1=1", 13, "`}`"),
        ("a{layers.1=1}{layers.2=1}", 14, "`\\+`"),
    ],
)
def test_names_the_column(text: str, column: int, expected: str):
    with pytest.raises(ChainError, match=f"column {column};.*{expected}") as refusal:
        parse(text)
    assert f"{text[: column - 1]}^{text[column - 1 :]}" in refusal.value.hint


def test_one_layer_has_one_weight():
    with pytest.raises(ChainError, match=r"layer 2 .* two weights.*layers\.0-2=1, layers\.2=0"):
        parse("a{layers.0-2=1,layers.2=0}")
    with pytest.raises(ChainError, match="backwards"):
        parse("a{layers.3-2=1}")
    with pytest.raises(ChainError, match="finite"):
        LayerWeight(0, 1, math.nan)
