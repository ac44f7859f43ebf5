"""One pass over the rows of a table: what is counted, noted, and kept for a closer look.

Memory is bounded: eight bytes a row for duplicates, and a sample of the rows. Knows rows; draws no
conclusions.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, islice

from detour.data.damage import is_damaged
from detour.data.duplicates import Digests
from detour.data.encodings import UTF8
from detour.data.formats import Format, detect
from detour.data.forms import Fault, Raw
from detour.data.meaning import Columns
from detour.data.numbers import Mark
from detour.data.personal import personal_data
from detour.data.records import Example, Labelled, Record, answer_of, input_of, text_of
from detour.data.table import Split, Table
from detour.errors import DataError, NoSupervision

SAMPLE = 20_000  # rows that are looked at closely
FIRST = 200  # rows from which the format is told
SHOWN = 5  # places a finding names
LABELS = 10_000  # different ones beyond which a label is no class
COLUMNS = 100  # without a role that are remembered
LICENCES = ("license", "licence", "lizenz")
Watch = Callable[[str, int, int], None]
"""Told the split, and how many bytes of how many were read."""


@dataclass(frozen=True)
class Look:
    """How closely to look."""

    columns: Columns = field(default_factory=lambda: {})
    format: str | None = None
    names: bool = False
    """Whether names behind titles count as personal data."""
    sample: int = SAMPLE
    decimal: Mark | None = None
    """The decimal mark of numbers, where they do not show it."""
    encoding: str = UTF8
    """Of the file, for whoever opens it."""
    near: bool = True
    """Whether near duplicates are looked for, which needs datasketch."""
    seed: int = 0


class Seen:
    """What is kept of one split."""

    def __init__(self) -> None:
        self.rows = 0
        self.whole = Digests()
        self.inputs = Digests()
        self.answers = Digests()


class Survey:
    """One pass; every row is looked at once and forgotten, but for a sample."""

    def __init__(self, table: Table, look: Look) -> None:
        self.table = table
        self.look = look
        self.format: Format | None = None
        self.rng = random.Random(look.seed)
        self.seen: dict[Split, Seen] = {}
        self.sample: dict[Split, list[Record]] = {}
        self.usable = 0
        self.trouble: dict[str, list[str]] = {}
        self.counts: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        self.first_of: dict[str, str] = {}
        """The place of the first row of a label."""
        self.licences: Counter[str] = Counter()
        self.left: dict[str, None] = {}
        self.first_fault: DataError | None = None
        self.foreign = False
        """Whether a row that was read holds a letter beyond ASCII."""

    def take(self, split: Split, watch: Watch | None) -> None:
        """All rows of a split."""
        seen = self.seen[split] = Seen()
        kept = self.sample[split] = []
        step = (lambda done, of: watch(split, done, of)) if watch else None
        for row in self._detected(self.table.rows(split, step)):
            seen.rows += 1
            record = self._record(row)
            if record is None:
                continue
            place = len(seen.whole)
            self._look_at(record, seen)
            if isinstance(row, Raw):
                self._licence(row)
                self._beside(row)
            if place < self.look.sample:
                kept.append(record)
            elif (chosen := self.rng.randrange(place + 1)) < self.look.sample:
                kept[chosen] = record

    def _detected(self, rows: Iterator[Raw | Fault]) -> Iterator[Raw | Fault]:
        """The same rows; the first of them say the format."""
        if self.format is not None:
            return rows
        first = list(islice(rows, FIRST))
        known = [row for row in first if isinstance(row, Raw)]
        if known:
            self.format = detect(known, self.look.columns, self.look.format, self.look.decimal)
        return chain(first, rows)

    def _record(self, row: Raw | Fault) -> Record | None:
        error: DataError
        if isinstance(row, Fault):
            error = row.error
        elif self.format is None:
            return None
        else:
            try:
                return self.format.record(row)
            except DataError as cause:
                error = cause
        if isinstance(error, NoSupervision):
            self._note("no_supervision", row.source)
            return None
        self._note("unreadable", row.source)
        self.first_fault = self.first_fault or error
        return None

    def _look_at(self, record: Record, seen: Seen) -> None:
        self.usable += 1
        told = text_of(record)
        self.foreign = self.foreign or not told.isascii()
        seen.whole.add(f"{told}\0{record.label}" if isinstance(record, Labelled) else told)
        seen.inputs.add(input_of(record))
        seen.answers.add(answer_of(record))
        if is_damaged(told):
            self._note("encoding", record.source)
        kinds = {one.kind for one in personal_data(told, self.look.names)}
        for kind in (*kinds, *(["personal_data"] if kinds else ())):
            self._note(kind, record.source)
        if isinstance(record, Example) and record.unanswered:
            self._note("unanswered", record.source)
        if isinstance(record, Labelled) and len(self.labels) < LABELS:
            self.labels[record.label] += 1
            self.first_of.setdefault(record.label, record.source)

    def _licence(self, row: Raw) -> None:
        for name in LICENCES:
            value = row.values.get(name)
            if isinstance(value, str) and value.strip() and len(self.licences) < LABELS:
                self.licences[value.strip()] += 1

    def _beside(self, row: Raw) -> None:
        left = self.format.beside(row) if self.format else []
        if left:
            self._note("unused_columns", row.source)
        if len(self.left) < COLUMNS:
            self.left.update(dict.fromkeys(left))

    def _note(self, code: str, source: str) -> None:
        self.counts[code] += 1
        places = self.trouble.setdefault(code, [])
        if len(places) < SHOWN:
            places.append(source)
