"""Rows of whatever file people bring, one after another, each with its place: JSONL, JSON, CSV,
Parquet, plain text, a folder of them, or a dataset of the Hugging Face Hub.

A row that cannot be read becomes a `Fault` and the next one is read, so that a report can count
them; `strictly` raises the first. Nothing but JSON arrays is held in memory whole. Knows files;
does not know what a row means.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeAlias

from detour.data.forms import READERS, Fault, Raw, Watch, delimiter_of
from detour.errors import DataError
from detour.extras import require
from detour.language.catalogue import text

Split: TypeAlias = str
"""`train`, `validation` or `test`."""

SUFFIXES: Final[Mapping[str, str]] = {
    ".jsonl": "JSONL", ".ndjson": "JSONL", ".json": "JSON", ".csv": "CSV", ".tsv": "CSV",
    ".parquet": "Parquet", ".txt": "text", ".md": "text",
}  # fmt: skip
SPLITS: Final[Mapping[Split, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Table:
    """Files of one form, by split."""

    name: str
    form: str
    """JSONL, JSON, CSV, Parquet, text, or a dataset of the Hub."""
    parts: Mapping[Split, tuple[Path, ...]]
    told: str = ""
    """How its rows are taken apart, such as "separated by ;"."""
    hub: Mapping[Split, Any] = field(default_factory=lambda: {}, repr=False)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that are there, training first."""
        return tuple(split for split in SPLITS if self.parts.get(split) or split in self.hub)

    @property
    def size(self) -> int:
        """Bytes of all files; 0 for what lies on the Hub."""
        return sum(path.stat().st_size for paths in self.parts.values() for path in paths)

    def rows(self, split: Split = "train", watch: Watch | None = None) -> Iterator[Raw | Fault]:
        """All rows of a split. Raises DataError where a file as a whole cannot be read."""
        if split in self.hub:
            for number, values in enumerate(self.hub[split], start=1):
                yield Raw(values, f"{self.name}[{split}], row {number}")
            return
        paths = self.parts.get(split, ())
        total = sum(path.stat().st_size for path in paths)
        done = 0
        for path in paths:
            began = done

            def so_far(read: int, _: int, began: int = began) -> None:
                if watch:
                    watch(began + read, total)

            yield from READERS[self.form](path, so_far)
            done += path.stat().st_size

    def strictly(self, split: Split = "train") -> Iterator[Raw]:
        """All rows of a split. Raises DataError at the first that cannot be read."""
        for row in self.rows(split):
            if isinstance(row, Fault):
                raise row.error
            yield row


def open_table(data: str | Path) -> Table:
    """What `data` names: a file, a folder with train/validation/test, or `org/name[@revision]`.

    Raises:
        DataError: nothing is there, nothing in it can be read, or its form is unknown.
        MissingExtra: Parquet or the Hub without the extra `data`.
    """
    path = Path(data)
    if path.is_dir():
        return _folder(path)
    if path.exists():
        return _one(path)
    if _HUB.fullmatch(str(data)) and path.suffix.lower() not in SUFFIXES:
        return _from_hub(str(data))
    raise DataError(
        text("{path} does not exist", path=path),
        expected=text("a file, a folder, or org/name of a dataset on the Hub"),
        hint=text("check the path"),
    )


def _one(path: Path) -> Table:
    form = _form(path)
    told = ""
    if form == "CSV":
        delimiter = delimiter_of(path)
        name = {"\t": "TAB"}.get(delimiter, delimiter)
        told = text("columns separated by {name}", name=name)
    return Table(path.name, form, {"train": (path,)}, told)


def _form(path: Path) -> str:
    form = SUFFIXES.get(path.suffix.lower())
    if form is None:
        raise DataError(
            text("{path} has an ending that says nothing about its form", path=path),
            expected=", ".join(SUFFIXES),
            found=path.suffix or text("none"),
            hint=text("rename the file"),
        )
    return form


def _folder(folder: Path) -> Table:
    """`train.jsonl`, `valid-00000-of-00002.parquet`, `data/test.csv`, ...; or one file alone."""
    files = sorted(
        path
        for place in (folder, folder / "data")
        for path in (place.iterdir() if place.is_dir() else ())
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.suffix.lower() != ".md"
    )
    parts: dict[Split, tuple[Path, ...]] = {}
    for split, names in SPLITS.items():
        found = [p for p in files if re.split(r"[-._]", p.name.lower())[0] in names]
        if found:
            parts[split] = tuple(found)
    if not parts and len(files) == 1:
        return _one(files[0])
    if "train" not in parts:
        raise DataError(
            text("{folder} has no file to train on", folder=folder),
            expected=text("train.jsonl, and perhaps valid.jsonl and test.jsonl"),
            found=", ".join(path.name for path in files[:8]) or text("none"),
            hint=text("name one of the files itself"),
        )
    forms = sorted({_form(path) for paths in parts.values() for path in paths})
    if len(forms) > 1:
        raise DataError(
            text("{folder} mixes forms of files", folder=folder),
            expected=text("one form"), found=", ".join(forms),
        )  # fmt: skip
    return Table(folder.name, forms[0], parts)


def _from_hub(name: str) -> Table:
    datasets = require("datasets", "data")
    repository, _, revision = name.partition("@")
    try:
        found = datasets.load_dataset(repository, revision=revision or None)
    except Exception as cause:  # whatever the library meets: no network, no such dataset, no right
        raise DataError(
            text(
                "{name} is no file here, and no dataset that can be loaded from the Hub", name=name
            ),
            expected=text("a path that exists, or org/name"),
            found=str(cause).split("\n")[0][:200],
            hint=text("check the path; HF_HOME holds what was fetched before"),
        ) from cause
    splits = {
        split: found[key]
        for split, names in SPLITS.items()
        for key in found
        if re.split(r"[-._]", key.lower())[0] in names
    }
    if "train" not in splits:
        raise DataError(
            text("{name} has no split to train on", name=name),
            expected="train", found=", ".join(map(str, found)),
        )  # fmt: skip
    return Table(repository, "Hub", {}, revision, splits)
