"""The command that writes a cleaned copy, as it would have to be typed.

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
    words = ["detour", "check", table.given]
    for role, column in (columns or {}).items():
        words += ["--column", f"{role}={column}"]
    if form:
        words += ["--format", form]
    if decimal:
        words += ["--decimal", decimal]
    if table.encoding != UTF8:
        words += ["--encoding", table.encoding]
    return shlex.join([*words, "--fix", table.copy, *more])
