"""What an answer must show, told so that it still can when other adapters style the answer too.

A row that wants one exact sentence fails as soon as a second adapter adds a greeting, though the
first one still does its work. A check looks at what its adapter is for, and at nothing else. Knows
texts only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from detour.errors import DataError
from detour.language.catalogue import text
from detour.measure.metrics import mentions, normalised

MARKS = re.compile(r"^\s*(?:[*•-]|\d+[.)])\s+")  # of a list


@dataclass(frozen=True)
class Checks:
    """All of these hold in an answer that counts. Into a JSON object with one text it is looked.

    Attributes:
        contains: phrases that occur as whole words; here, and in the next three, case and space do
            not matter.
        lacks: phrases that do not.
        starts: how it begins, behind the mark of a list.
        ends: how it ends.
        matches: regular expressions that are found somewhere in it.
        json: whether the answer is a JSON object, where that is asked for.
    """

    contains: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    starts: tuple[str, ...] = ()
    ends: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    json: bool = False

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in fields(self))

    def hold(self, answer: str) -> bool:
        """Whether an answer counts."""
        told = inner_text(answer)
        plain = normalised(MARKS.sub("", told))
        return (
            all(mentions(told, phrase) for phrase in self.contains)
            and not any(mentions(told, phrase) for phrase in self.lacks)
            and all(plain.startswith(normalised(part)) for part in self.starts)
            and all(plain.endswith(normalised(part)) for part in self.ends)
            and all(re.search(pattern, told) for pattern in self.matches)
            and (is_json(answer) or not self.json)
        )

    def to_json(self) -> dict[str, list[str] | bool]:
        """As a row of a test file has it."""
        told: dict[str, list[str] | bool] = {name: list(getattr(self, name)) for name in _TEXTS}
        told["json"] = self.json
        return {name: parts for name, parts in told.items() if parts}


_TEXTS = tuple(field.name for field in fields(Checks) if field.name != "json")


def checks_of(told: object, source: str = "") -> Checks:
    """Checks as a row has them: `{"contains": "hairdresser", "ends": ["Ahoy!"]}`.

    Raises:
        DataError: another form, an unknown name, or a pattern that is none; begins with `source`.
    """
    names = [*_TEXTS, "json"]
    if not isinstance(told, Mapping) or not told:
        raise _unfit(source, repr(told), names)
    found: dict[str, tuple[str, ...]] = {}
    for name, given in told.items():
        if name == "json" and isinstance(given, bool):
            continue
        parts: tuple[Any, ...] = (given,) if isinstance(given, str) else tuple(_listed(given))
        if name not in _TEXTS or not parts or not all(isinstance(p, str) and p for p in parts):
            raise _unfit(source, f"{name!r}: {given!r}", names)
        found[str(name)] = parts
    for pattern in found.get("matches", ()):
        try:
            re.compile(pattern)
        except re.error as fault:
            raise DataError(
                _placed(source, text("{pattern!r} is no regular expression", pattern=pattern)),
                found=str(fault),
            ) from fault
    return Checks(**found, json=bool(told.get("json")))


def inner_text(answer: str) -> str:
    """The text in an answer that is a JSON object of one text, or the answer itself."""
    inner = list(_object(answer).values())
    return inner[0] if len(inner) == 1 and isinstance(inner[0], str) else answer


def is_json(answer: str) -> bool:
    """Whether an answer is a JSON object that says something."""
    return bool(_object(answer))


def _object(answer: str) -> dict[str, object]:
    try:
        value: object = json.loads(answer)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _listed(given: object) -> list[Any]:
    return list(cast("list[Any]", given)) if isinstance(given, list | tuple) else []


def _unfit(source: str, found: str, names: list[str]) -> DataError:
    return DataError(
        _placed(source, text("these are no checks of an answer")),
        expected=text("an object with some of {names}, each a text or a list of texts, "
                      "json true",
                      names=", ".join(names)),
        found=found,
    )  # fmt: skip


def _placed(source: str, told: str) -> str:
    return text("{place}: {fault}", place=source, fault=told) if source else told
