"""What the columns of a row mean: eight formats, told from their names, or named by hand.

Knows rows and names; knows no files and no tokens. What was recognised is said aloud by `told`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final, TypeAlias, cast

from detour.data.forms import Raw
from detour.data.records import Kind, Labelled, Plain, Record, Valued
from detour.errors import ConfigError, DataError, NoSupervision
from detour.language.catalogue import Text, joined, text
from detour.model.examples import Example, composed, example_of, pair

Columns: TypeAlias = Mapping[str, str]
"""Role to the name of a column, such as `{"prompt": "Frage"}`."""

# role → other names under which people bring it; the first that is there counts
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "conversation"),
    "instruction": ("instruction", "instructions", "anweisung"),
    "input": ("input", "context", "eingabe"),
    "output": ("output", "response", "ausgabe"),
    "prompt": ("prompt", "question", "query", "frage", "input", "eingabe"),
    "completion": ("completion", "answer", "response", "output", "antwort", "ausgabe"),
    "system": ("system", "system_prompt"),
    "text": ("text", "sentence", "content", "review", "satz"),
    "label": ("label", "class", "category", "intent", "klasse", "kategorie"),
    "value": ("value", "score", "target", "rating", "wert"),
    "sni_input": ("sni_input",),
    "sni_output": ("sni_output",),
}
# format → roles it needs; in the order in which they are looked for
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "sni": ("sni_input", "sni_output"),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "classification": ("text", "label"),
    "regression": ("text", "value"),
    "text": ("text",),
}
OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "alpaca": ("input", "system"),
    "prompt_completion": ("system",),
}
KINDS: Final[Mapping[str, Kind]] = {
    "classification": "classification", "regression": "regression", "text": "text",
}  # fmt: skip
SHAREGPT_ROLES: Final[Mapping[str, str]] = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant",
    "bot": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "system": "system", "tool": "tool", "function_response": "tool", "observation": "tool",
}  # fmt: skip
_COMMA = re.compile(r"[+-]?\d{1,3}(\.\d{3})*,\d+|[+-]?\d+,\d+")  # 3,14 or 1.234,56


@dataclass(frozen=True)
class Format:
    """A format and which column plays which role."""

    name: str
    columns: Columns = field(default_factory=lambda: {})

    @property
    def kind(self) -> Kind:
        """What is trained on it."""
        return KINDS.get(self.name, "chat")

    @property
    def told(self) -> Text:
        """Such as "prompt_completion: Frage is the prompt, Antwort is the completion"."""
        parts = [
            text("{column!r} is the {role}", column=column, role=role)
            for role, column in self.columns.items()
            if column != role and not role.startswith("sni_")
        ]
        if not parts:
            return text("format {name}", name=self.name)
        return text("format {name}: {parts}", name=self.name, parts=joined(", ", parts))

    def record(self, raw: Raw) -> Record:
        """A row in its meaning; one with other columns is read by these, if it is of this kind.

        Raises:
            DataError: something is missing, empty or no text.
        """
        if not any(column in raw.values for column in self.columns.values()):
            with suppress(DataError):
                other = detect([raw])
                if other.kind == self.kind:
                    return _RECORDS[other.name](raw, other.columns)
        return _RECORDS[self.name](raw, self.columns)


def detect(rows: Sequence[Raw], columns: Columns | None = None, name: str | None = None) -> Format:
    """The format of some rows: by their columns' names, or as told.

    Args:
        rows: the first of a table; at least one.
        columns: role to column, where names say nothing; roles are those of `ALIASES`.
        name: a format by its name; then its roles must be found.

    Raises:
        DataError: the columns make no format. ConfigError: an unknown role, column or format.
    """
    there = list(dict.fromkeys(key for row in rows for key in row.values))
    chosen = dict(columns or {})
    _check(chosen, there, name)
    found = {**{role: c for role in ALIASES if (c := _named(role, there))}, **chosen}
    for candidate in [name] if name else _ordered(chosen):
        needed = NEEDED[candidate]
        if not all(role in found for role in needed):
            continue
        by_name = candidate == "classification" and name is None and "label" not in chosen
        if by_name and _are_numbers(row.values.get(found["label"]) for row in rows):
            return Format("regression", {"text": found["text"], "value": found["label"]})
        wanted = (*needed, *(r for r in OPTIONAL.get(candidate, ()) if r in found))
        used = {role: found[role] for role in wanted}
        if len(set(used.values())) == len(used):
            return Format(candidate, used)
    raise _unknown(rows[0].source, there, name)


def _ordered(chosen: Columns) -> list[str]:
    """Formats that need what was named first, then the others."""
    return sorted(NEEDED, key=lambda name: -sum(role in chosen for role in NEEDED[name]))


def _check(chosen: Columns, there: Sequence[str], name: str | None) -> None:
    if name is not None and name not in NEEDED:
        raise ConfigError(
            text("unknown format {name!r}", name=name),
            expected=text("one of {names}", names=", ".join(NEEDED)), found=name,
        )  # fmt: skip
    for role, column in chosen.items():
        if role not in ALIASES:
            raise ConfigError(
                text("no column can be the {role!r}", role=role),
                expected=text("one of {names}", names=", ".join(ALIASES)), found=role,
            )  # fmt: skip
        if column not in there:
            close = get_close_matches(column, there, n=1)
            raise ConfigError(
                text("there is no column {column!r}", column=column),
                expected=text("one of {names}", names=", ".join(there)),
                found=column,
                hint=text("did you mean {close!r}?", close=close[0]) if close else "",
            )


def _named(role: str, there: Sequence[str]) -> str | None:
    folded = {name.strip().casefold(): name for name in reversed(there)}
    return next((folded[alias] for alias in ALIASES[role] if alias in folded), None)


def _are_numbers(values: Iterable[object]) -> bool:
    """Whether they are measured rather than counted: numbers, and not all of them whole."""
    found = [number_of(value) for value in values]
    known = [one for one in found if one is not None]
    return len(known) == len(found) > 0 and not all(one.is_integer() for one in known)


def _unknown(source: str, there: Sequence[str], name: str | None) -> DataError:
    needs = [
        text("{roles} ({name})", roles=" + ".join(roles), name=one)
        for one, roles in NEEDED.items()
        if one != "sni" and name in (None, one)
    ]
    return DataError(
        text("{source}: the columns do not say what is asked and what is answered", source=source),
        expected=joined("; ", needs),
        found=", ".join(map(repr, there))[:200] or text("none"),
        hint=text("say it: --column prompt={first} --column completion=…", first=(*there, "…")[0]),
    )


# ---- one row each ----------------------------------------------------------------------------


def number_of(value: object) -> float | None:
    """A finite number, also as text and with a decimal comma; None for anything else."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, str):
        told = value.strip()
        if _COMMA.fullmatch(told):
            told = told.replace(".", "").replace(",", ".")
        value = told
    try:
        found = float(cast(Any, value))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def _messages(raw: Raw, columns: Columns) -> Record:
    value = raw.values.get(columns["messages"])
    return example_of({"messages": value}, raw.source)


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
    return example_of({"messages": messages}, raw.source)


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
    return example_of({"messages": pair(asked, first).messages}, raw.source)


