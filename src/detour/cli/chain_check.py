"""`detour chain check SPEC`: whether the parts of a chain are likely to get in each other's way.

Knows Click; the looking is `evaluate/chain_check.py`'s.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detour.cli.options import check_absent, json_option, lang_option, load_base, parse_chain
from detour.cli.output import note, print_json, print_table, say
from detour.errors import AdapterWeightsError, DetourError, MixedBases
from detour.language.catalogue import Catalogue

if TYPE_CHECKING:
    from detour.adapter.chain import Chain
    from detour.evaluate.chain_check import ChainCheck

NOT_CLEAR = 1  # what --strict exits with
SHOWN = 30  # pairs, those with reasons first
_PATH = click.Path(path_type=Path)


@click.command("check")
@click.argument("spec")
@click.option("--base", "base_name", metavar="NAME",
              help="Bind to this base first (DoRA, saved modules).")  # fmt: skip
@click.option("--html", type=_PATH, metavar="FILE", help="Write the report as a page.")
@click.option("--picture", type=_PATH, metavar="FILE", help="Write the heat maps as a PNG file.")
@click.option(
    "--strict", is_flag=True, help="Exit with 1 unless the verdict is: no conflict predicted."
)
@lang_option
@json_option
def command(
    spec: str,
    base_name: str | None,
    html: Path | None,
    picture: Path | None,
    strict: bool,
    language: str,
    as_json: bool,
) -> int:
    """Tell from the weights of the chain SPEC, without running anything, whether its adapters
    repeat, contradict or drown each other, and in which layers.
    """
    check_absent(html, picture)
    t = Catalogue.load(language)
    began = time.perf_counter()
    try:
        chain = parse_chain(spec)
        if base_name is not None:
            chain = load_base(base_name).bind(chain)
        from detour.evaluate.chain_check import check_chain

        found = check_chain(chain)
    except (MixedBases, AdapterWeightsError) as fault:
        return _invalid(spec, fault, time.perf_counter() - began, t, as_json)
    _write(found, html, picture, t)
    if as_json:
        print_json(found.to_json(t))
    else:
        _tell(found, chain, t)
    return NOT_CLEAR if strict and found.verdict != "no conflict predicted" else 0


def _invalid(spec: str, fault: DetourError, seconds: float, t: Catalogue, as_json: bool) -> int:
    """A chain that cannot be: the verdict is `invalid`, and says why."""
    if not as_json:
        raise fault
    print_json({"chain": spec, "verdict": "invalid", "faults": [fault.told(t)], "adapters": [],
                "pairs": [], "seconds": round(seconds, 4)})  # fmt: skip
    return fault.exit_code


def _write(found: ChainCheck, html: Path | None, picture: Path | None, t: Catalogue) -> None:
    from detour.files import write_bytes_atomically, write_text_atomically

    if html:
        from detour.evaluate.conflict_page import page

        write_text_atomically(html, page(found, t))
    if picture:
        from detour.evaluate.conflict_plots import matrices

        write_bytes_atomically(picture, matrices(found, t))


def _tell(found: ChainCheck, chain: Chain, t: Catalogue) -> None:
    pairs = sorted(found.pairs, key=lambda p: (not p.reasons, -p.figures.output_overlap))
    if pairs:
        columns = [t("pair"), t("cosine"), t("cancelled"), t("input overlap"), t("output overlap"),
                   t("why to measure")]  # fmt: skip
        rows = [
            [f"{found.names[p.a]} · {found.names[p.b]}", f"{p.figures.cosine:.2f}",
             f"{p.figures.cancellation:.2f}", f"{p.figures.input_overlap:.2f}",
             f"{p.figures.output_overlap:.2f}", "; ".join(t.say(r) for r in p.reasons)]
            for p in pairs[:SHOWN]
        ]  # fmt: skip
        print_table(columns, rows)
        if len(pairs) > SHOWN:
            note(t("and {count} pairs more: --html or --json shows all", count=len(pairs) - SHOWN))
    shares = ", ".join(
        f"{name} {share:.0%}"
        for name, share in zip(found.names, found.geometry.shares, strict=True)
    )
    say(t("shares of the change: {shares}", shares=shares))
    for fault in found.faults:
        say(t.say(fault))
    say(t("verdict: {verdict}", verdict=t.say(found.said)))
    note(t.say(found.advice))
    note(t("{count} terms, {layers} layers, {seconds:.2f} s", count=len(chain.terms),
           layers=len(found.geometry.layers), seconds=found.seconds))  # fmt: skip
