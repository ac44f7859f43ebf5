"""`detour inspect`: what is inside an adapter, layer by layer, and which base it belongs to.

The base is only loaded where --base asks for the whole check; otherwise its files are compared
where they are at hand. Knows adapters and fingerprints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import json_option, load_base
from detour.cli.output import plain, print_json, print_table, say
from detour.errors import AdapterWeightsError, BaseError, SlotError, WrongBase
from detour.model.starter_card import starter_folder

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.adapter.peft_config import PeftConfig

BAR = 24  # characters of the longest bar
SHOWN = 3  # names of a kind


@dataclass(frozen=True)
class Match:
    """Whether the adapter belongs on a base. None: not known, and `remark` says why."""

    matches: bool | None
    remark: str = ""


@click.command("inspect")
@click.argument("name", metavar="ADAPTER")
@click.option("--base", "base_name", metavar="NAME", help="Load this base and check against it.")
@click.option("--full", is_flag=True, help="Hash every byte of the base's files, not samples.")
@json_option
def command(name: str, base_name: str | None, full: bool, as_json: bool) -> None:
    """Show what is inside ADAPTER, a name of the library or a folder."""
    from detour.adapter.flat import read_flat
    from detour.adapter.library import Library

    path = Library.default().resolve(name)
    adapter = read_flat(path, verify=True) if path.is_file() else Library.default().load(name)
    match = _at_hand(adapter, full) if base_name is None else _on_base(adapter, base_name, full)
    report = _report(adapter, path, match)
    if as_json:
        print_json(report)
    else:
        _print(report)


def _on_base(adapter: Adapter, base_name: str, full: bool) -> Match:
    """The whole check: fingerprint, template, every key lands, and the logits move."""
    base = load_base(base_name, full=full)
    from detour.model.acting import check_acts

    try:
        check_acts(base, adapter)
    except (WrongBase, SlotError, AdapterWeightsError) as error:
        return Match(False, str(error))
    if adapter.base is None:
        return Match(
            None, "; ".join([f"all layers fit {base.name}", *map(str, base.doubts(adapter))])
        )
    said = [str(doubt) for doubt in base.doubts(adapter)]
    return Match(True, "; ".join([*said, *filter(None, [_sampled(adapter, full)])]))


def _sampled(adapter: Adapter, full: bool) -> str:
    """What to say where every byte was asked for, and the adapter knows samples only."""
    known = adapter.base is not None and adapter.base.full_sha256
    return "" if known or not full else "compared by samples: it was trained without --full"


def _at_hand(adapter: Adapter, full: bool) -> Match:
    """Compare fingerprints with the base's files, where they lie here."""
    if adapter.base is None:
        return Match(None, "unverified: the adapter carries no fingerprint of its base")
    from detour.adapter.fingerprint import fingerprint_folder

    name = adapter.base.name
    folder = starter_folder() if name == "starter" else Path(name)
    if not (folder / "config.json").is_file():
        return Match(None, f"not checked: {name} is not at hand; name it with --base")
    try:
        here = fingerprint_folder(folder, name, full)
    except BaseError as error:
        return Match(None, f"not checked: {error}")
    if adapter.base.same_weights(here):
        return Match(True, _sampled(adapter, full))
    return Match(False, f"made for {adapter.base.short}, but {folder} is {here.short}")


def _report(adapter: Adapter, path: Path, match: Match) -> dict[str, Any]:
    from detour.adapter.elsewhere import refusals

    base = adapter.base
    config = _config(path)
    return {
        "name": adapter.name,
        "path": str(path),
        "format": "flat" if config is None else "peft",
        "variant": _variant(adapter, config),
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
        "modules_to_save": sorted(adapter.unbound.weights),
        "whole": _whole(adapter),
        "licence": adapter.card.licence or None,
        "template": base.template_sha256 if base else None,
        "elsewhere": refusals(adapter, config),
        "card": adapter.card.model_dump(mode="json", exclude={"front_matter", "text"}),
        "warnings": _warnings(adapter, match, config),
    }


