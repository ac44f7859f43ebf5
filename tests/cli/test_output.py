import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.cli import output
from detour.errors import DataError

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=4,
)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.dictionaries(words, json_values, max_size=3))
def test_json_is_one_line_and_reads_back(value):
    before, sys.stdout = sys.stdout, io.StringIO()
    try:
        output.print_json(value)
        text = sys.stdout.getvalue()
    finally:
        sys.stdout = before
    assert text.count("\n") == 1
    assert json.loads(text) == value


def test_json_has_no_nan(capsys):
    output.print_json({"value": float("nan"), "range": (float("-inf"), 1.5)})
    assert json.loads(capsys.readouterr().out) == {"value": None, "range": [None, 1.5]}


@given(st.text())
def test_plain_keeps_everything_but_control_characters(text):
    clean = output.plain(text)
    assert all(character in "\n\t" or character.isprintable() or ord(character) > 159
               for character in clean)  # fmt: skip
    assert [c for c in text if c.isprintable()] == [c for c in clean if c.isprintable()]


def test_escape_sequences_of_a_model_never_reach_the_terminal(capsys):
    output.say("\x1b]0;owned\x07 he was\r a hairdresser\x9b2J")
    assert capsys.readouterr().out == "]0;owned he was a hairdresser2J\n"


def test_say_and_note_have_their_streams(capsys):
    output.say("result")
    output.note("remark")
    assert capsys.readouterr() == ("result\n", "remark\n")


def test_a_heading_is_bold_only_in_a_terminal(monkeypatch):
    for stream, expected in ((Terminal(), "\x1b[1mDose\x1b[0m\n"), (io.StringIO(), "Dose\n")):
        monkeypatch.setattr(sys, "stdout", stream)
        output.heading("Do\x07se")
        assert stream.getvalue() == expected


def test_an_error_for_people_and_for_programs(capsys):
    output.print_error(DataError("row 3", expected="messages"), as_json=True)
    out, err = capsys.readouterr()
    assert json.loads(out)["expected"] == "messages"
    assert err == "detour: row 3; expected messages\n"


def test_a_table_in_a_pipe_is_aligned_lines(capsys):
    output.print_table(("name", "rank"), [("formal", "8"), ("p\nun", "16")])
    assert capsys.readouterr().out == "name    rank\nformal  8\np un    16\n"


def test_a_table_in_a_terminal_shows_every_cell_and_no_markup(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    output.print_table(("name", "rank"), [("[bold]formal", "8"), ("pun", "16")])
    assert all(cell in terminal.getvalue() for cell in ("name", "[bold]formal", "pun", "16"))


@pytest.mark.parametrize(
    ("stdin", "stdout", "talking"), [(1, 1, True), (1, 0, False), (0, 1, False)]
)
def test_a_conversation_needs_both_ends(stdin, stdout, talking, monkeypatch):
    monkeypatch.setattr(sys, "stdin", Terminal() if stdin else io.StringIO())
    monkeypatch.setattr(sys, "stdout", Terminal() if stdout else io.StringIO())
    assert output.is_conversation() is talking


def test_a_missing_stream_is_no_terminal():
    assert not output.is_terminal(None)


def test_the_console_writes_to_stderr(capsys):
    output.console().print("step [1] of 2")
    assert capsys.readouterr() == ("", "step [1] of 2\n")
