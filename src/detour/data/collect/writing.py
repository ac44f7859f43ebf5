"""Rows of many files into one file, or into a folder with train.jsonl and test.jsonl.

Whole files go to one of the two, so that nothing of a test file was ever learned. Written whole or
not at all. Knows readers and records; does not know what the files are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, NoReturn, TextIO

from detour.data.clean import FILE_OF
from detour.data.collect.rows import HINTS, LeftOut, Reader, Row
from detour.data.collect.sources import File
from detour.data.duplicates import digest
from detour.data.records import input_of, text_of
from detour.errors import ConfigError, DataError
from detour.files import check_writable, replace_file_atomically, replace_folder_atomically
from detour.language.catalogue import text

ENDINGS = (".jsonl", ".ndjson")
Watch = Callable[[int, int], None]
"""Told how many files of how many were read."""


@dataclass
class Collected:
    """What became of the files."""

    files: int
    rows: Counter[str] = field(default_factory=lambda: Counter[str]())
    """By split: `train`, and perhaps `test`."""
    files_used: Counter[str] = field(default_factory=lambda: Counter[str]())
    """By split: those of which at least one row was written."""
    unused: list[str] = field(default_factory=lambda: [])
    """Names of files of which no row was written."""
    kinds: Counter[str] = field(default_factory=lambda: Counter[str]())
    left_out: Counter[str] = field(default_factory=lambda: Counter[str]())
    first: dict[str, str] = field(default_factory=lambda: {})
    """The first place of each reason to leave something out."""

    def leave_out(self, one: LeftOut) -> None:
        """Count it."""
        self.left_out[one.why] += 1
        self.first.setdefault(one.why, one.place)

    def to_json(self) -> dict[str, Any]:
        """Counts by split, by kind of row, and by reason."""
        return {
            "files": self.files,
            "files_used": dict(self.files_used),
            "files_unused": self.unused,
            "rows": dict(self.rows),
            "kinds": dict(self.kinds),
            "left_out": {why: {"count": count, "first": self.first[why]}
                         for why, count in self.left_out.most_common()},
        }  # fmt: skip


def check_output(output: Path, is_split: bool) -> None:
    """Refuse now what could not be written, or not be read again, later.

    Raises:
        ConfigError: it is there already, or its name does not suit what is written. StorageError.
    """
    if output.exists():
        raise ConfigError(
            text("{path} is there already", path=output),
            hint=text("another name; nothing is ever replaced"),
        )
    is_file = output.suffix.lower() in ENDINGS
    if is_split and is_file:
        raise ConfigError(
            text("with --test-share two files are written, into a folder"),
            expected=text("-o with the name of a new folder"),
            found=str(output), hint=f"-o {output.with_suffix('')}",
        )  # fmt: skip
    if not is_split and not is_file:
        raise ConfigError(
            text("{path} would not be known as JSONL", path=output),
            expected=text("a name that ends with {endings}", endings=" / ".join(ENDINGS)),
            hint=f"-o {output.with_name(output.name + ENDINGS[0])}",
        )
    check_writable(output)


def write(
    files: Sequence[File],
    read: Reader,
    output: Path,
    test_share: float | None = None,
    watch: Watch | None = None,
) -> Collected:
    """Write all rows, each once; with a share, two files of which no source is in both.

    Args:
        files: in the order in which they are read.
        read: gives the same rows whenever it is called.
        output: a new file, or with a share a new folder.
        test_share: of the rows, about; above 0 and below 1.
        watch: told after every file.

    Raises:
        DataError: nothing can be learned from the files, or one file cannot be divided.
        ConfigError: as `check_output`. StorageError: it cannot be written.
    """
    check_output(output, test_share is not None)
    writing = _Writing(read, Collected(len(files)), watch)
    if test_share is None:
        replace_file_atomically(output, lambda stream: writing.fill("train", files, stream))
    else:
        parts = writing.divided(files, test_share)
        replace_folder_atomically(output, lambda folder: writing.fill_folder(folder, parts))
    return writing.told


class _Writing:
    """One collection; what stands in train decides what may stand in test."""

    def __init__(self, read: Reader, told: Collected, watch: Watch | None) -> None:
        self.read = read
        self.told = told
        self.watch = watch
        self._seen: set[bytes] = set()
        self._trained: set[bytes] = set()

    def divided(self, files: Sequence[File], share: float) -> dict[str, list[File]]:
        """Files by split: for test whole ones, in the order of their names' hashes.

        At most the share of all rows, and at least one file.
        """
        counts = {file: sum(isinstance(one, Row) for one in self.read(file.path)) for file in files}
        used = sorted((file for file in files if counts[file]), key=_hash)
        if len(used) < 2:
            self._refuse(used)
        room, test = share * sum(counts.values()), set[File]()
        for file in used:
            if counts[file] <= room:
                test.add(file)
                room -= counts[file]
        if not test:
            test.add(min(used, key=lambda file: counts[file]))
        return {
            "train": [file for file in files if file not in test],
            "test": [file for file in files if file in test],
        }

    def _refuse(self, used: Sequence[File]) -> NoReturn:
        raise DataError(
            text("--test-share divides by files, and there are not two with rows"),
            expected=text("two files or more"),
            found=", ".join(str(file.path) for file in used) or text("none"),
            hint=text("leave --test-share out: detour train holds out rows for itself"),
        )

    def fill_folder(self, folder: Path, parts: dict[str, list[File]]) -> None:
        for split, files in parts.items():  # training first
            with (folder / FILE_OF[split]).open("w", encoding="utf-8", newline="\n") as stream:
                self.fill(split, files, stream)

    def fill(self, split: str, files: Sequence[File], stream: TextIO) -> None:
        for done, file in enumerate(files, start=1):
            count = 0
            for row in self._kept(split, file):
                stream.write(json.dumps(row.to_json(), ensure_ascii=False) + "\n")
                self.told.kinds.update([row.kind] if row.kind else [])
                count += 1
            self.told.rows[split] += count
            self.told.files_used[split] += bool(count)
            if not count:
                self.told.unused.append(file.name)
            if self.watch:
                self.watch(done, len(files))
        if not self.told.rows[split]:
            self._nothing(split)

    def _kept(self, split: str, file: File) -> Iterator[Row]:
        for one in self.read(file.path):
            if isinstance(one, LeftOut):
                self.told.leave_out(one)
                continue
            whole, asked = digest(text_of(one.record)), digest(input_of(one.record))
            if whole in self._seen:
                self.told.leave_out(LeftOut("repeated", one.record.source))
            elif split == "test" and asked in self._trained:
                self.told.leave_out(LeftOut("in_train", one.record.source))
            else:
                self._seen.add(whole)
                if split == "train":
                    self._trained.add(asked)
                yield one

    def _nothing(self, split: str) -> NoReturn:
        common = self.told.left_out.most_common()
        found = ", ".join(f"{why} {n} ({self.told.first[why]})" for why, n in common)
        raise DataError(
            text("nothing of {split} is left", split=split)
            if split != "train"
            else text("nothing in these files can be learned"),
            expected=text("at least one row that can be used"),
            found=found or text("none"),
            hint=HINTS.get(common[0][0], "") if common else "",
        )


def _hash(file: File) -> str:
    return sha256(file.name.encode("utf-8", "surrogatepass")).hexdigest()
