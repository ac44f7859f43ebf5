"""Answers beside those in rows: as long as they must be, and those that were cut are known."""

from pathlib import Path

import pytest

from detour.errors import BaseError, RequestError
from detour.model.answering import BEYOND, FEWEST, answers_to, room_for, too_long
from detour.model.base import Base
from detour.model.examples import pair


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    return Base.load(str(tiny_folder))


LONG = "a " * 90
"""An answer of some ninety tokens."""


def test_the_longest_answer_has_room(base: Base) -> None:
    short = pair("Who?", "Nobody.")
    assert room_for(base, [short]) == FEWEST
    tokens = len(base.tokenizer.encode(LONG, add_special_tokens=False))
    assert tokens > FEWEST
    assert room_for(base, [short, pair("Say a.", LONG)]) == tokens + 1 + BEYOND


def test_answers_are_those_of_asking(base: Base) -> None:
    rows = [pair("Who?", "Nobody."), pair("And where was that?", "Here.", system="Be brief.")]
    found = answers_to(base, rows, max_new_tokens=8)
    prompts = [[dict(turn) for turn in row.messages[:-1]] for row in rows]
    assert [one.text for one in found] == base.ask_many(prompts, max_new_tokens=8)
    ended = [one.finish.value == "stop" for one in base.generate(prompts, max_new_tokens=8)]
    assert [not one.cut for one in found] == ended


def test_a_row_takes_no_more_than_its_context_has(base: Base) -> None:
    """A long question leaves less room; the others keep theirs."""
    filling = pair("a " * 55, "b")
    room = base.longest - len(base.chat("a " * 55))
    assert 0 < room < FEWEST
    found = answers_to(base, [pair("Who?", "Nobody."), filling])
    alone = [base.ask("Who?", max_new_tokens=FEWEST), base.ask("a " * 55, max_new_tokens=room)]
    assert [one.text for one in found] == alone
    with pytest.raises(RequestError, match="too long"):
        answers_to(base, [pair("a " * 200, "b")])


def test_wanted_answers_beyond_the_limit_are_counted(base: Base) -> None:
    rows = [pair("Who?", "Nobody."), pair("Say a.", LONG)]
    assert too_long(base, rows, FEWEST) == 1
    assert too_long(base, rows, room_for(base, rows)) == 0
    assert answers_to(base, []) == []


def test_a_base_without_a_tokenizer_cannot_answer(tiny_llama) -> None:
    with pytest.raises(BaseError, match="has no tokenizer"):
        room_for(Base.from_model(tiny_llama), [pair("Who?", "Nobody.")])
