"""Conversations and texts to learn from, and conversations out of JSONL files.

A row of such a file holds `messages` (of which the assistant's turns are learned) or `prompt` and
`completion`; other forms are `data/`'s. Every fault names the file and the line. Knows files; knows
no tokens.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, cast

from detour.errors import DataError, NoSupervision, WrongEncoding
from detour.language.catalogue import text

ROLES = ("system", "user", "assistant", "tool")
BESIDE = (  # what a turn may say beside its content; nothing of it would be learned
    "tool_calls", "function_call", "reasoning_content", "reasoning", "thinking", "audio",
)  # fmt: skip
BLOCK = 512  # tokens of plain text in a row
Data: TypeAlias = "str | Path | Iterable[Mapping[str, Any] | Example]"


@dataclass(frozen=True)
class Example:
    """One conversation to learn from, and where it came from (`file:line`)."""

    messages: tuple[Mapping[str, Any], ...]
    """Each with `role` and `content`; an answer with `"weight": 0` is asked, and not learned."""
    source: str = ""
    unanswered: int = 0
    """Turns that stood behind the last answer, and were left off."""

    @property
    def prompt(self) -> str:
        """All text before the last answer: what a split groups by."""
        return "\n".join(message["content"] for message in self.messages[:-1])


@dataclass(frozen=True)
class Plain:
    """A text to go on writing like: every token is learned."""

    text: str
    source: str = ""

    @property
    def prompt(self) -> str:
        """What a split groups by: all of it."""
        return self.text


def pair(question: str, answer: str, system: str = "", source: str = "") -> Example:
    """One question and its answer, with an optional system turn."""
    before = ({"role": "system", "content": system},) if system else ()
    turns = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Example((*before, *turns), source)


def read_examples(data: Data) -> list[Example]:
    """Examples from a JSONL file, or from rows already in memory.

    Raises:
        DataError: a file that is missing, empty, binary, not UTF-8, or a row that is no example.
    """
    if isinstance(data, str | Path):
        return _read_file(Path(data))
    found = [
        row if isinstance(row, Example) else example_of(row, f"row {number}")
        for number, row in enumerate(data, start=1)
    ]
    if not found:
        raise DataError(text("the training data are empty"), expected=text("at least one row"))
    return found


def digest_of(examples: Sequence[Example | Plain]) -> str:
    """sha256 over all messages or texts, in order: what the card records as the data."""
    told = [e.text if isinstance(e, Plain) else [dict(m) for m in e.messages] for e in examples]
    return sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def read_text(path: Path, expected: str = "") -> str:
    """A UTF-8 text file (a leading byte order mark is dropped).

    `expected` says what should be in it; by default one JSON object per line.

    Raises:
        DataError: missing, a folder, empty, binary, or in another encoding.
    """
    expected = expected or text("one JSON object per line")
    try:
        raw = path.read_bytes()
    except FileNotFoundError as cause:
        raise DataError(
            text("{path} does not exist", path=path),
            expected=text("a file"),
            hint=text("check the path"),
        ) from cause
    except OSError as cause:
        raise DataError(
            text("{path} cannot be read", path=path), found=cause.strerror or str(cause)
        ) from cause
    if not raw.strip():
        raise DataError(text("{path} is empty", path=path), expected=expected)
    check_bytes(path, raw, expected)
    return _decoded(raw, path)


def check_bytes(path: Path, start: bytes, expected: str = "", hint: str = "") -> None:
    """Refuse what a file's bytes, or the first of them, show to be no UTF-8 text.

    Raises:
        DataError: UTF-16, or binary.
    """
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise WrongEncoding(
            text("{path} is encoded in UTF-16", path=path),
            expected="UTF-8",
            hint=hint or text("save the file as UTF-8"),
        )
    if b"\x00" in start:
        raise DataError(
            text("{path} is a binary file", path=path),
            expected=text("UTF-8 text, {expected}", expected=expected) if expected else "UTF-8",
        )


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = raw.count(b"\n", 0, cause.start) + 1
        raise WrongEncoding(
            text("{path}:{line} is not UTF-8", path=path, line=line),
            expected="UTF-8",
            found=text("byte 0x{byte:02x}", byte=raw[cause.start]),
            hint=text("save the file as UTF-8"),
        ) from cause


def _read_file(path: Path) -> list[Example]:
    return [example_of(row, source) for row, source in json_rows(path)]


def json_rows(path: Path) -> list[tuple[Mapping[str, Any], str]]:
    """The objects of a JSONL file, each with its `file:line`.

    Raises:
        DataError: it cannot be read, holds no row, or a line is no object.
    """
    lines = read_text(path).split("\n")  # splitlines would also split at U+2028 inside a text
    sources = ((line, f"{path}:{number}") for number, line in enumerate(lines, start=1))
    found = [(json_object(line, source), source) for line, source in sources if line.strip()]
    if not found:
        raise DataError(
            text("{path} holds no row", path=path), expected=text("one JSON object per line")
        )
    return found


def json_object(line: str, source: str) -> Mapping[str, Any]:
    """One line of a JSONL file. Raises DataError: it is no JSON, or no object."""
    try:
        value = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as cause:
        told = text(
            "{message} at column {column}",
            message=cause.msg.removesuffix(" at"),
            column=cause.colno,
        )
        raise _not_json(source, told) from cause
    except (ValueError, RecursionError) as cause:  # a number of 5,000 digits, 10,000 brackets
        raise _not_json(source, str(cause)) from cause
    if not isinstance(value, dict):
        raise DataError(
            text("{source} is not a JSON object", source=source), found=type(value).__name__
        )
    return cast("dict[str, Any]", value)


def _not_json(source: str, found: str) -> DataError:
    return DataError(
        text("{source} is not JSON", source=source),
        expected=text("one JSON object per line"),
        found=found,
        hint=text("mend the line, or drop it"),
    )


def example_of(row: Mapping[str, Any], source: str) -> Example:
    """One row as an Example.

    Raises:
        DataError: neither `messages` nor `prompt` and `completion`, or nothing to learn in it.
    """
    if not isinstance(row, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DataError(
            text("{source} is no mapping", source=source),
            expected=text("a dict"),
            found=repr(row)[:80],
        )
    if "messages" in row:
        return Example(_messages(row["messages"], source), source)
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        if not row["completion"].strip():
            raise NoSupervision(
                text("{source} has an empty completion", source=source),
                expected=text("an answer to learn"),
                hint=text("write the answer behind it"),
            )
        turns = pair(row["prompt"], row["completion"]).messages
        return Example(_messages(turns, source), source)
    raise DataError(
        text("{source} has no messages", source=source),
        expected=text('"messages": [...], or "prompt" and "completion" as texts'),
        found=text("keys {keys}", keys=", ".join(map(repr, row)) or text("none")),
        hint=text("rename the columns"),
    )


def _messages(value: object, source: str) -> tuple[Mapping[str, Any], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(
            text("{source} has no messages", source=source),
            expected=text("a list of turns"),
            found=repr(value),
        )
    turns = [_message(turn, number, source) for number, turn in enumerate(value, start=1)]
    if turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():
        raise NoSupervision(
            text("{source} ends without an answer", source=source),
            expected=text("a last message of the assistant, not empty"),
            found=text("a last message of the {role}", role=turns[-1]["role"]),
            hint=text("write the answer behind it"),
        )
    if "weight" in turns[-1]:
        raise NoSupervision(
            text("{source} ends with an answer that is not to be learned", source=source),
            found='"weight": 0',
            hint=text("end the row with the last answer that is"),
        )
    _check_answers(turns, source)
    return tuple(turns)


def _check_answers(turns: Sequence[Mapping[str, Any]], source: str) -> None:
    for number, turn in enumerate(turns[:-1], start=1):
        if turn["role"] == "assistant" and not turn["content"].strip():
            raise DataError(
                text("{source}, message {number} is an empty answer", source=source, number=number),
                expected=text("some text; an empty answer would be learned as one"),
            )


def composed(told: str) -> str:
    """Unicode's composed form (NFC): "ü" is one character, however a file wrote it.

    Many tokenizers make other tokens of the letter with its mark behind it.
    """
    return unicodedata.normalize("NFC", told)


def _is_text(content: str) -> bool:
    """Whether it can be written down: JSON may hold half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in content)


