"""Conversations out of logs of feedback: good answers, and what people put in place of bad ones.

A correction takes the place of the answer, a bad answer without one is left out with all that
follows it. Knows files of rows and the names that such logs use; does not know what is done with
the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from detour.data.collect.ratings import RATINGS, Mark, Range, Scale, mark_of
from detour.data.collect.rows import LeftOut, Row
from detour.data.collect.turns import Turn, answer_of, turns_of
from detour.data.encodings import UTF8
from detour.data.forms import READERS, Fault
from detour.data.meaning import Columns
from detour.data.table import SUFFIXES
from detour.errors import ConfigError, DataError
from detour.language.catalogue import Text, text
from detour.model.examples import example_of

CORRECTIONS: Final = (  # columns under which a better answer stands
    "correction", "corrected", "corrected_answer", "corrected_response", "corrected_output",
    "corrected_completion", "edited", "edited_answer", "edited_response", "revision", "revised",
    "revised_answer", "better_answer", "suggested_answer", "expected_answer", "expected_output",
    "ideal", "ideal_answer", "ideal_response", "chosen", "korrektur",
)  # fmt: skip
ROLES: Final = ("prompt", "completion", "system", "messages", "rating", "correction")


@dataclass
class FeedbackLog:
    """How the rows of some logs are read; the scale of their ratings is taken from all of them."""

    columns: Columns = field(default_factory=lambda: {})
    """Role to column, where names say nothing; roles are those of `ROLES`."""
    good_from: float | None = None
    scale: Scale = field(default_factory=Scale)
    encoding: str = UTF8

    def __post_init__(self) -> None:
        for role in self.columns:
            if role not in ROLES:
                raise ConfigError(
                    text("no column can be the {role!r}", role=role),
                    expected=text("one of {names}", names=", ".join(ROLES)),
                    found=role,
                )

    def look_at(self, files: Sequence[Path]) -> Text | None:
        """Read all ratings once, and say what numbers mean.

        Raises:
            DataError: a line that is no JSON object, or numbers on no scale that is known.
        """
        numbers = Range()
        for path in files:
            for values, _ in _lines(path, self.encoding):
                for mark in (self._mark(values), *(turn.mark for turn in self._turns(values))):
                    numbers.add(mark)
        self.scale = numbers.scale(self.good_from)
        return self.scale.told

    def read(self, path: Path) -> Iterator[Row | LeftOut]:
        """One row or one omission a line. Raises DataError: a line that is no JSON object."""
        if not path.stat().st_size:
            yield LeftOut("no_text", str(path))
        for values, source in _lines(path, self.encoding):
            turns = _from_the_question(self._turns(values))
            correction = self._correction(values)
            if correction and not any(turn.role == "assistant" for turn in turns):
                turns.append(Turn("assistant", ""))
            answers = [turn for turn in turns if turn.role == "assistant"]
            if len(turns) < 2 or not answers:
                yield LeftOut("no_conversation", source)
                continue
            last = answers[-1]
            last.correction = correction or last.correction
            last.mark = self._mark(values) if last.mark is None else last.mark
            yield self._judged(turns, source)

    def _judged(self, turns: Sequence[Turn], source: str) -> Row | LeftOut:
        """What stands up to the last good answer, if no bad one stands before it."""
        kept: list[dict[str, str]] = []
        end, why, is_corrected = 0, "unrated", False
        for turn in turns:
            mark = "good" if turn.correction else self.scale.judged(turn.mark)
            if turn.role == "assistant" and mark in ("bad", "unclear"):
                why = str(mark)
                break
            kept.append({"role": turn.role, "content": turn.correction or turn.content})
            if turn.role == "assistant" and mark == "good":
                end, is_corrected = len(kept), is_corrected or bool(turn.correction)
        if not end:
            return LeftOut(why, source)
        try:
            record = example_of({"messages": kept[:end]}, source)
        except DataError:  # nothing in the answer, or halves of characters
            return LeftOut("no_conversation", source)
        return Row(record, "corrected" if is_corrected else "good")

    def _turns(self, values: Mapping[str, Any]) -> list[Turn]:
        found = turns_of(values, self.columns)
        for turn in found:
            turn.mark = mark_of(_first(turn.values, RATINGS))
            turn.correction = answer_of(_first(turn.values, CORRECTIONS))
        return found

    def _mark(self, values: Mapping[str, Any]) -> Mark:
        named = self.columns.get("rating")
        return mark_of(values.get(named) if named else _first(values, RATINGS))

    def _correction(self, values: Mapping[str, Any]) -> str:
        """The better answer of a row: beside its rating, or inside of it."""
        named = self.columns.get("correction")
        if named:
            return answer_of(values.get(named))
        rating = _first(values, RATINGS)
        inside = cast("list[object]", rating) if isinstance(rating, list) else [rating]
        for place in (values, *inside):
            if isinstance(place, Mapping):
                told = answer_of(_first(cast("Mapping[str, Any]", place), CORRECTIONS))
                if told:
                    return told
        return ""


def _from_the_question(turns: list[Turn]) -> list[Turn]:
    """Without what the assistant said before anybody asked: a greeting answers nothing."""
    asked = next((place for place, turn in enumerate(turns) if turn.role == "user"), len(turns))
    return [turn for turn in turns[:asked] if turn.role == "system"] + turns[asked:]


def _lines(path: Path, encoding: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    if not path.stat().st_size:  # a log that has just begun
        return
    form = SUFFIXES.get(path.suffix.lower(), "JSONL")
    for row in READERS[form](path, lambda _read, _size: None, encoding):
        if isinstance(row, Fault):
            raise row.error
        yield row.values, row.source


def _first(values: Mapping[str, Any], names: Sequence[str]) -> object:
    """What stands under the first of these names that is there and holds something."""
    folded = {str(name).strip().casefold(): value for name, value in values.items()}
    return next((folded[name] for name in names if folded.get(name) is not None), None)
