"""`detour starter card`: what the packaged model is, can do and does not know."""

from __future__ import annotations

from typing import Any

import click

from detour.cli.options import json_option
from detour.cli.output import print_json, print_table, say
from detour.model.starter_card import starter_card


@click.group("starter")
def group() -> None:
    """The small model that ships with Detour."""


@group.command("card")
@json_option
def card(as_json: bool) -> None:
    """Show the starter's card: what it can do, held out, and what it does not know."""
    told = starter_card()
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


def _rows(told: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            language,
            f"{figure['value']:.3f}",
            f"[{figure['low']:.3f}, {figure['high']:.3f}]",
            str(figure["n"]),
            _required(told, name, language),
        )
        for name, each in told["bars"].items()
        for language, figure in each.items()
    ]


def _required(told: dict[str, Any], name: str, language: str) -> str:
    bar = f"{told['required'][name]:.2f}" if name in told["required"] else ""
    return f"{bar} missed".strip() if language in told["missed"].get(name, ()) else bar
