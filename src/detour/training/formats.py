"""Rows of training data from JSONL files, or from Python.

A row holds `messages` (a conversation whose assistant turns are learned) or `prompt` and
`completion`. Every fault names the file and the line. Knows files; knows no tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeAlias, cast

from detour.errors import DataError

ROLES = ("system", "user", "assistant", "tool")
Data: TypeAlias = "str | Path | Iterable[Mapping[str, Any] | Example]"


@dataclass(frozen=True)
class Example:
    """One conversation to learn from, and where it came from (`file:line`)."""

    messages: tuple[Mapping[str, str], ...]
    source: str = ""

    @property
    def prompt(self) -> str:
        """All text before the last answer: what a split groups by."""
        return "\n".join(message["content"] for message in self.messages[:-1])


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
        raise DataError("the training data are empty", expected="at least one row")
    return found


def digest_of(examples: Sequence[Example]) -> str:
    """sha256 over all messages, in order: what the card records as the data."""
    text = json.dumps([[dict(m) for m in e.messages] for e in examples], ensure_ascii=False)
    return sha256(text.encode()).hexdigest()


def read_text(path: Path, expected: str = "one JSON object per line") -> str:
    """A UTF-8 text file (a leading byte order mark is dropped); `expected` says what is in it.

    Raises:
        DataError: missing, a folder, empty, binary, or in another encoding.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as cause:
        raise DataError(f"{path} does not exist", expected="a file", hint="check it") from cause
    except OSError as cause:
        raise DataError(f"{path} cannot be read", found=cause.strerror or str(cause)) from cause
    if not raw.strip():
        raise DataError(f"{path} is empty", expected=expected)
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            f"{path} is encoded in UTF-16",
            expected="UTF-8",
            hint=f"iconv -f UTF-16 -t UTF-8 {path} > {path.stem}.utf8{path.suffix}",
        )
    if b"\x00" in raw:
        raise DataError(f"{path} is a binary file", expected=f"UTF-8 text, {expected}")
    return _decoded(raw, path)


def _decoded(raw: bytes, path: Path) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        line = raw.count(b"\n", 0, cause.start) + 1
        raise DataError(
            f"{path}:{line} is not UTF-8",
            expected="UTF-8",
            found=f"byte 0x{raw[cause.start]:02x}",
            hint="save the file as UTF-8",
        ) from cause


def _read_file(path: Path) -> list[Example]:
    lines = read_text(path).split("\n")  # splitlines would also split at U+2028 inside a text
    found = [
        example_of(_json(line, f"{path}:{number}"), f"{path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not found:
        raise DataError(f"{path} holds no row", expected="one JSON object per line")
    return found


def _json(line: str, source: str) -> Mapping[str, Any]:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as cause:
        raise _not_json(source, f"{cause.msg} at column {cause.colno}") from cause
    except (ValueError, RecursionError) as cause:  # a number of 5,000 digits, 10,000 brackets
        raise _not_json(source, str(cause)) from cause
    if not isinstance(value, dict):
        raise DataError(f"{source} is not a JSON object", found=type(value).__name__)
    return cast("dict[str, Any]", value)


def _not_json(source: str, found: str) -> DataError:
    return DataError(f"{source} is not JSON", expected="one JSON object per line", found=found)


def example_of(row: Mapping[str, Any], source: str) -> Example:
    """One row as an Example.

    Raises:
        DataError: neither `messages` nor `prompt` and `completion`, or nothing to learn in it.
    """
    if not isinstance(row, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DataError(f"{source} is no mapping", expected="a dict", found=repr(row)[:80])
    if "messages" in row:
        return Example(_messages(row["messages"], source), source)
    if isinstance(row.get("prompt"), str) and isinstance(row.get("completion"), str):
        if not row["completion"].strip():
            raise DataError(f"{source} has an empty completion", expected="an answer to learn")
        turns = pair(row["prompt"], row["completion"]).messages
        return Example(_messages(turns, source), source)
    raise DataError(
        f"{source} has no messages",
        expected='"messages": [...], or "prompt" and "completion" as texts',
        found=f"keys {', '.join(map(repr, row)) or 'none'}",
        hint="rename the columns",
    )


def _messages(value: object, source: str) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"{source} has no messages", expected="a list of turns", found=repr(value))
    turns = [_message(turn, number, source) for number, turn in enumerate(value, start=1)]
    if turns[-1]["role"] != "assistant" or not turns[-1]["content"].strip():
        raise DataError(
            f"{source} ends without an answer",
            expected="a last message of the assistant, not empty",
            found=f"a last message of the {turns[-1]['role']}",
        )
    return tuple(turns)


def _is_text(content: str) -> bool:
    """Whether it can be written down: JSON may hold half of a surrogate pair."""
    return not any("\ud800" <= character <= "\udfff" for character in content)


def _message(turn: object, number: int, source: str) -> dict[str, str]:
    if isinstance(turn, Mapping):
        role, content = turn.get("role"), turn.get("content")
        if role in ROLES and isinstance(content, str) and _is_text(content):
            return {"role": role, "content": content}
    raise DataError(
        f"{source}, message {number} cannot be read",
        expected=f'{{"role": one of {", ".join(ROLES)}, "content": text}}',
        found=repr(turn)[:80],
    )
