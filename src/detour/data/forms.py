"""One row after another out of a file of each form, each with its place.

A row that cannot be read becomes a `Fault` and the next one is read. Nothing but JSON arrays is
held in memory whole. Knows files; does not know what a row means, nor which file is which split.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

from detour.data.encodings import UTF8, advised, likely_encoding, opened
from detour.errors import DataError, WrongEncoding
from detour.extras import require
from detour.language.catalogue import text
from detour.model.examples import check_bytes, json_object

Watch: TypeAlias = Callable[[int, int], None]
"""Told how many bytes of how many were read."""
DELIMITERS = (",", ";", "\t", "|")
LARGEST_ARRAY = 256 * 2**20  # bytes of a JSON array, which is read whole
PARQUET_ROWS = 1000  # at a time


@dataclass(frozen=True)
class Raw:
    """One row as it stands in the file."""

    values: Mapping[str, Any]
    source: str
    """Such as `rows.csv:17`."""


@dataclass(frozen=True)
class Fault:
    """A row that cannot be read, and why."""

    error: DataError
    source: str


def _jsonl(path: Path, watch: Watch, encoding: str = UTF8) -> Iterator[Raw | Fault]:
    size = path.stat().st_size
    rows = 0
    with opened(path, encoding) as stream:
        read = 0
        for number, line in enumerate(stream, start=1):
            read += len(line)
            if number % 1000 == 1:
                watch(read, size)
            if number == 1:
                _check_start(path, line)
            if not (told := _bare(line, first=number == 1)):
                continue
            if not rows and told.startswith(b"[") and not _is_row_of_cells(told):
                raise _is_list(path)
            rows += 1
            yield _parsed(line, number, path)
    if not rows:
        raise _empty(path)
    watch(size, size)


def _parsed(line: bytes, number: int, path: Path) -> Raw | Fault:
    source = f"{path}:{number}"
    try:
        return Raw(json_object(_decoded(line, source, first=number == 1), source), source)
    except DataError as error:
        return Fault(error, source)


def _is_row_of_cells(line: bytes) -> bool:
    """Whether a line is a whole list without objects: a row of a form that is not known here."""
    try:
        told = json.loads(line)
    except ValueError:
        return False
    return not any(isinstance(one, dict) for one in told)


def _is_list(path: Path) -> DataError:
    return DataError(
        text("{path} is one list of rows", path=path),
        expected=text("one object per line (JSONL)"),
        found="[",
        hint=text("name it {name}", name=path.with_suffix(".json").name),
    )


def _as_row(value: object, source: str) -> Raw | Fault:
    if isinstance(value, dict):
        return Raw(cast("dict[str, Any]", value), source)
    error = DataError(
        text("{source} is not a JSON object", source=source), found=type(value).__name__
    )
    return Fault(error, source)


def _json(path: Path, watch: Watch, encoding: str = UTF8) -> Iterator[Raw | Fault]:
    """A list of objects; an object that holds one; or a task of Super-NaturalInstructions."""
    size = path.stat().st_size
    if size > LARGEST_ARRAY:
        raise DataError(
            text("{path} is one JSON value, and too large to read whole", path=path),
            expected=text("at most {limit} MB", limit=LARGEST_ARRAY // 2**20),
            found=f"{size // 2**20} MB",
            hint=text("one object per line (JSONL) has no such limit"),
        )
    told = _read_whole(path, encoding)
    try:
        value = json.loads(told)
    except (ValueError, RecursionError) as cause:
        if told.lstrip().startswith("{") and "\n" in told.strip():
            yield from _jsonl(path, watch, encoding)  # one object per line under another name
            return
        raise DataError(
            text("{path} is not JSON", path=path),
            expected=text("a list of objects"),
            found=str(cause),
            hint=text("mend it there; of one object per line (JSONL) broken ones can be left out"),
        ) from cause
    rows = value if isinstance(value, list) else _list_in(value)
    if rows is None:
        raise DataError(
            text("{path} holds no list of rows", path=path),
            expected=text("a list of objects"),
            found=", ".join(map(repr, list(value)[:8])) if isinstance(value, dict) else repr(value),
        )
    if not rows:
        raise _empty(path)
    for number, row in enumerate(cast("list[object]", rows), start=1):
        if number % 1000 == 1:
            watch(size * number // len(rows), size)
        yield _as_row(row, f"{path}, row {number}")


def _list_in(value: object) -> list[object] | None:
    if not isinstance(value, dict):
        return None
    held = cast("dict[str, Any]", value)
    if isinstance(held.get("Instances"), list):  # Super-NaturalInstructions
        task = {"sni_definition": held["Definition"]} if held.get("Definition") else {}
        return [
            {**task, "sni_input": one.get("input"), "sni_output": one.get("output")}
            if isinstance(one, dict) else one
            for one in held["Instances"]
        ]  # fmt: skip
    lists = [held[key] for key in ("data", "rows", "examples", "train") if key in held]
    return lists[0] if len(lists) == 1 and isinstance(lists[0], list) else None


def _csv(path: Path, watch: Watch, encoding: str = UTF8) -> Iterator[Raw | Fault]:
    size = path.stat().st_size
    delimiter = delimiter_of(path, encoding)
    with (
        opened(path, encoding) as bytes_,
        io.TextIOWrapper(bytes_, "utf-8-sig", newline="") as stream,
    ):
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        try:
            rows = 0
            head = [name.strip() for name in next(filter(_holds, reader), ())]
            if not head:
                raise _empty(path)
            _check_head(path, head, delimiter)
            line = reader.line_num + 1
            for cells in reader:
                source, line = f"{path}:{line}", reader.line_num + 1
                if not cells:
                    continue
                rows += 1
                if rows % 1000 == 1:
                    watch(bytes_.tell(), size)
                if len(cells) == len(head):
                    yield Raw(dict(zip(head, cells, strict=True)), source)
                else:
                    yield Fault(_other_width(source, head, cells, delimiter), source)
        except csv.Error as cause:
            raise DataError(
                text("{path}:{line} is no row of a CSV file", path=path, line=reader.line_num),
                expected=text("quotes in pairs, and at most 131,072 characters a cell"),
                found=str(cause),
                hint=text("look for a quote that is missing there or in a line above"),
            ) from cause
        except UnicodeDecodeError as cause:
            raise _not_utf8(path) from cause
    if not rows:
        raise _empty(path)
    watch(size, size)


def _holds(cells: list[str]) -> bool:
    """Whether it is a row at all: an empty line is none."""
    return len(cells) > 1 or any(cell.strip() for cell in cells)


def _check_head(path: Path, head: list[str], delimiter: str) -> None:
    twice = sorted({name for name in head if head.count(name) > 1})
    if twice or not all(head):
        raise DataError(
            text("{path} has a first line that does not name its columns", path=path),
            expected=text("different names, separated by {delimiter!r}", delimiter=delimiter),
            found=", ".join(map(repr, head))[:200],
            hint=text("delete line 1, which only Excel reads")
            if head[0].casefold().startswith("sep=")
            else text("write a line of names above the rows"),
        )


def _other_width(source: str, head: list[str], cells: list[str], delimiter: str) -> DataError:
    return DataError(
        text("{source} has another number of columns than the first line", source=source),
        expected=text("{count}: {names}", count=len(head), names=", ".join(head)),
        found=str(len(cells)),
        hint=text("put quotes around a cell that holds {delimiter!r}", delimiter=delimiter),
    )


def delimiter_of(path: Path, encoding: str = UTF8) -> str:
    """The one that takes the first lines into the same number of columns, the most of them."""
    if path.suffix.lower() == ".tsv":
        return "\t"
    with opened(path, encoding) as stream:
        start = stream.read(65536)
    _check_start(path, start)
    if not _bare(start, first=True):
        raise _empty(path)
    told = start.decode("utf-8-sig", errors="replace")
    best = ","
    most = 1
    for delimiter in DELIMITERS:
        try:
            rows = filter(_holds, csv.reader(io.StringIO(told, newline=""), delimiter=delimiter))
            widths = [len(row) for row in islice(rows, 20)]
        except csv.Error:
            continue
        if not widths:
            continue
        same = sum(width == widths[0] for width in widths)
        if widths[0] > most and same >= 0.8 * (len(widths) - 1):
            best, most = delimiter, widths[0]
    return best


def _parquet(path: Path, watch: Watch, _: str = UTF8) -> Iterator[Raw | Fault]:
    parquet = require("pyarrow.parquet", "data")
    arrow = require("pyarrow", "data")
    size = path.stat().st_size
    number = 0
    try:
        file = parquet.ParquetFile(path)
        total = file.metadata.num_rows
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for values in batch.to_pylist():
                number += 1
                yield Raw(values, f"{path}, row {number}")
            watch(size * number // total, size)
    except (arrow.ArrowException, OSError) as cause:  # also where it is damaged further on
        raise DataError(
            text("{path} is no Parquet file", path=path), found=str(cause).split("\n")[0][:200]
        ) from cause
    if not number:
        raise _empty(path)


def _text(path: Path, watch: Watch, encoding: str = UTF8) -> Iterator[Raw | Fault]:
    """Paragraphs: what stands between empty lines."""
    lines: list[str] = []
    begun = 1
    size, read, rows = path.stat().st_size, 0, 0
    with opened(path, encoding) as stream:
        for number, raw in enumerate(stream, start=1):
            if number == 1:
                _check_start(path, raw)
            read += len(raw)
            line = _decoded(raw, f"{path}:{number}", first=number == 1).rstrip("\r\n")
            if line.strip():
                begun = begun if lines else number
                lines.append(line)
            elif lines:
                rows += 1
                yield Raw({"text": "\n".join(lines)}, f"{path}:{begun}")
                lines = []
            if number % 1000 == 1:
                watch(read, size)
    if lines:
        rows += 1
        yield Raw({"text": "\n".join(lines)}, f"{path}:{begun}")
    if not rows:
        raise _empty(path)
    watch(size, size)


Reader: TypeAlias = "Callable[..., Iterator[Raw | Fault]]"
"""Given a path, a `Watch`, and perhaps the encoding of the file."""
READERS: Final[Mapping[str, Reader]] = {
    "JSONL": _jsonl, "JSON": _json, "CSV": _csv, "Parquet": _parquet, "text": _text,
}  # fmt: skip


# ---- encodings -------------------------------------------------------------------------------


def _bare(raw: bytes, first: bool) -> bytes:
    """Without white space around, and without a byte order mark where a file begins."""
    return (raw.removeprefix(codecs.BOM_UTF8) if first else raw).strip()


def _check_start(path: Path, start: bytes) -> None:
    check_bytes(path, start, hint="--encoding utf-16")


def _read_whole(path: Path, encoding: str) -> str:
    with opened(path, encoding) as stream:
        raw = stream.read()
    _check_start(path, raw[:4096])
    if not _bare(raw, first=True):
        raise _empty(path)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as cause:
        raise _not_utf8(path) from cause


def _decoded(line: bytes, source: str, first: bool) -> str:
    try:
        return line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError as cause:
        error = WrongEncoding(
            text("{source} is not UTF-8", source=source),
            expected="UTF-8",
            found=text("byte 0x{byte:02x}", byte=line[cause.start]),
            hint=advised(line, cause.start),
        )
        error.likely, _ = likely_encoding(line)
        raise error from cause


def _not_utf8(path: Path) -> DataError:
    """The error that names the first line that is none; for a file in which there is one."""
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            try:
                _decoded(line, f"{path}:{number}", first=number == 1)
            except DataError as error:
                return error
    return WrongEncoding(text("{path} is not UTF-8", path=path), expected="UTF-8")


def _empty(path: Path) -> DataError:
    return DataError(
        text("{path} holds no row", path=path),
        expected=text("at least one row"),
        hint=text("look whether it is the right file, and whether it was saved"),
    )
