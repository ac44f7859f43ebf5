"""Options of every command that reads rows, handed to it as one value.

Knows Click; reads data only when asked to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.data.numbers import Mark
    from detour.data.reading import Loaded
    from detour.data.report import Look
    from detour.data.table import Table

UTF8 = "utf-8"
encoding_option = click.option(
    "--encoding",
    metavar="NAME",
    default=UTF8,
    show_default=True,
    help="Of the files, such as cp1252 (Windows) or utf-16.",
)
OPTIONS = (
    encoding_option,
    click.option("--decimal", type=click.Choice(["point", "comma"]),
                 help="The decimal mark of numbers, where they do not show it."),
    click.option("--format", "format_name", metavar="NAME",
                 help="What the rows are, where their columns do not say it."),
    click.option("--column", "columns", multiple=True, metavar="ROLE=NAME",
                 help="Which column plays a role, such as prompt=question; can be repeated."),
)  # fmt: skip


@dataclass(frozen=True)
class RowOptions:
    """How the user says that rows are to be read: --column, --format, --decimal, --encoding."""

    columns: dict[str, str] = field(default_factory=dict[str, str])
    format_name: str | None = None
    decimal: Mark | None = None
    encoding: str = UTF8

    def read(self, data: str | Path) -> Loaded:
        """All records. Raises as `read_data`."""
        from detour.data.reading import read_data

        return read_data(
            data, self.columns, self.format_name, decimal=self.decimal, encoding=self.encoding
        )

    def table(self, data: str | Path) -> Table:
        """The rows as they stand there. Raises as `open_table`."""
        from detour.data.table import open_table

        return open_table(data, self.encoding)

    def look(self) -> Look:
        """A look at them that leaves near duplicates alone."""
        from detour.data.report import Look

        return Look(
            self.columns, self.format_name, decimal=self.decimal, encoding=self.encoding, near=False
        )

    def over(self, columns: dict[str, str], format_name: str | None) -> RowOptions:
        """These, and those of a file where these say nothing."""
        return replace(
            self, columns={**columns, **self.columns}, format_name=self.format_name or format_name
        )


def row_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--column, --format, --decimal and --encoding; the command gets them as `reading`."""

    @wraps(command)
    def called(
        *args: Any,  # noqa: ANN401 - whatever Click hands over
        columns: tuple[str, ...],
        format_name: str | None,
        decimal: Mark | None,
        encoding: str,
        **others: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        reading = RowOptions(roles(columns), format_name, decimal, encoding)
        return command(*args, reading=reading, **others)

    found: Callable[..., Any] = called
    for option in OPTIONS:
        found = option(found)
    return found


def roles(columns: tuple[str, ...]) -> dict[str, str]:
    """`prompt=question` as `{"prompt": "question"}`. Raises ConfigError."""
    found: dict[str, str] = {}
    for one in columns:
        role, sign, name = one.partition("=")
        if not sign or not role or not name:
            raise ConfigError(
                text("--column {given} names no role and no column", given=one),
                expected="ROLE=NAME", hint="--column prompt=question",
            )  # fmt: skip
        found[role.strip()] = name
    return found