def _message(turn: object, number: int, source: str) -> dict[str, Any]:
    if isinstance(turn, Mapping):
        told = cast("Mapping[str, Any]", turn)
        _check_beside(told, number, source)
        role, content = told.get("role"), _content(told.get("content"), number, source)
        if role in ROLES and isinstance(content, str) and _is_text(content):
            kept = {"role": role, "content": composed(content)}
            return kept if _is_learned(told, number, source) else {**kept, "weight": 0}
    raise DataError(
        text("{source}, message {number} cannot be read", source=source, number=number),
        expected=text('{{"role": one of {roles}, "content": text}}', roles=", ".join(ROLES)),
        found=repr(turn)[:80],
    )


def _content(content: object, number: int, source: str) -> object:
    """OpenAI's list of parts as one text, a line break between them; anything else as it is."""
    if not isinstance(content, list):
        return content
    texts: list[str] = []
    for part in cast("list[object]", content):
        told = cast("Mapping[str, Any]", part) if isinstance(part, Mapping) else {}
        if told.get("type") != "text" or not isinstance(told.get("text"), str):
            kind = told.get("type")
            raise DataError(
                text("{source}, message {number} has a part that is no text", source=source,
                     number=number),
                expected='{"type": "text", "text": …}',
                found=kind if isinstance(kind, str) and kind != "text" else repr(part)[:80],
                hint=text("only text is learned: leave the row out, or say it in words"),
            )  # fmt: skip
        texts.append(told["text"])
    return "\n".join(texts)


def _check_beside(turn: Mapping[str, Any], number: int, source: str) -> None:
    """Refuse what would be lost: the calls of tools, and what was thought before the answer."""
    for key in BESIDE:
        if turn.get(key):
            raise DataError(
                text("{source}, message {number} holds {key!r}, which is not learned",
                     source=source, number=number, key=key),
                expected=text("all that is to be learned in its content"),
                found=repr(turn[key])[:80],
                hint=text("write it into the content as the base's template would, or leave the "
                          "row out"),
            )  # fmt: skip


def _is_learned(turn: Mapping[str, Any], number: int, source: str) -> bool:
    """OpenAI's `weight`: 0 for an answer that stands there only to be gone on from."""
    weight = turn.get("weight")
    if weight in (None, 1):
        return True
    if weight == 0 and turn["role"] == "assistant":
        return False
    raise DataError(
        text("{source}, message {number} has a weight that is not known", source=source,
             number=number),
        expected=text("0 or 1, of an answer"), found=repr(weight)[:80],
    )  # fmt: skip