def _labelled(raw: Raw, columns: Columns) -> Record:
    label = raw.values.get(columns["label"])
    told = str(label).strip() if isinstance(label, str | int) else ""
    if not told:
        raise _lacks(raw, columns["label"], text("the name of a class"))
    return Labelled(_text(raw, columns["text"]), composed(told), raw.source)


def _valued(raw: Raw, columns: Columns) -> Record:
    value = number_of(raw.values.get(columns["value"]))
    if value is None:
        raise _lacks(raw, columns["value"], text("a number"))
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
        )
    return _text(raw, column)


def _text(raw: Raw, column: str) -> str:
    value = raw.values.get(column)
    if not isinstance(value, str) or not value.strip():
        raise _lacks(raw, column, text("some text"))
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise _lacks(raw, column, text("text without halves of characters"))
    return composed(value)


def _lacks(raw: Raw, column: str, expected: str) -> DataError:
    value = raw.values.get(column)
    return DataError(
        text("{source} cannot be used: column {column!r}", source=raw.source, column=column),
        expected=expected,
        found=text("nothing") if value is None or value == "" else repr(value)[:80],
    )


_RECORDS: Final[Mapping[str, Callable[[Raw, Columns], Record]]] = {
    "messages": _messages, "sharegpt": _sharegpt, "alpaca": _alpaca, "sni": _sni,
    "prompt_completion": _prompt_completion, "classification": _labelled,
    "regression": _valued, "text": _plain,
}  # fmt: skip
