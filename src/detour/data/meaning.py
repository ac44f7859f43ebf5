"""One row in its meaning: what is asked and answered, by the roles that its columns have.

Knows rows and roles; does not know how these are found.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeAlias, cast

from detour.data.forms import Raw
from detour.data.numbers import Numbers, is_ambiguous
from detour.data.records import Labelled, Plain, Record, Valued
from detour.errors import DataError, NoSupervision
from detour.language.catalogue import text
from detour.model.examples import Example, composed, example_of, pair

Columns: TypeAlias = Mapping[str, str]
"""Role to the name of a column, such as `{"prompt": "Frage"}`."""

SHAREGPT_ROLES: Final[Mapping[str, str]] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "system": "system", "tool": "tool", "function_response": "tool", "observation": "tool",
}  # fmt: skip


def _messages(raw: Raw, columns: Columns) -> Record:
    return _conversation(raw, columns, raw.values.get(columns["messages"]))


def _conversation(raw: Raw, columns: Columns, turns: object) -> Example:
    """Turns behind the system message of a column of its own, where there is one."""
    system = raw.values.get(columns.get("system", ""))
    if isinstance(system, str) and system.strip() and isinstance(turns, list) and turns:
        told = cast("list[Any]", turns)
        first = told[0] if isinstance(told[0], Mapping) else {}
        if first.get("role") != "system":
            turns = [{"role": "system", "content": system}, *told]
        elif first.get("content") != system:
            raise DataError(
                text("{source} has two system messages", source=raw.source),
                expected=text("one, in its turns or in column {column!r}",
                              column=columns["system"]),
                found=repr(system)[:80],
            )  # fmt: skip
    kept, unanswered = _to_the_last_answer(turns)
    return replace(example_of({"messages": kept}, raw.source), unanswered=unanswered)


def _to_the_last_answer(turns: object) -> tuple[object, int]:
    """The turns without those that nobody answers; all of them where there is no answer at all."""
    if not isinstance(turns, list):
        return turns, 0
    told = cast("list[Any]", turns)
    answers = [
        place for place, turn in enumerate(told, start=1)
        if isinstance(turn, Mapping) and cast("Mapping[str, Any]", turn).get("role") == "assistant"
    ]  # fmt: skip
    end = answers[-1] if answers else len(told)
    return told[:end], len(told) - end


def _sharegpt(raw: Raw, columns: Columns) -> Record:
    turns = raw.values.get(columns["conversations"])
    if not isinstance(turns, list) or not turns:
        raise _lacks(raw, columns["conversations"], text("a list of turns"))
    messages: list[Mapping[str, Any]] = []
    for number, turn in enumerate(cast("list[Any]", turns), start=1):
        told: Mapping[str, Any] = turn if isinstance(turn, Mapping) else {}
        speaker = str(told.get("from", told.get("role")))
        role = SHAREGPT_ROLES.get(speaker)
        if role is None:
            raise DataError(
                text("{source}, turn {number} has an unknown speaker", source=raw.source,
                     number=number),
                expected=text("one of {names}", names=", ".join(SHAREGPT_ROLES)),
                found=speaker,
            )  # fmt: skip
        said = told.get("value", told.get("content"))
        messages.append({**told, "role": role, "content": said})
    return _conversation(raw, columns, messages)


def _alpaca(raw: Raw, columns: Columns) -> Record:
    asked = _text(raw, columns["instruction"])
    more = raw.values.get(columns.get("input", ""))
    if isinstance(more, str) and more.strip():
        asked = f"{asked}\n\n{more}"
    return _pair(raw, asked, columns["output"], columns)


def _prompt_completion(raw: Raw, columns: Columns) -> Record:
    return _pair(raw, _text(raw, columns["prompt"]), columns["completion"], columns)


def _pair(raw: Raw, asked: str, answer: str, columns: Columns) -> Example:
    system = raw.values.get(columns.get("system", ""))
    told = pair(asked, _answer(raw, answer), system if isinstance(system, str) else "")
    return example_of({"messages": told.messages}, raw.source)


def _sni(raw: Raw, columns: Columns) -> Record:
    answers = raw.values.get(columns["sni_output"])
    first = cast("list[object]", answers)[0] if isinstance(answers, list) and answers else answers
    if not isinstance(first, str) or not first.strip():
        raise _lacks(raw, "output", text("a list of answers"))
    asked = _text(raw, columns["sni_input"])
    task = _definition(raw, columns)
    return example_of({"messages": pair(asked, first, task).messages}, raw.source)


def _definition(raw: Raw, columns: Columns) -> str:
    """What is to be done, which a task file says once for all its rows; perhaps in parts."""
    told = raw.values.get(columns.get("sni_definition", ""), "")
    parts = cast("list[object]", told) if isinstance(told, list) else [told]
    if not all(isinstance(part, str) for part in parts):
        raise DataError(
            text("{source}: the Definition of its file cannot be read", source=raw.source),
            expected=text("a text, or a list of texts"), found=repr(told)[:80],
        )  # fmt: skip
    return "\n".join(cast("list[str]", parts)).strip()


def _labelled(raw: Raw, columns: Columns) -> Record:
    label = raw.values.get(columns["label"])
    if isinstance(label, float) and label.is_integer():
        label = int(label)  # 1.0 is what tables make of a 1 beside a gap
    told = str(label).strip() if isinstance(label, str | int) else ""
    if not told:
        hint = text("numbers that are measured: --column value={name}", name=columns["label"])
        is_number = isinstance(label, float)
        expected = text("the name of a class")
        raise _lacks(raw, columns["label"], expected, hint if is_number else "")
    return Labelled(_text(raw, columns["text"]), composed(told), raw.source)


def valued(raw: Raw, columns: Columns, numbers: Numbers) -> Valued:
    """A text and its number, as the numbers of its column are written.

    Raises:
        DataError: no text, or none of these numbers.
    """
    column = columns["value"]
    value = numbers.of(raw.values.get(column))
    if value is None:
        told = numbers.told
        expected = text("a number ({written})", written=told) if told else text("a number")
        doubt = is_ambiguous(raw.values.get(column)) and numbers.mark is None
        raise _lacks(raw, column, expected, text("say which it is: --decimal point or --decimal "
                                                 "comma") if doubt else "")  # fmt: skip
    return Valued(_text(raw, columns["text"]), value, raw.source)


def _plain(raw: Raw, columns: Columns) -> Record:
    return Plain(_text(raw, columns["text"]), raw.source)


def _answer(raw: Raw, column: str) -> str:
    """As `_text`, but without one there is nothing to learn."""
    value = raw.values.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise NoSupervision(
            text("{source} has no answer: column {column!r}", source=raw.source, column=column),
            expected=text("an answer to learn"),
            found=text("nothing"),
            hint=text("write the answer behind it"),
        )
    return _text(raw, column)


def _text(raw: Raw, column: str) -> str:
    value = raw.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise _lacks(raw, column, text("some text"))
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _lacks(raw, column, text("text without halves of characters"))
    return composed(value)


def _lacks(raw: Raw, column: str, expected: str, hint: str = "") -> DataError:
    value = raw.values.get(column)
    return DataError(
        text("{source} cannot be used: column {column!r}", source=raw.source, column=column),
        expected=expected,
        found=text("nothing") if value is None or value == "" else repr(value)[:80],
        hint=hint,
    )


# of every format but regression, whose numbers are read as their column writes them
RECORDS: Final[Mapping[str, Callable[[Raw, Columns], Record]]] = {
    "messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca, "sni": _sni,
    "prompt_completion": _prompt_completion, "classification": _labelled,
    "text": _plain,
}  # fmt: skip
