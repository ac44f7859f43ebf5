"""Training data of any form as records, ready to be learned.

Strict, where a report counts: the first row that cannot be used is an error with its place. Knows
files, rows and formats; knows no tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from detour.data.encodings import UTF8
from detour.data.formats import Format, detect
from detour.data.forms import Fault, Raw
from detour.data.meaning import Columns
from detour.data.mend import mending
from detour.data.numbers import Mark
from detour.data.records import Kind, Labelled, Record, Valued, input_of
from detour.data.table import Split, Table, open_table
from detour.errors import DataError, WrongEncoding
from detour.language.catalogue import Text, joined, text
from detour.measure.metrics import normalised
from detour.model.examples import Example, Plain, example_of

FIRST = 200  # rows from which the format is told
SHOWN = 5  # places an error names
Data: TypeAlias = "str | Path | Loaded | Iterable[Mapping[str, Any] | Record]"


@dataclass(frozen=True)
class Loaded:
    """All records by split, and how they were understood."""

    parts: Mapping[Split, tuple[Record, ...]]
    told: Text
    """Such as "JSONL; format alpaca"."""
    format: Format | None = None
    """None where records came from Python as they are."""
    mend: str = "detour check DATA --fix OUT"
    """The command that writes a cleaned copy."""

    @property
    def train(self) -> tuple[Record, ...]:
        """What is learned."""
        return self.parts["train"]

    @property
    def validation(self) -> tuple[Record, ...] | None:
        """What chooses the checkpoint, where the data have such a part."""
        return self.parts.get("validation")

    @property
    def kind(self) -> Kind:
        """What is trained on it."""
        return kind_of(self.train[0])


def kind_of(record: Record) -> Kind:
    """What is trained on such a record."""
    if isinstance(record, Labelled):
        return "classification"
    if isinstance(record, Valued):
        return "regression"
    return "text" if isinstance(record, Plain) else "chat"


def read_data(
    data: Data,
    columns: Columns | None = None,
    form: str | None = None,
    *,
    decimal: Mark | None = None,
    encoding: str = UTF8,
) -> Loaded:
    """All records of a file, a folder or a dataset, or of rows in memory.

    Args:
        data: a path, `org/name` of the Hub, rows as mappings, or records.
        columns: role to column, where names say nothing; see `detect`.
        form: the name of a format.
        decimal: the decimal mark of numbers, where they do not show it.
        encoding: of the file, such as `cp1252`.

    Raises:
        DataError: nothing there, rows that cannot be used, or kinds that are mixed.
        ConfigError: an unknown column, role, format or encoding. MissingExtra: as `open_table`.
    """
    if isinstance(data, Loaded):
        return data
    if not isinstance(data, str | Path):
        return _in_memory(data, columns, form, decimal)
    table = open_table(data, encoding)
    mend = mending(table, columns, form, decimal)
    first = list(islice(table.rows(), FIRST))
    known = [row for row in first if isinstance(row, Raw)]
    found = detect(known, columns, form, decimal) if known else None
    parts = {split: _records(table, split, found, mend) for split in table.splits}
    assert found is not None  # without one, every row was a fault
    told = [part for part in (table.form, table.told, found.told, _cut(parts)) if part]
    return Loaded(parts, joined("; ", told), found, mend)


def _records(table: Table, split: Split, format: Format | None, mend: str) -> tuple[Record, ...]:
    """All rows of a part. Raises DataError: the first that cannot be used, and how many cannot."""
    kept: list[Record] = []
    first: DataError | None = None
    bad = rows = 0
    for row in table.rows(split):
        rows += 1
        try:
            record = _record(row, format)
        except DataError as error:
            first, bad = first or error, bad + 1
        else:
            if first is None:
                kept.append(record)
    if first is not None:
        raise _counted(first, bad, rows, mend)
    return tuple(kept)


def _record(row: Raw | Fault, format: Format | None) -> Record:
    if isinstance(row, Fault):
        raise row.error
    assert format is not None  # there is a row that can be read
    return format.record(row)


def _counted(first: DataError, bad: int, rows: int, mend: str) -> DataError:
    """The first fault, with how many rows have one and what leaves them out."""
    hints = [first.hint] if first.hint else []
    if bad < rows and not isinstance(first, WrongEncoding):  # whole letters would be left out
        hints.append(text("leave such rows out: {command}", command=mend))
    return type(first)(
        text("{fault} ({bad} of {rows} rows cannot be used)", fault=first.message, bad=bad,
             rows=rows),
        expected=first.expected, found=first.found, hint=joined("; ", hints),
    )  # fmt: skip


def _cut(parts: Mapping[Split, Sequence[Record]]) -> str:
    """What is said of rows whose last turns nobody answers."""
    rows = [record for part in parts.values() for record in part if isinstance(record, Example)]
    count = sum(row.unanswered > 0 for row in rows)
    return text("left off behind the last answer: the turns of {count} rows",
                count=count) if count else ""  # fmt: skip


def _in_memory(
    rows: Iterable[Mapping[str, Any] | Record],
    columns: Columns | None,
    form: str | None,
    decimal: Mark | None,
) -> Loaded:
    given = list(rows)
    if not given:
        raise DataError(text("the training data are empty"), expected=text("at least one row"))
    raws = [
        Raw(row, f"row {number}")
        for number, row in enumerate(given, start=1)
        if isinstance(row, Mapping)
    ]
    found = detect(raws[:FIRST], columns, form, decimal) if raws else None
    records: list[Record] = []
    for number, row in enumerate(given, start=1):
        if isinstance(row, Mapping) and found:
            records.append(found.record(Raw(row, f"row {number}")))
        elif isinstance(row, Example | Plain | Labelled | Valued):
            records.append(row)
        else:
            example_of(row, f"row {number}")  # raises: it is no mapping
    kinds = sorted({kind_of(record) for record in records})
    if len(kinds) > 1:
        raise DataError(
            text("the rows are of different kinds"),
            expected=text("one kind"), found=", ".join(kinds),
        )  # fmt: skip
    parts = {"train": tuple(records)}
    told = [part for part in (found.told if found else text("records"), _cut(parts)) if part]
    return Loaded(parts, joined("; ", told), found)


def leaked(loaded: Loaded, split: Split) -> list[Record]:
    """Rows of a part that ask what is asked in training; case, space and Unicode form aside."""
    if split == "train":
        return []
    learned = {normalised(input_of(record)) for record in loaded.train}
    return [record for record in loaded.parts[split] if normalised(input_of(record)) in learned]


def check_apart(loaded: Loaded) -> None:
    """Nothing, if no other part asks what is asked in training.

    Raises:
        DataError: some rows do, so that they would measure memory.
    """
    for split in loaded.parts:
        if inside := leaked(loaded, split):
            raise DataError(
                text("{count} rows of {split} stand in train too", count=len(inside), split=split),
                expected=text("validation and test rows whose questions nothing was trained on"),
                found=", ".join(record.source for record in inside[:SHOWN]),
                hint=loaded.mend,
            )


def learnable(loaded: Loaded, split: Split = "train") -> list[Example | Plain]:
    """The records of a part, for what trains a language model.

    Raises:
        DataError: they are texts with a class or a number.
    """
    records = loaded.parts[split]
    kept = [record for record in records if isinstance(record, Example | Plain)]
    if len(kept) < len(records):
        raise DataError(
            text("these rows are for {kind}, and a language model learns conversations or texts",
                 kind=loaded.kind),
            expected="messages, prompt + completion, text",
            hint=text("say which column is the answer: --column prompt=… --column completion=…"),
        )  # fmt: skip
    return kept
