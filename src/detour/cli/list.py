"""`detour list`: the adapters that can be named in a chain.

A broken adapter is listed with what is wrong with it. Knows the library; knows no model.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from detour.cli.options import json_option
from detour.cli.output import note, print_json, print_table

if TYPE_CHECKING:
    from detour.adapter.library import Entry


@click.command("list")
@json_option
def command(as_json: bool) -> None:
    """List the adapters that can be named.

    They lie in $DETOUR_HOME/adapters (~/.detour/adapters unless set); some come with Detour.
    """
    from detour.adapter.library import Library

    library = Library.default()
    entries = library.list()
    if as_json:
        print_json({"adapters": [_json(entry) for entry in entries]})
    elif entries:
        columns = ("name", "base", "rank", "parameters", "size", "remarks")
        print_table(columns, [_row(entry) for entry in entries])
    else:
        note(f"no adapters in {library.folders[0]}; `detour demo` makes one")


def _json(entry: Entry) -> dict[str, object]:
    return {**asdict(entry), "path": str(entry.path)}


def _row(entry: Entry) -> tuple[str, ...]:
    if entry.error:
        return (entry.name, "", "", "", _size(entry.bytes), f"broken: {entry.error}")
    remarks = "fictional" if entry.fictional else ""
    parameters = f"{entry.parameters:,}"
    base = entry.base or "unverified"
    return (entry.name, base, str(entry.rank), parameters, _size(entry.bytes), remarks)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
