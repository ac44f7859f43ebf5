"""A cleaned or converted copy of a table: never in place, written whole or not at all.

A second pass over the rows. Dropped is what cannot be read, what teaches nothing or does not fit,
what repeats an earlier row of its split (in training nearly, too), and what a test or validation
part shares with training, nearly or to the letter; mended is damage of decoding, and classes that
differ in form only; personal data are replaced, and classes renamed, if asked. Knows rows; no
models.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, TextIO

from detour.data.damage import repaired
from detour.data.duplicates import Near, digest
from detour.data.formats import Format
from detour.data.forms import Raw
from detour.data.labels import same_but_form
from detour.data.personal import personal_data, redacted
from detour.data.records import Labelled, Plain, Record, Valued, input_of, parts_of, text_of
from detour.data.survey import SAMPLE
from detour.data.table import SUFFIXES, Split, Table
from detour.errors import ConfigError, DataError, NoSupervision
from detour.files import check_writable, replace_file_atomically, replace_folder_atomically
from detour.language.catalogue import Text, text
from detour.model.examples import Example

TARGETS: Final = ("messages", "prompt_completion", "openai")
FILE_OF: Final[Mapping[Split, str]] = {
    "train": "train.jsonl", "validation": "valid.jsonl", "test": "test.jsonl",
}  # fmt: skip
SHOWN = 20  # classes an error names


@dataclass(frozen=True)
class Cleaning:
    """What is done to the rows on their way."""

    fix: bool = True
    """Drop and mend; without it one that cannot be read is an error."""
    redact: bool = False
    names: bool = False
    left: bool = False
    """Count the rows in which personal data stay."""
    to: str | None = None
    """`messages`, `prompt_completion` or `openai`; by default what `detour train` reads."""
    near: frozenset[str] | None = None
    """Drop also what is nearly the same as an earlier training row, of all parts; these shingles
    are what rows share (`duplicates.shared`). None: not."""
    renamed: Mapping[str, str] = field(default_factory=lambda: {})
    """Classes by the name that they get in the copy."""
    fault: Callable[[Record], str] | None = None
    """Why the base that is to be trained cannot learn a row; empty where it can."""


@dataclass
class Cleaned:
    """What became of the rows."""

    kept: Counter[Split] = field(default_factory=lambda: Counter[Split]())
    dropped: Counter[str] = field(default_factory=lambda: Counter[str]())
    mended: Counter[str] = field(default_factory=lambda: Counter[str]())
    left: Counter[str] = field(default_factory=lambda: Counter[str]())
    """What was found, and stands in the copy all the same."""

    def to_json(self) -> dict[str, Any]:
        """Counts by split, by reason, by what was mended, and by what stays."""
        return {
            "kept": dict(self.kept),
            "dropped": dict(self.dropped),
            "mended": dict(self.mended),
            "left": dict(self.left),
        }


def write_cleaned(
    table: Table, format: Format, labels: Mapping[str, int], output: Path, cleaning: Cleaning
) -> Cleaned:
    """Write the copy: one JSONL file, or a folder where the table has several splits.

    `labels` counts the rows of each class, as the report did.

    Raises:
        ConfigError: as `check_copy`; what is converted has no such form, or a class is renamed
            that is not there.
        DataError: without `fix`, a row that cannot be read; or nothing is left.
        StorageError: it cannot be written.
    """
    check_copy(table, output)
    if cleaning.to is not None and format.kind != "chat":
        raise ConfigError(
            text("{name} rows cannot be written as {form}", name=format.name, form=cleaning.to),
            expected=text("rows that are conversations"), found=format.name,
            hint=text("leave {option} out", option="--to"),
        )  # fmt: skip
    if cleaning.to is not None and cleaning.to not in TARGETS:
        raise ConfigError(
            text("there is no form {form!r}", form=cleaning.to),
            expected=text("one of {names}", names=", ".join(TARGETS)),
        )
    _check_renamed(cleaning.renamed, labels)
    check_writable(output)
    work = _Work(table, format, same_but_form(labels) if cleaning.fix else {}, cleaning)
    if len(table.splits) == 1:
        replace_file_atomically(output, lambda stream: work.write(table.splits[0], stream))
    else:
        replace_folder_atomically(output, work.write_all)
    return work.told


def check_copy(table: Table, output: Path) -> None:
    """Refuse now a name that could not be written later, or would be read as something else.

    Raises:
        ConfigError: it is there already; a file is not called JSONL, or a folder like a file.
    """
    if output.exists():
        raise ConfigError(
            text("{path} is there already", path=output),
            hint=text("another name; a cleaned copy never replaces a file"),
        )
    ending = output.suffix.lower()
    if len(table.splits) > 1 and ending in SUFFIXES:
        raise ConfigError(
            text("the copy is a folder: the data have {splits}", splits=", ".join(table.splits)),
            expected=text("the name of a new folder"), found=str(output),
            hint=str(output.with_suffix("")),
        )  # fmt: skip
    if len(table.splits) == 1 and SUFFIXES.get(ending) != "JSONL":
        named = output.with_suffix(".jsonl") if ending in SUFFIXES else Path(f"{output}.jsonl")
        raise ConfigError(
            text("the copy is JSONL, and would not be read as that under this name"),
            expected=text("a name that ends with {endings}", endings=".jsonl / .ndjson"),
            found=str(output), hint=str(named),
        )  # fmt: skip


def _check_renamed(renamed: Mapping[str, str], labels: Mapping[str, int]) -> None:
    for name in renamed:
        if name not in labels:
            close = get_close_matches(name, labels, n=1)
            raise ConfigError(
                text("there is no class {name!r}", name=name),
                expected=text("one of {names}", names=", ".join(list(labels)[:SHOWN]) or "–"),
                hint=text("did you mean {close!r}?", close=close[0]) if close else "",
            )


class _Work:
    """One copying; what is seen of training decides what may stay in the other splits."""

    def __init__(
        self, table: Table, format: Format, forms: Mapping[str, str], cleaning: Cleaning
    ) -> None:
        self.table = table
        self.format = format
        self.forms = forms
        self.cleaning = cleaning
        self.told = Cleaned()
        self._trained: set[bytes] = set()
        self._sample: list[str] = []
        self._rng = random.Random(0)
        self._near: Near | None = None
        self._kept = None if cleaning.near is None else Near(aside=cleaning.near)
        self._nearly = 0  # rows of other parts that only nearly stand in training

    def write_all(self, folder: Path) -> None:
        for split in self.table.splits:  # training first
            with (folder / FILE_OF[split]).open("w", encoding="utf-8") as stream:
                self.write(split, stream)

    def write(self, split: Split, stream: TextIO) -> None:
        for record in self._records(split):
            stream.write(json.dumps(row_of(record, self.cleaning.to), ensure_ascii=False) + "\n")
            self.told.kept[split] += 1
            if self.cleaning.left and personal_data(text_of(record), self.cleaning.names):
                self.told.left["personal_data"] += 1
        if not self.told.kept[split]:
            raise DataError(
                text("nothing of {split} is left", split=split),
                expected=text("at least one row that can be used"),
                found=", ".join(f"{why} {n}" for why, n in self.told.dropped.items()),
                hint=self._advice(),
            )

    def _advice(self) -> Text | str:
        """What to try where nothing is left, by what most rows were dropped for."""
        most = max(self.told.dropped, key=self.told.dropped.__getitem__, default="")
        if most == "leakage" and self._nearly:
            return text("{option} keeps what is only nearly the same", option="--no-near")
        if most == "no_supervision":
            return text("write an answer at the end of every row")
        return ""

    def _records(self, split: Split) -> Iterator[Record]:
        seen: set[bytes] = set()
        for row in self.table.rows(split) if self.cleaning.fix else self.table.strictly(split):
            if not isinstance(row, Raw):
                self.told.dropped["unreadable"] += 1
                continue
            try:
                record = self._mended(self.format.record(row))
            except DataError as error:
                if not self.cleaning.fix:
                    raise
                why = "no_supervision" if isinstance(error, NoSupervision) else "unreadable"
                self.told.dropped[why] += 1
                continue
            if self.cleaning.fix and self._drops(record, split, seen):
                continue
            yield record

    def _drops(self, record: Record, split: Split, seen: set[bytes]) -> bool:
        told = text_of(record) + (f"\0{record.label}" if isinstance(record, Labelled) else "")
        whole, asked = digest(told), digest(input_of(record))
        why = self.cleaning.fault(record) if self.cleaning.fault else ""
        if not why and split != "train" and (asked in self._trained or self._is_near(record)):
            why = "leakage"
        if not why and whole in seen:
            why = "exact_duplicates"
        if not why and split == "train" and self._repeats_nearly(record):
            why = "near_duplicates"
        if why:
            self.told.dropped[why] += 1
            return True
        seen.add(whole)
        if split == "train":
            self._learn(input_of(record), asked)
        return False

    def _learn(self, told: str, asked: bytes) -> None:
        """Remember what is asked in training; of what is compared at length, a sample."""
        self._trained.add(asked)
        if len(self._sample) < SAMPLE:
            self._sample.append(told)
        elif (chosen := self._rng.randrange(len(self._trained))) < SAMPLE:
            self._sample[chosen] = told

    def _repeats_nearly(self, record: Record) -> bool:
        """Whether one of the first training rows that are kept is nearly the same."""
        if self._kept is None or len(self._kept) >= SAMPLE:
            return False
        return self._kept.like(*parts_of(record), keep=True) is not None

    def _is_near(self, record: Record) -> bool:
        if self.cleaning.near is None:
            return False
        self._kept = None  # training is over
        self._near = self._near or Near(self._sample, self.cleaning.near)
        found = self._near.like(input_of(record)) is not None
        self._nearly += found
        return found

    def _mended(self, record: Record) -> Record:
        if isinstance(record, Example) and record.unanswered:
            self.told.mended["unanswered"] += 1
        if self.cleaning.fix:
            record = self._changed(record, "encoding", repaired)
            if isinstance(record, Labelled):
                record = self._named(record)
        if self.cleaning.redact:
            names = self.cleaning.names
            record = self._changed(record, "personal_data", lambda told: redacted(told, names))
        return record

    def _named(self, record: Labelled) -> Labelled:
        """With the class that it gets: as told, or of the form that most rows have."""
        renamed = self.cleaning.renamed
        formed = self.forms.get(record.label, record.label)
        wanted = renamed.get(record.label, renamed.get(formed, formed))
        if wanted == record.label:
            return record
        self.told.mended["label_form" if wanted == formed else "label_renamed"] += 1
        return replace(record, label=wanted)

    def _changed(self, record: Record, why: str, change: Callable[[str], str]) -> Record:
        if isinstance(record, Example):
            turns = tuple({**m, "content": change(m["content"])} for m in record.messages)
            new: Record = replace(record, messages=turns)
        else:
            new = replace(record, text=change(record.text))
        if new != record:
            self.told.mended[why] += 1
        return new


def row_of(record: Record, to: str | None = None) -> dict[str, Any]:
    """One row as JSON: conversations as `messages`, or as told.

    Raises:
        DataError: a conversation that the form cannot hold.
    """
    if isinstance(record, Plain):
        return {"text": record.text}
    if isinstance(record, Labelled):
        return {"text": record.text, "label": record.label}
    if isinstance(record, Valued):
        return {"text": record.text, "value": record.value}
    turns = [dict(message) for message in record.messages]
    if to == "prompt_completion":
        if [turn["role"] for turn in turns] != ["user", "assistant"]:
            raise DataError(
                text("{source} is more than one question and its answer", source=record.source),
                expected="user, assistant",
                found=", ".join(turn["role"] for turn in turns),
                hint=text("--to messages holds whole conversations"),
            )
        return {"prompt": turns[0]["content"], "completion": turns[1]["content"]}
    if to == "openai" and any(turn["role"] == "tool" for turn in turns):
        raise DataError(
            text("{source} has turns of tools, which need their calls beside them",
                 source=record.source),
            expected="system, user, assistant",
        )  # fmt: skip
    return {"messages": turns}
