"""The commands that write a cleaned copy, or read data anew, as they would have to be typed.

Knows how data were named and read; runs nothing.
"""

from __future__ import annotations

import shlex

from detour.data.encodings import UTF8
from detour.data.meaning import Columns
from detour.data.table import Table


def mending(
    table: Table,
    columns: Columns | None = None,
    form: str | None = None,
    decimal: str | None = None,
    more: tuple[str, ...] = (),
) -> str:
    """`detour check rows.csv --fix rows-clean.jsonl`, with all that says how rows are read."""
    words = _checking(table, table.encoding, columns, form, decimal)
    return shlex.join([*words, "--fix", table.copy, *more])


def rereading(
    table: Table,
    encoding: str,
    columns: Columns | None = None,
    form: str | None = None,
    decimal: str | None = None,
) -> str:
    """`detour check rows.csv --encoding cp1252`, likewise."""
    return shlex.join(_checking(table, encoding, columns, form, decimal))


def _checking(
    table: Table, encoding: str, columns: Columns | None, form: str | None, decimal: str | None
) -> list[str]:
    words = ["detour", "check", table.given]
    for role, column in (columns or {}).items():
        words += ["--column", f"{role}={column}"]
    if form:
        words += ["--format", form]
    if decimal:
        words += ["--decimal", decimal]
    if encoding != UTF8:
        words += ["--encoding", encoding]
    return words
