"""Logs of feedback in the shapes that people bring: what is kept, what is corrected, what goes."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from detour.data.collect.feedback import FeedbackLog
from detour.data.collect.ratings import Range, mark_of
from detour.data.collect.rows import LeftOut, Row
from detour.errors import ConfigError, DataError

Found = list[Row | LeftOut]
Q, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}


def of(folder: Path, *lines: Mapping[str, Any], **options: Any) -> Found:
    path = folder / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    log = FeedbackLog(**options)
    log.look_at([path])
    return list(log.read(path))


def told(found: Sequence[Row | LeftOut]) -> list[str]:
    """`good: Why? | So.` or the reason to leave it out."""
    return [
        one.why
        if isinstance(one, LeftOut)
        else f"{one.kind}: " + " | ".join(turn["content"] for turn in one.to_json()["messages"])
        for one in found
    ]


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ({"messages": [Q, A], "feedback": "up"}, "good: Why? | So."),
        ({"messages": [Q, A], "feedback": "down"}, "bad"),
        ({"messages": [Q, A], "feedback": 1}, "good: Why? | So."),
        ({"messages": [Q, A], "feedback": -1}, "bad"),
        ({"messages": [Q, A], "feedback": None}, "unrated"),
        ({"messages": [Q, A]}, "unrated"),
        ({"messages": [Q, A], "feedback": {"rating": "thumbs_up"}}, "good: Why? | So."),
        ({"messages": [Q, A], "feedback": {"type": "thumbs-down"}}, "bad"),
        ({"messages": [Q, A], "feedback": {"comment": "hm"}}, "unrated"),
        ({"messages": [Q, A], "feedback": "meh"}, "unclear"),
        ({"messages": [Q, A], "feedback": {"rating": "down", "correction": "Yes."}},
         "corrected: Why? | Yes."),
        ({"messages": [Q, A], "feedback": [{"key": "helpful", "score": 1}]}, "good: Why? | So."),
        ({"messages": [Q, A], "feedback": [{"score": 1}, {"score": 0}]}, "bad"),
        ({"messages": [Q, A], "annotation": {"rating": 1}}, "good: Why? | So."),
        ({"messages": [Q], "response": "So.", "rating": "\U0001f44d\U0001f3fd"},
         "good: Why? | So."),
        ({"messages": [Q], "correction": {"role": "assistant", "content": "Yes."}},
         "corrected: Why? | Yes."),
        ({"messages": [A, Q, A, Q], "feedback": "up"}, "good: Why? | So."),
        ({"messages": [Q, {"role": "assistant", "content": None}], "feedback": "up"},
         "no_conversation"),
        ({"messages": [Q, {"role": "assistant", "content": [{"type": "text", "text": "So."}]}],
          "feedback": "up"}, "good: Why? | So."),
        ({"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}],
          "liked": True}, "good: Why? | So."),
        ({"prompt": "Why?", "response": "So.", "rating": "down", "correction": "Yes."},
         "corrected: Why? | Yes."),
        ({"prompt": "Why?", "response": "So.", "rating": "up", "correction": " "},
         "good: Why? | So."),
        ({"prompt": "Why?", "response": "", "correction": "Yes."}, "corrected: Why? | Yes."),
        ({"prompt": "Why?", "response": "", "rating": "up"}, "no_conversation"),
        ({"prompt": "Why?", "completion": "So.", "label": True}, "good: Why? | So."),
        ({"prompt": [Q], "completion": [A], "label": False}, "bad"),
        ({"prompt": "Why?", "completion": "So.", "label": "billing"}, "unclear"),
        ({"prompt": "Why?", "chosen": "Yes.", "rejected": "So."}, "corrected: Why? | Yes."),
        ({"chosen": [Q, A], "rejected": [Q, Q]}, "corrected: Why? | So."),
        ({"Frage": "Why?", "Antwort": "So.", "Bewertung": "gut"}, "good: Why? | So."),
        ({"system": "Be brief.", "question": "Why?", "answer": "So.", "vote": "+1"},
         "good: Be brief. | Why? | So."),
        ({"instruction": "Translate.", "input": "Ja", "output": "Yes", "score": 1},
         "good: Translate.\n\nJa | Yes"),
        ({"inputs": {"question": "Why?"}, "outputs": {"answer": "So."},
          "feedback": [{"key": "user", "score": 0, "correction": {"answer": "Yes."}}]},
         "corrected: Why? | Yes."),
        ({"history": [Q, A], "question": "And?", "answer": "Well.", "feedback": "up"},
         "good: Why? | So. | And? | Well."),
        ({"history": [["Why?", "So."]], "question": "And?", "answer": "Well.", "feedback": "up"},
         "no_conversation"),
        ({"event": "login", "feedback": "up"}, "no_conversation"),
        ({"prompt": "Why?", "response": "half \ud800", "rating": "up"}, "no_conversation"),
    ],
)  # fmt: skip
def test_shapes(tmp_path: Path, line: dict[str, Any], wanted: str) -> None:
    found = of(tmp_path, line)
    assert told(found) == [wanted]
    place = f"{tmp_path / 'log.jsonl'}:1"
    (one,) = found
    assert (one.place if isinstance(one, LeftOut) else one.to_json()["source"]) == place


@pytest.mark.parametrize(
    ("marks", "wanted"),
    [
        (["up", "up"], "good: Why? | So. | Why? | So."),
        (["up", "down"], "good: Why? | So."),
        (["down", "up"], "bad"),
        ([None, "up"], "good: Why? | So. | Why? | So."),
        (["up", None], "good: Why? | So."),
        ([None, None], "unrated"),
        ([{"rating": "down", "correction": "Yes."}, "up"], None),
    ],
)
def test_feedback_on_single_messages(tmp_path: Path, marks: list[Any], wanted: str | None) -> None:
    turns: list[dict[str, Any]] = []
    for mark in marks:
        turns += [Q, {**A, "feedback": mark}]
    if wanted is None:  # a correction beside the message
        turns[1] = {**A, "feedback": "down", "correction": "Yes."}
        wanted = "corrected: Why? | Yes. | Why? | So."
    assert told(of(tmp_path, {"messages": turns})) == [wanted]


def rated(folder: Path, ratings: Sequence[Any], **options: Any) -> list[str]:
    lines = [{"prompt": f"Why {n}?", "response": "So.", "rating": r} for n, r in enumerate(ratings)]
    return [one.split(":")[0] for one in told(of(folder, *lines, **options))]


@pytest.mark.parametrize(
    ("ratings", "good", "bad", "nothing"),
    [
        ([1, 0, True, False], 2, 2, 0),
        ([1, 0, -1], 1, 1, 1),
        ([1, 1], 2, 0, 0),
        ([1, 2, 3, 4, 5], 2, 3, 0),
        (["4", "4,5", "3.9"], 2, 1, 0),
        ([0.2, 0.8, 1.0], 2, 1, 0),
        ([7, 8, 10], 2, 1, 0),
        ([79, 80, 100], 2, 1, 0),
        (["up", 5, "down", 1], 2, 2, 0),
    ],
)
def test_scales(tmp_path: Path, ratings: list[Any], good: int, bad: int, nothing: int) -> None:
    found = rated(tmp_path, ratings)
    assert [found.count(w) for w in ("good", "bad", "unrated")] == [good, bad, nothing]


def test_the_scale_is_that_of_all_logs_and_said(tmp_path: Path) -> None:
    for name, rating in (("a", 1), ("b", 5)):
        line = {"prompt": "Why?", "response": "So.", "rating": rating}
        (tmp_path / name).write_text(json.dumps(line))
    log = FeedbackLog()
    said = log.look_at([tmp_path / "a", tmp_path / "b"])
    assert said == "ratings from 1 to 5: good is 4 or more"
    assert told(list(log.read(tmp_path / "a"))) == ["bad"]
    assert FeedbackLog().look_at([tmp_path / "a"]) == "ratings from 1 to 1: good is 1"


def test_a_scale_that_nobody_knows_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="between -5 and 5") as caught:
        rated(tmp_path, [-5, 5])
    assert "--good-from" in caught.value.hint
    assert rated(tmp_path, [-5, 2, 5], good_from=2) == ["bad", "good", "good"]
    assert rated(tmp_path, [1, 2, 3], good_from=3) == ["bad", "bad", "good"]
    with pytest.raises(DataError, match="between 1 and 1000"):
        rated(tmp_path, [1, 1000])


def test_columns_are_named(tmp_path: Path) -> None:
    line = {"a": "Why?", "b": "So.", "c": "down", "d": "Yes."}
    columns = {"prompt": "a", "completion": "b", "rating": "c", "correction": "d"}
    assert told(of(tmp_path, line, columns=columns)) == ["corrected: Why? | Yes."]
    del columns["correction"]
    assert told(of(tmp_path, line, columns=columns)) == ["bad"]
    assert told(of(tmp_path, line)) == ["no_conversation"]
    with pytest.raises(ConfigError, match="'ratng'"):
        FeedbackLog({"ratng": "c"})


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (b'{"prompt": "Why?", ', "log.jsonl:2 is not JSON"),
        (b"[1]", "log.jsonl:2 is not a JSON object"),
        ('{"prompt": "Gr\u00f6\u00dfe"}'.encode("latin-1"), "log.jsonl:2 is not UTF-8"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: bytes, wanted: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"prompt": "Why?", "response": "So.", "rating": 1}\n' + line + b"\n")
    with pytest.raises(DataError, match=wanted):
        FeedbackLog().look_at([path])


def test_a_log_that_has_just_begun_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("")
    log = FeedbackLog()
    assert log.look_at([tmp_path / "log.jsonl"]) is None
    assert list(log.read(tmp_path / "log.jsonl")) == [LeftOut("no_text", f"{tmp_path}/log.jsonl")]


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        ("Thumbs Up", "good"), (":thumbsup:", "good"), ("❤️", "good"), ("-1", -1.0), ("+1", 1.0),
        ({"value": {"score": 3}}, 3.0), ([], None), ([{"score": 3}, {"score": 2.5}], 2.5),
        (["up", None], "good"), ("neutral", None), ("4 of 5", "unclear"), (float("nan"), "unclear"),
    ],
)  # fmt: skip
def test_marks(value: Any, mark: Any) -> None:
    assert mark_of(value) == mark


def test_without_numbers_there_is_nothing_to_say() -> None:
    numbers = Range()
    numbers.add("good")
    assert numbers.scale().told is None
    assert numbers.scale(3).judged("bad") == "bad"
