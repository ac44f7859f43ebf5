"""`detour remove`: delete an adapter from the library, after asking.

Only what lies in the user's own folder is ever deleted. Knows the library; knows no model.
"""

from __future__ import annotations

from dataclasses import replace

import click

from detour.cli.options import json_option
from detour.cli.output import is_conversation, plain, print_json, say
from detour.errors import ConfigError
from detour.language.catalogue import text


@click.command("remove")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(name: str, yes: bool, as_json: bool) -> None:
    """Delete the adapter NAME from your library."""
    from detour.adapter.library import Library

    library = replace(Library.default(), names_only=True)
    path = library.removable(name)
    if not yes:
        _confirm(name, str(path))
    library.remove(name)
    if as_json:
        print_json({"removed": name, "path": str(path)})
    else:
        say(f"removed {path}")


def _confirm(name: str, path: str) -> None:
    if not is_conversation():
        raise ConfigError(
            text("{name} is only removed after a question, and nobody can be asked", name=name),
            expected=text("a terminal to ask in, or --yes"),
            hint=f"detour remove {name} --yes",
        )
    click.confirm(plain(f"Delete {path}?"), abort=True, err=True)
