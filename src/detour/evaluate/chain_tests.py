"""The small test set that an adapter brings along: questions, and when an answer to one counts.

A row holds `messages` that end with the question, or with the answer that is wanted, or `prompt`
and `completion`. With `checks` an answer counts where they hold, else as far as its words are those
of the wanted one (F1, ROUGE-1). Rows with the same `about` ask for the same thing in other words.
Knows rows and texts; runs no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from detour.adapter.adapter import Adapter
from detour.errors import DataError
from detour.language.catalogue import text
from detour.measure.checks import Checks, checks_of
from detour.measure.metrics import mentions
from detour.measure.texts import rouge_n
from detour.model.examples import Example, example_of, json_rows
from detour.training.fact import Edit, Lesson

Kind = TypeVar("Kind")

COUNTS = 0.5  # from which an answer without checks is a right one
KEPT = 40  # beside an adapter that is taught a fact


@dataclass(frozen=True)
class Item:
    """One question of an adapter's test set.

    Attributes:
        messages: up to the question.
        checks: when an answer counts; without any, `wanted` says it.
        wanted: the answer to come near to.
        about: what is asked for, the same in all paraphrases.
    """

    messages: tuple[Mapping[str, Any], ...]
    checks: Checks = field(default_factory=Checks)
    wanted: str = ""
    about: str = ""

    def score(self, answer: str) -> float:
        """How far an answer is right, 0 … 1."""
        if self.checks:
            return float(self.checks.hold(answer))
        return rouge_n(self.wanted, answer, 1)

    def counts(self, answer: str) -> bool:
        """Whether it is right, as a yes or no."""
        return self.score(answer) >= COUNTS

    def to_json(self) -> dict[str, Any]:
        """The row it was read from."""
        turns = [dict(turn) for turn in self.messages]
        if self.wanted:
            turns.append({"role": "assistant", "content": self.wanted})
        row: dict[str, Any] = {"messages": turns}
        if self.checks:
            row["checks"] = self.checks.to_json()
        if self.about:
            row["about"] = self.about
        return row


def items_of_lesson(lesson: Lesson) -> tuple[dict[str, Any], ...]:
    """Item rows of taught facts: phrasings that were not trained, some of every edit."""
    edits = [edit for each in lesson.in_all() for edit in each.edits]
    most = max(1, KEPT // len(edits))
    return tuple(
        Item(
            ({"role": "user", "content": question},), _checks_of(edit),
            about=f"{edit.subject}: {edit.relation or edit.target}",
        ).to_json()
        for edit in edits
        for question in spread(edit.held_out, most)
    )  # fmt: skip


def spread(given: Sequence[Kind], most: int) -> list[Kind]:
    """At most so many, from the first to the last at even distances."""
    if len(given) <= most:
        return list(given)
    return [given[place * len(given) // most] for place in range(most)]


def _checks_of(edit: Edit) -> Checks:
    """It names the new value, in the form that the answer has, and not the old one."""
    said = [form for form in (*edit.forms, edit.target) if mentions(edit.answer, form)]
    target = max(said, key=len, default=edit.target)
    old = edit.old if edit.old and not mentions(target, edit.old) else ""
    return Checks(contains=(target,), lacks=(old,) if old else ())


def items_of(adapter: Adapter) -> tuple[Item, ...]:
    """Those that lie beside an adapter. Raises DataError: a row cannot be read; names it."""
    return tuple(
        item_of(row, f"{adapter.name}, test.jsonl:{number}")
        for number, row in enumerate(adapter.test_rows, start=1)
    )


def read_items(path: Path) -> tuple[Item, ...]:
    """Tests from a JSONL file. Raises DataError: it cannot be read, or is empty; names the line."""
    return tuple(item_of(row, source) for row, source in json_rows(path))


def item_of(row: Mapping[str, Any], source: str) -> Item:
    """One row. Raises DataError: neither checks nor an answer, or no question; names `source`."""
    checks = checks_of(row["checks"], source) if "checks" in row else Checks()
    about = row.get("about", "")
    if not isinstance(about, str):
        raise DataError(
            text("{place}: {fault}", place=source, fault=text("`about` is no text")),
            found=repr(about),
        )
    turns: list[Any] = list(given) if isinstance(given := row.get("messages"), list) else []
    if checks and _ends_with_a_question(turns):
        stated = example_of({"messages": [*turns, _ANSWER]}, source)
        return Item(stated.messages[:-1], checks, "", about)
    whole: Example = example_of(row, source)
    return Item(whole.messages[:-1], checks, str(whole.messages[-1]["content"]), about)


_ANSWER = {"role": "assistant", "content": "…"}  # behind a question, for `example_of` to look at


def _ends_with_a_question(turns: Sequence[Any]) -> bool:
    last = turns[-1] if turns else None
    return isinstance(last, Mapping) and last.get("role") == "user"
