"""`detour inspect`: what is inside an adapter, layer by layer, and which base it belongs to.

The base is only loaded where --base asks for the whole check; otherwise its files are compared
where they are at hand. Knows adapters and fingerprints.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import json_option, load_base
from detour.cli.output import plain, print_json, print_table, say
from detour.errors import BaseError, SlotError, WrongBase
from detour.model.starter_card import starter_folder

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter

BAR = 24  # characters of the longest bar


@dataclass(frozen=True)
class Match:
    """Whether the adapter belongs on a base. None: not known, and `remark` says why."""

    matches: bool | None
    remark: str = ""


@click.command("inspect")
@click.argument("name", metavar="ADAPTER")
@click.option("--base", "base_name", metavar="NAME", help="Load this base and check against it.")
@json_option
def command(name: str, base_name: str | None, as_json: bool) -> None:
    """Show what is inside ADAPTER, a name of the library or a folder."""
    from detour.adapter.adapter import Adapter
    from detour.adapter.library import Library

    path = Library.default().resolve(name)
    adapter = Adapter.load(path)
    match = _at_hand(adapter) if base_name is None else _on_base(adapter, base_name)
    report = _report(adapter, path, match)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _on_base(adapter: Adapter, base_name: str) -> Match:
    """The whole check: fingerprint, template, and every key lands in the model."""
    base = load_base(base_name)
    import torch

    from detour.slots.content import contents_for_chain

    try:
        chain = base.check(adapter)
        with base.hold(contents_for_chain(chain, torch.float32, base.device)):
            pass
    except (WrongBase, SlotError) as error:
        return Match(False, str(error))
    if adapter.base is None:
        return Match(None, f"all layers fit {base.name}, but unverified: no fingerprint")
    return Match(True)


def _at_hand(adapter: Adapter) -> Match:
    """Compare fingerprints with the base's files, where they lie here."""
    if adapter.base is None:
        return Match(None, "unverified: the adapter carries no fingerprint of its base")
    from detour.adapter.fingerprint import fingerprint_folder

    name = adapter.base.name
    folder = starter_folder() if name == "starter" else Path(name)
    if not (folder / "config.json").is_file():
        return Match(None, f"not checked: {name} is not at hand; name it with --base")
    try:
        here = fingerprint_folder(folder, name)
    except BaseError as error:
        return Match(None, f"not checked: {error}")
    if adapter.base.same_weights(here):
        return Match(True)
    return Match(False, f"made for {adapter.base.short}, but {folder} is {here.short}")


def _report(adapter: Adapter, path: Path, match: Match) -> dict[str, Any]:
    base = adapter.base
    return {
        "name": adapter.name,
        "path": str(path),
        "format": "peft",
        "variant": _variant(path),
        "base": {
            "name": base.name if base else adapter.card.base_model or None,
            "fingerprint": base.to_json() if base else None,
            "matches": match.matches,
        },
        "rank": adapter.rank,
        "parameters": adapter.parameters,
        "norm": adapter.norm(),
        "digest": adapter.digest(),
        "layers": _layers(adapter),
        "modules_to_save": [],  # adapters that have some are refused when they are read
        "card": adapter.card.model_dump(mode="json", exclude={"front_matter", "text"}),
        "warnings": _warnings(adapter, match),
    }


def _variant(path: Path) -> str:
    from detour.adapter.peft_config import read_config

    return "rslora" if read_config(path).use_rslora else "lora"


def _layers(adapter: Adapter) -> list[dict[str, Any]]:
    return [
        {"name": name, "rank": update.rank, "scale": update.scale, "norm": update.norm()}
        for name, update in sorted(adapter.updates.items(), key=lambda item: _in_order(item[0]))
    ]


def _in_order(layer: str) -> list[tuple[bool, int, str]]:
    """Layer 9 before layer 10."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in layer.split(".")
    ]


def _warnings(adapter: Adapter, match: Match) -> list[str]:
    idle = [name for name, update in adapter.updates.items() if update.norm() == 0]
    found = [match.remark] if match.remark else []
    if adapter.card.fictional:
        found.append("fictional: it teaches something that is not true")
    if idle:
        found.append(f"{len(idle)} of {len(adapter.updates)} layers change nothing: {idle[0]} …")
    return found


def _print(report: dict[str, Any]) -> None:
    base = report["base"]
    say(f"{report['name']}  {report['path']}")
    say(f"  {report['format']} {report['variant']}, rank {report['rank']}, "
        f"{report['parameters']:,} parameters, norm {report['norm']:.4g}")  # fmt: skip
    said = {True: "matches", False: "does NOT match", None: "not verified"}[base["matches"]]
    say(f"  base {base['name'] or 'unknown'}: {said}")
    if report["card"]["description"]:
        say(f"  {plain(report['card']['description'])}")
    for warning in report["warnings"]:
        say(f"  ! {warning}")
    say()
    _print_layers(report["layers"])


def _print_layers(layers: list[dict[str, Any]]) -> None:
    longest = max((layer["norm"] for layer in layers), default=0.0) or 1.0
    rows = [
        (
            layer["name"],
            str(layer["rank"]),
            f"{layer['scale']:.4g}",
            f"{layer['norm']:.4g}",
            "▇" * round(BAR * layer["norm"] / longest),
        )
        for layer in layers
    ]
    print_table(("layer", "rank", "scale", "norm", ""), rows)
