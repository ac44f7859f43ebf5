"""Rows of whatever file people bring, one after another, each with its place: JSONL, JSON, CSV,
Parquet, plain text, a folder of them, or a dataset of the Hugging Face Hub.

A row that cannot be read becomes a `Fault` and the next one is read, so that a report can count
them; `strictly` raises the first. Nothing but JSON arrays is held in memory whole. Knows files;
does not know what a row means.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from detour.data.encodings import UTF8, known_encoding
from detour.data.forms import READERS, Fault, Raw, Watch, delimiter_of
from detour.data.splits import FILES, SPLITS, Candidate, Split, Words, candidate_of, chosen, told
from detour.errors import ConfigError, DataError
from detour.extras import require
from detour.language.catalogue import Text, joined, text

SUFFIXES: Final[Mapping[str, str]] = {
    ".jsonl": "JSONL", ".ndjson": "JSONL", ".json": "JSON", ".csv": "CSV", ".tsv": "CSV",
    ".parquet": "Parquet", ".txt": "text", ".md": "text",
}  # fmt: skip
OTHERS: Final[Mapping[str, tuple[str, ...]]] = {
    "table": (".xlsx", ".xls", ".xlsm", ".ods", ".numbers"),
    "packed": (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar", ".tgz", ".7z"),
    "document": (".pdf", ".html", ".htm", ".rst", ".py"),
    "letter": (".docx", ".doc", ".odt", ".rtf", ".pages"),
}
"""Endings of what people bring all the same."""
_ADVICE: Final[Mapping[str, Callable[[Path], str]]] = {
    "table": lambda path: text("save the table as CSV in UTF-8: {name}",
                               name=path.with_suffix(".csv")),
    "packed": lambda path: text("unpack it first: {command}", command=_unpacking(path)),
    "document": lambda path: text(
        "make rows of it: {command}",
        command=f"detour collect {shlex.quote(str(path))} -o {path.stem}.jsonl",
    ),
    "letter": lambda path: text("save it as text in UTF-8: {name}", name=path.with_suffix(".txt")),
    "": lambda _: text("give it the ending of what it holds"),
}  # fmt: skip
_HUB = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


@dataclass(frozen=True)
class Table:
    """Files of one form, by split."""

    name: str
    form: str
    """JSONL, JSON, CSV, Parquet, text, or a dataset of the Hub."""
    parts: Mapping[Split, tuple[Path, ...]]
    told: str = ""
    """What was read as what: which files, and how rows are taken apart ("separated by ;")."""
    given: str = ""
    """As the user named it."""
    encoding: str = UTF8
    hub: Mapping[Split, Any] = field(default_factory=lambda: {}, repr=False)

    @property
    def splits(self) -> tuple[Split, ...]:
        """Those that are there, training first."""
        return tuple(split for split in SPLITS if self.parts.get(split) or split in self.hub)

    @property
    def copy(self) -> str:
        """A name for a cleaned copy beside it; of a folder where there are several parts."""
        path = Path(self.given if self.parts else self.name.replace("/", "-"))
        path = path if path.name else path.resolve()  # "." and ".." have none
        name = path.name if path.is_dir() else path.stem
        return str(path.with_name(f"{name}-clean{'' if len(self.splits) > 1 else '.jsonl'}"))

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

            yield from READERS[self.form](path, so_far, self.encoding)
            done += path.stat().st_size

    def strictly(self, split: Split = "train") -> Iterator[Raw]:
        """All rows of a split. Raises DataError at the first that cannot be read."""
        for row in self.rows(split):
            if isinstance(row, Fault):
                raise row.error
            yield row


def open_table(data: str | Path, encoding: str = UTF8) -> Table:
    """What `data` names: a file, a folder with train/validation/test, or `org/name[@revision]`.

    Raises:
        DataError: nothing is there, nothing in it can be read, or its form is unknown.
        ConfigError: no such encoding, or one for what is no text.
        MissingExtra: Parquet or the Hub without the extra `data`.
    """
    encoding = known_encoding(encoding)
    table = replace(_table(data, encoding), given=str(data), encoding=encoding)
    if encoding != UTF8 and table.form in ("Parquet", "Hub"):
        raise ConfigError(
            text("--encoding says nothing about {form}", form=table.form),
            expected=text("a file of text"), hint=text("leave it out"),
        )  # fmt: skip
    return table


def _table(data: str | Path, encoding: str) -> Table:
    path = Path(data)
    if path.is_dir():
        return _folder(path, encoding)
    if path.exists():
        return _one(path, encoding)
    if _HUB.fullmatch(str(data)) and path.suffix.lower() not in SUFFIXES:
        return _from_hub(str(data))
    raise DataError(
        text("{path} does not exist", path=path),
        expected=text("a file, a folder, or org/name of a dataset on the Hub"),
        hint=_nearest(path),
    )


def _nearest(path: Path) -> Text:
    there = [one.name for one in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, there, n=1)
    if close:
        return text("did you mean {close!r}?", close=str(path.with_name(close[0])))
    return text("check the path")


def _one(path: Path, encoding: str) -> Table:
    form = _form(path)
    separated = ""
    if form == "CSV":
        delimiter = delimiter_of(path, encoding)
        name = {"\t": "TAB"}.get(delimiter, delimiter)
        separated = text('columns separated by "{name}"', name=name)
    return Table(path.name, form, {"train": (path,)}, separated)


def _unpacking(path: Path) -> str:
    name = shlex.quote(str(path))
    tools = {".gz": "gunzip", ".bz2": "bunzip2", ".xz": "unxz", ".zst": "unzstd", ".zip": "unzip"}
    return f"{tools.get(path.suffix.lower(), 'tar xf')} {name}"


def _form(path: Path) -> str:
    ending = path.suffix.lower()
    form = SUFFIXES.get(ending)
    if form is None:
        of = next((kind for kind, endings in OTHERS.items() if ending in endings), "")
        raise DataError(
            text("{path} has an ending that says nothing about its form", path=path),
            expected=", ".join(SUFFIXES),
            found=path.suffix or text("none"),
            hint=_ADVICE[of](path),
        )
    return form


def _folder(folder: Path, encoding: str) -> Table:
    """`train.jsonl`, `valid-00000-of-00002.parquet`, `data/test.csv`, ...; or one file alone."""
    files = sorted(
        path
        for place in (folder, folder / "data")
        for path in (place.iterdir() if place.is_dir() else ())
        if path.suffix.lower() in SUFFIXES and path.is_file() and path.suffix.lower() != ".md"
    )
    candidates = {candidate_of(path, folder): path for path in files}
    if len(files) == 1 and not any(one.split for one in candidates):
        return _one(files[0], encoding)
    found = chosen(list(candidates), FILES)
    if "train" not in found:
        raise DataError(
            text("{folder} has no file to train on", folder=folder),
            expected=text("train.jsonl, and perhaps valid.jsonl and test.jsonl"),
            found=", ".join(path.name for path in files[:8]) or text("none"),
            hint=text("name one of the files itself")
            if files
            else text("put a file of rows into it: {endings}", endings=", ".join(SUFFIXES)),
        )
    parts = {split: tuple(candidates[one] for one in own) for split, own in found.items()}
    forms = sorted({_form(path) for paths in parts.values() for path in paths})
    if len(forms) > 1:
        raise DataError(
            text("{folder} mixes forms of files", folder=folder),
            expected=text("one form"), found=", ".join(forms),
        )  # fmt: skip
    return Table(folder.name, forms[0], parts, told(found, list(candidates)))


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
    return hub_table(repository, revision, found)


def hub_table(repository: str, revision: str, rows: Mapping[str, Any]) -> Table:
    """A dataset of the Hub whose splits were loaded.

    Raises:
        DataError: none of them is for training, or several could be the same part.
    """
    candidates = [Candidate(name, name.lower()) for name in rows]
    at = f", revision={revision!r}" if revision else ""
    words = Words(
        lambda split: text("no split is named {split}, and others begin with it", split=split),
        lambda split: text("several splits could be {split}", split=split),
        text(
            "write the one that is meant into a file, in Python: {code}",
            code=f"load_dataset({repository!r}{at})[SPLIT].to_json('train.jsonl')",
        ),
    )
    parts = chosen(candidates, words)
    if "train" not in parts:
        raise DataError(
            text("{name} has no split to train on", name=repository),
            expected="train", found=", ".join(rows), hint=words.hint,
        )  # fmt: skip
    said = [part for part in (revision, told(parts, candidates)) if part]
    splits = {split: rows[own[0].shown] for split, own in parts.items()}
    return Table(repository, "Hub", {}, joined("; ", said), hub=splits)
