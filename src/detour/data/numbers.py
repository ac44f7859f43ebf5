"""Numbers as people write them: with a decimal point or comma, groups of thousands, a unit.

`1,250` is 1250 where the decimal mark is a point, and 1.25 where it is a comma. Which it is, a
whole column says, or the user; one number alone is not guessed at. Knows values; knows no files.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast

from detour.errors import DataError
from detour.language.catalogue import Text, text

Mark: TypeAlias = Literal["point", "comma"]
MARKS: Final[tuple[Mark, ...]] = ("point", "comma")
SAID: Final[dict[Mark, Text]] = {"point": text("decimal point"), "comma": text("decimal comma")}
SHOWN = 3  # numbers an error names
_SIGN: Final[dict[Mark, str]] = {"point": ".", "comma": ","}
_GROUPS = re.compile(r"(?<=\d)[ '’\u00a0\u2009\u202f](?=\d{3}(?!\d))")  # 1 234 567, 1'234
_UNIT = re.compile(r"[€$£¥%‰]|(?:EUR|USD|GBP|CHF)\b", re.IGNORECASE)


def _pattern(mark: str, group: str) -> re.Pattern[str]:
    whole = rf"(?:[1-9]\d{{0,2}}(?:{group}\d{{3}})+|\d+)"
    return re.compile(rf"[+-]?(?:{whole}(?:{mark}\d+)?|{mark}\d+)(?:[eE][+-]?\d+)?")


_WRITTEN: Final[dict[Mark, re.Pattern[str]]] = {
    "point": _pattern(r"\.", ","), "comma": _pattern(",", r"\."),
}  # fmt: skip


@dataclass(frozen=True)
class Numbers:
    """How the numbers of a column are written."""

    mark: Mark | None = None
    """None where no number shows it, and none needs it."""
    unit: str = ""
    """What stands beside most of them: `%`, `€`, or nothing."""

    @property
    def told(self) -> Text | None:
        """Such as "decimal comma, in %"; None where there is nothing to say."""
        if self.mark and self.unit:
            return text("{mark}, in {unit}", mark=SAID[self.mark], unit=self.unit)
        if self.unit:
            return text("in {unit}", unit=self.unit)
        return SAID[self.mark] if self.mark else None

    def of(self, value: object) -> float | None:
        """The number that a value of the column is; None for what is none, or of another unit."""
        return number_of(value, self.mark) if _unit(value) == self.unit else None


def numbers_of(
    values: Sequence[tuple[object, str]], column: str, mark: Mark | None = None
) -> Numbers:
    """How the numbers of a column are written, by the first of them: each value and its place.

    Args:
        values: what stands in the column.
        column: its name.
        mark: the decimal mark as the user says it.

    Raises:
        DataError: they can be read in two ways, or are written in two ways.
    """
    units = Counter(_unit(value) for value, _ in values if value is not None)
    unit = units.most_common(1)[0][0] if units else ""
    if mark:
        return Numbers(mark, unit)
    shown: dict[Mark, str] = {}
    doubtful: list[str] = []
    for value, place in values:
        marks = _marks(_bare(value)[0]) if isinstance(value, str) else []
        if len(marks) == 1:
            shown.setdefault(marks[0], f"{value!r} ({place})")
        elif is_ambiguous(value):
            doubtful.append(f"{value!r} ({place})")
    if len(shown) == 2:
        raise _undecided(text("column {column!r} has decimal points and decimal commas",
                              column=column), [shown[one] for one in MARKS])  # fmt: skip
    if doubtful and not shown:
        raise _undecided(text("the numbers of column {column!r} can be read in two ways",
                              column=column), doubtful)  # fmt: skip
    return Numbers(next(iter(shown), None), unit)


def _undecided(message: Text, found: Sequence[str]) -> DataError:
    return DataError(
        message,
        expected=text("one decimal mark; 1,250 may be 1250 or 1.25"),
        found=", ".join(found[:SHOWN]),
        hint=text("say which it is: --decimal point or --decimal comma"),
    )


def number_of(value: object, mark: Mark | None = None) -> float | None:
    """A finite number, also written as text; None for anything else.

    Without a decimal mark, also None for a text that is another number with each of the two.
    """
    if isinstance(value, bool) or value is None:
        return None
    if not isinstance(value, str):
        return _finite(value)
    told, _ = _bare(value)
    marks: Sequence[Mark] = [mark] if mark else _marks(told)
    found = {_read(told, one) for one in marks}
    return found.pop() if len(found) == 1 else None


def is_ambiguous(value: object) -> bool:
    """Whether a text is one number with a decimal point and another with a comma: `1,250`."""
    if not isinstance(value, str):
        return False
    told = _bare(value)[0]
    return len({_read(told, mark) for mark in _marks(told)}) > 1


def is_number(value: object) -> bool:
    """Whether it is a number, whatever the decimal mark."""
    return number_of(value) is not None or is_ambiguous(value)


def _marks(told: str) -> list[Mark]:
    """The decimal marks with which it is a number."""
    return [mark for mark, pattern in _WRITTEN.items() if pattern.fullmatch(told)]


def _unit(value: object) -> str:
    return _bare(value)[1] if isinstance(value, str) else ""


def _bare(value: str) -> tuple[str, str]:
    """The number without its unit and the spaces between its groups; and the unit."""
    told = value.strip().replace("\u2212", "-")
    units = _UNIT.findall(told)
    if len(units) == 1 and (told.startswith(units[0]) or told.endswith(units[0])):
        told = told.replace(units[0], "", 1).strip()
        return _GROUPS.sub("", told), str(units[0]).upper()
    return _GROUPS.sub("", told), ""


def _read(told: str, mark: Mark) -> float | None:
    if not _WRITTEN[mark].fullmatch(told):
        return None
    other = "," if mark == "point" else "."
    return _finite(told.replace(other, "").replace(_SIGN[mark], "."))


def _finite(value: object) -> float | None:
    try:
        found = float(cast(Any, value))
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
