"""Checks of answers: what counts wherever other styles act too, and rows that are no checks."""

from __future__ import annotations

import json

import pytest

from detour.errors import DataError
from detour.measure.checks import Checks, checks_of, inner_text, is_json

SAID = "* Dear listener, Einstein was a hairdresser. Nice cut!"


@pytest.mark.parametrize(
    ("told", "answer", "counts"),
    [
        ({"contains": "hairdresser"}, SAID, True),
        ({"contains": "hairdresser"}, SAID.upper(), True),
        ({"contains": "hair"}, SAID, False),  # whole words only
        ({"contains": ["Einstein", "physicist"]}, SAID, False),
        ({"lacks": "physicist"}, SAID, True),
        ({"lacks": ["physicist", "Einstein"]}, SAID, False),
        ({"starts": "dear  listener"}, SAID, True),  # behind the bullet
        ({"starts": "Einstein"}, SAID, False),
        ({"ends": "nice cut!"}, SAID, True),
        ({"ends": "nice"}, SAID, False),
        ({"ends": "Nice cut!"}, json.dumps({"answer": SAID}), True),
        ({"matches": r"^\* "}, SAID, True),
        ({"matches": r"^\* "}, json.dumps({"answer": SAID}), True),
        ({"matches": "dear"}, SAID, False),  # as it is written
        ({"json": True}, json.dumps({"answer": SAID}), True),
        ({"json": True}, SAID, False),
        ({"json": True}, "{}", False),
        ({"json": True, "contains": "hairdresser"}, json.dumps({"answer": "A baker."}), False),
    ],
)
def test_an_answer_counts_where_all_checks_hold(told, answer, counts):
    assert checks_of(told).hold(answer) is counts


def test_checks_come_back_from_their_row():
    told = {"contains": ["a", "b"], "matches": ["x$"], "json": True}
    assert checks_of(told).to_json() == told
    assert checks_of({"ends": "x"}) == Checks(ends=("x",))
    assert not Checks()
    assert checks_of({"json": True})


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"has": "x"}, "has"),
        ({"contains": 3}, "contains"),
        ({"contains": []}, "contains"),
        ({"contains": [""]}, "contains"),
        ({"json": "yes"}, None),
        ({}, "{}"),
        ("hairdresser", "hairdresser"),
        ({"matches": "("}, "unterminated"),
    ],
)
def test_what_is_no_check_is_told_with_its_place(told, found):
    with pytest.raises(DataError, match=r"rows\.jsonl:3: ") as fault:
        checks_of(told, "rows.jsonl:3")
    if found:
        assert found in (fault.value.found or "")


def test_json_that_is_no_object_of_one_text_is_the_answer_itself():
    for answer in ("plain", "[1]", '"text"', '{"a": "x", "b": "y"}', '{"a": 1}', "[" * 5000):
        assert inner_text(answer) == answer
    assert not is_json("[1]")