def _config(path: Path) -> PeftConfig | None:
    from detour.adapter.peft_config import read_config

    return read_config(path) if path.is_dir() else None


def _variant(adapter: Adapter, config: PeftConfig | None) -> str:
    """The variants by name; those that only the tensors show are added."""
    named = [] if config is None or config.variant == "lora" else config.variant.split("+")
    shown = {
        "bias": bool(adapter.unbound.biases),
        "modules_to_save": bool(adapter.unbound.weights),
        "embedding": any(update.lookup for update in adapter.updates.values()),
    }
    return "+".join([*named, *(name for name, there in shown.items() if there)]) or "lora"


def _whole(adapter: Adapter) -> dict[str, list[str]]:
    """What is held as whole values, by kind; empty kinds are left out."""
    unbound = adapter.unbound
    kinds = {
        "magnitudes": sorted(unbound.magnitudes),
        "biases": sorted(unbound.biases),
        "weights": sorted(unbound.weights),
        "token_rows": [f"{n}: {len(t.ids)} ids" for n, t in sorted(unbound.tokens.items())],
        "stacked": list(unbound.stacked_names) if unbound.stacks else [],
    }
    return {kind: names for kind, names in kinds.items() if names}


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


def _warnings(adapter: Adapter, match: Match, config: PeftConfig | None) -> list[str]:
    from detour.adapter.elsewhere import refusals
    from detour.model.binding import changes_anything

    idle = [name for name, update in adapter.updates.items() if not changes_anything(update)]
    found = [match.remark] if match.remark else []
    if config is not None and isinstance(config.target_modules, tuple):
        missing = [n for n in config.target_modules if not _is_adapted(n, adapter)]
        found += [f"target_modules names {n}, and no tensor is for it" for n in missing[:3]]
    for program, reasons in refusals(adapter, config).items():
        found += [f"{program}: {reason}" for reason in reasons]
    if adapter.card.fictional:
        found.append("fictional: it teaches something that is not true")
    if idle:
        found.append(f"{len(idle)} of {len(adapter.updates)} layers change nothing: {idle[0]} …")
    return found


def _is_adapted(target: str, adapter: Adapter) -> bool:
    """Whether any layer that the adapter changes has that name, or ends in it."""
    unbound = adapter.unbound
    layers = [*adapter.updates, *(stack.module for stack in unbound.stacks), *unbound.biases]
    return any(layer == target or layer.endswith("." + target) for layer in layers)


def _print(report: dict[str, Any]) -> None:
    base = report["base"]
    say(f"{report['name']}  {report['path']}")
    say(f"  {report['format']} {report['variant']}, rank {report['rank']}, "
        f"{report['parameters']:,} parameters, norm {report['norm']:.4g}")  # fmt: skip
    said = {True: "matches", False: "does NOT match", None: "not verified"}[base["matches"]]
    say(f"  base {base['name'] or 'unknown'}: {said}")
    about = [
        f"template {report['template'][:8]}" if report["template"] else "",
        f"licence {plain(report['licence'])}" if report["licence"] else "no licence",
    ]
    say("  " + ", ".join(part for part in about if part))
    for kind, names in report["whole"].items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        say(f"  {kind.replace('_', ' ')}: {', '.join(names[:SHOWN])}{more}")
    if report["card"]["description"]:
        say(f"  {plain(report['card']['description'])}")
    for line in _generated(report["card"]):
        say(f"  {plain(line)}")
    for warning in report["warnings"]:
        say(f"  ! {warning}")
    say()
    _print_layers(report["layers"])


def _generated(card: dict[str, Any]) -> Iterator[str]:
    """What a hypernetwork said of the sentence that it made the adapter from."""
    told = card["metrics"]
    if "generated_by" not in card["config"] or "confidence" not in told:
        return
    names = " + ".join(map(str, told.get("understood_as", ())))
    yield f"generated: understood as {names}, confidence {told['confidence']:.2f}"
    for key, words in (("left_out", "left out"), ("negated", "done though negated")):
        if told.get(key):
            yield f"! {words}: {', '.join(map(str, told[key]))}"


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
