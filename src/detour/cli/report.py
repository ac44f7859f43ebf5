"""`detour report SPEC --facts FILE`: what a chain does to edits in CounterFact's form.

Knows Click; the judging is `evaluate/counterfact.py`'s.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detour.cli.options import json_option, lang_option, load_base, model_options, parse_chain
from detour.cli.output import note, print_json, print_table, say
from detour.language.catalogue import Catalogue

if TYPE_CHECKING:
    from detour.measure.statistics import Figure

SHOWN = ("ES", "PS", "NS", "S")


@click.command("report")
@click.argument("spec")
@click.option("--facts", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="Edits as a JSON list in CounterFact's form.")  # fmt: skip
@click.option(
    "--limit", type=click.IntRange(min=1), help="The first so many edits.  [default: all]"
)
@model_options
@lang_option
@json_option
def command(
    spec: str,
    facts: Path,
    limit: int | None,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    language: str,
    as_json: bool,
) -> None:
    """Judge the chain SPEC by edits: do their new objects win, also behind paraphrases, and do
    neighbours keep theirs? Beside it the base, and the base that is told the edit.
    """
    t = Catalogue.load(language)
    chain = parse_chain(spec)
    from detour.evaluate.counterfact import read_cases, scores, told_before, told_by_system

    cases = read_cases(facts, limit)
    base = load_base(base_name, device, dtype, quantize)
    note(t("{count} edits from {path}", count=len(cases), path=facts))
    arms: dict[str, dict[str, Figure] | None] = {
        "base": scores(base, cases),
        "user_prompt": told_before(base, cases),
        "system_prompt": told_by_system(base, cases),
        "steered": scores(base, cases, chain),
    }
    if as_json:
        told = {arm: found and {name: one.to_json() for name, one in found.items()}
                for arm, found in arms.items()}  # fmt: skip
        print_json({"chain": chain.text, "facts": str(facts), "edits": len(cases), **told})
        return
    names = {"base": t("base"), "user_prompt": t("told before the prompt"),
             "system_prompt": t("told by the system message"), "steered": chain.text}  # fmt: skip
    print_table(
        ("", *SHOWN),
        [(names[arm], *(_said(found.get(name)) for name in SHOWN))
         for arm, found in arms.items() if found],
    )  # fmt: skip
    say(t("ES: the new object wins behind the edit's prompt; PS: behind paraphrases; NS: the true "
          "one still wins for neighbours; S: their harmonic mean"))  # fmt: skip


def _said(figure: Figure | None) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]" if figure else "–"
