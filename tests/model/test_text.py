import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.model.text import StopText, TextStream, cut


def decode(ids):
    """A byte per id, as byte-level tokenizers do; id 256 is a special token without text."""
    return bytes(n for n in ids if n < 256).decode("utf-8", errors="replace")


def stream(ids, stops=()):
    text = TextStream(decode, stops)
    return [*(text.push(n) for n in ids), text.finish()]


def test_cut_takes_the_first_stop_string():
    assert cut("one two three", ["three", "two"]) == "one "
    assert cut("one two", ["four"]) == "one two"
    assert cut("one two", []) == "one two"


def test_a_character_is_never_split():
    pieces = stream("aß🙂漢b".encode())
    assert [p for p in pieces if p] == ["a", "ß", "🙂", "漢", "b"]


def test_an_unfinished_character_comes_at_the_end():
    assert "".join(stream("a🙂".encode()[:-1])) == decode("a🙂".encode()[:-1])


def test_stop_strings_are_held_back_and_cut():
    pieces = stream(b"one STOX two STOP three", ["STOP"])
    assert "".join(pieces) == "one STOX two "
    assert all("S" not in p or p.startswith("STOX") for p in pieces)


def test_what_only_looked_like_a_stop_string_comes_at_the_end():
    assert "".join(stream(b"one STO", ["STOP"])) == "one STO"


@given(st.text(), st.lists(st.text(min_size=1, max_size=3), max_size=2))
def test_pieces_of_text_join_to_the_whole(text, stops):
    pieces = stream(text.encode(), stops)
    assert "".join(pieces) == cut(text, stops)
    assert all("\ufffd" not in p for p in pieces) or "\ufffd" in text


@given(st.lists(st.integers(0, 256), max_size=40))
def test_pieces_of_any_bytes_join_to_the_whole(ids):
    assert "".join(stream(ids)) == decode(ids)


@pytest.mark.parametrize("stop", ["b", "🙂", "cde"])
def test_a_stop_is_seen_with_its_last_token_and_not_before(stop):
    check = StopText(decode, [stop, "never"])
    ids = list(("x" * 30 + "abcde🙂").encode())
    seen = [check(ids[: n + 1]) for n in range(len(ids))]
    assert seen.index(True) == decode(ids).encode().index(stop.encode()) + len(stop.encode()) - 1
