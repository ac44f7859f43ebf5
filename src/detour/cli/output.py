"""What commands print: results on stdout, remarks on stderr, rich where a person watches.

A terminal gets tables and colours, a pipe gets plain lines, a program gets JSON. Text from models
and foreign files is stripped of control characters before it reaches a terminal. Knows streams and
text; knows nothing of adapters or models.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from detour.errors import DetourError
from detour.language.catalogue import ENGLISH, Catalogue

if TYPE_CHECKING:
    from rich.console import Console

_CONTROL = {code: None for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def is_terminal(stream: Any) -> bool:  # noqa: ANN401 - anything that may stand in for a stream
    """Whether a person sits at the other end."""
    return bool(stream) and not stream.closed and stream.isatty()


def is_conversation() -> bool:
    """Whether a person types and reads."""
    return is_terminal(sys.stdin) and is_terminal(sys.stdout)


def plain(text: str) -> str:
    """The text without control characters: no answer may move the cursor or ring the bell."""
    return text.translate(_CONTROL)


def one_line(text: str) -> str:
    """`plain`, with every run of white space as one space."""
    return " ".join(plain(text).split())


def say(text: str = "", end: str = "\n") -> None:
    """One result for people, on stdout."""
    click.echo(plain(text + end), nl=False)


def heading(text: str) -> None:
    """A line on stdout that stands out in a terminal."""
    click.secho(one_line(text), bold=True)


def note(text: str) -> None:
    """One remark beside the result, on stderr."""
    click.echo(plain(text), err=True)


def console(err: bool = True) -> Console:
    """Rich on stderr (or stdout): progress and tables for a terminal, plain lines otherwise."""
    from rich.console import Console

    return Console(stderr=err, markup=False, highlight=False, soft_wrap=False)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object on one line of stdout. What is not a finite number is null."""
    click.echo(json.dumps(_finite(value), ensure_ascii=False, allow_nan=False))


def print_error(error: DetourError, as_json: bool, t: Catalogue = ENGLISH) -> None:
    """One line on stderr; with `as_json` the object on stdout too."""
    if as_json:
        print_json(error.to_json(t))
    click.echo(f"detour: {one_line(error.told(t))}", err=True)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: drawn in a terminal, aligned columns of text otherwise."""
    clean = [[one_line(cell) for cell in row] for row in rows]
    if is_terminal(sys.stdout):
        _draw(columns, clean)
    else:
        _align([list(columns), *clean])


def _draw(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(*columns, box=SIMPLE, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console(err=False).print(table)


def _align(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def _finite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
