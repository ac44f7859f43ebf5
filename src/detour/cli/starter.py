"""`detour starter card`: what the packaged model is, can do and does not know."""

from __future__ import annotations

import json
from typing import Any, cast

import click

from detour.cli.options import json_option, starter_folder
from detour.cli.output import print_json, print_table, say
from detour.errors import MachineError

_KEYS = {"name", "parameters", "bytes", "licence", "languages", "bars", "required", "does_not_know"}


@click.group("starter")
def group() -> None:
    """The small model that ships with Detour."""


@group.command("card")
@json_option
def card(as_json: bool) -> None:
    """Show the starter's card: what it can do, held out, and what it does not know."""
    told = read_card()
    if as_json:
        print_json(told)
        return
    say(
        f"{told['name']}: {told['parameters']:,} parameters, {told['bytes'] / 1e6:.1f} MB, "
        f"licence {told['licence']}, languages {', '.join(told['languages'])}"
    )
    say("Every bar: share of right greedy answers with its 95 % interval, on cases kept away")
    say("from its training where the name says so.\n")
    print_table(("bar", "language", "value", "interval", "n", "required"), _rows(told))
    say("\nIt does not know names that nobody bears, such as "
        f"{', '.join(told['does_not_know'][:6])}.")  # fmt: skip


def read_card() -> dict[str, Any]:
    """The packaged card.

    Raises:
        MachineError: the installation lacks it.
    """
    path = starter_folder() / "card.json"
    hint = "install Detour again; `detour doctor` checks the starter's files"
    try:
        told: Any = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as cause:
        raise MachineError(
            "the starter's card cannot be read", found=str(cause), hint=hint
        ) from cause
    if not isinstance(told, dict) or not told.keys() >= _KEYS:
        expected = f"an object with {', '.join(sorted(_KEYS))}"
        raise MachineError("the starter's card cannot be read", expected=expected, hint=hint)
    return cast("dict[str, Any]", told)


def _rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            language,
            f"{figure['value']:.3f}",
            f"[{figure['low']:.3f}, {figure['high']:.3f}]",
            str(figure["n"]),
            f"{told['required'][name]:.2f}" if name in told["required"] else "",
        )
        for name, each in told["bars"].items()
        for language, figure in each.items()
    ]
