"""`detour chain weigh SPEC DATA -o FILE.yaml`: the weights that a chain needs, found on rows.

Knows Click and files; the finding is `training/weighing.py`'s.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import (
    in_a_chain,
    json_option,
    lang_option,
    load_base,
    model_options,
    parse_chain,
)
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.rows import RowOptions, row_options
from detour.cli.train import teller
from detour.errors import ConfigError, TrainingError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain


@click.command("weigh")
@click.argument("spec")
@click.argument("data")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="The new file of the chain, NAME.yaml.")  # fmt: skip
@row_options
@model_options
@click.option("--by-layer", is_flag=True, help="A weight for every decoder layer of an adapter.")
@click.option("--trials", type=click.IntRange(min=2),
              help="Try so many chains instead of learning by gradient.")  # fmt: skip
@click.option("--steps", type=int, help="Optimiser steps.  [default: 60]")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: 0.03]")
@click.option("--seed", type=int, help="Of the order of rows, and of trials.  [default: 0]")
@lang_option
@json_option
def command(
    spec: str,
    data: str,
    output: Path,
    reading: RowOptions,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    by_layer: bool,
    trials: int | None,
    language: str,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Find the weights of the chain SPEC on DATA: rows that say what the whole chain shall say.

    Its adapters stay as they are; FILE.yaml stands for the chain with the new weights.
    """
    t = Catalogue.load(language)
    chain = parse_chain(spec)
    from detour.adapter.chain_file import check_new

    check_new(output)
    settings = {name: value for name, value in flags.items() if value is not None}
    learned = [f"--{name.replace('_', '-')}" for name in ("steps", "learning_rate")
               if name in settings]  # fmt: skip
    if trials and (learned or by_layer):
        raise ConfigError(text("{one} and {other} exclude each other", one="--trials",
                               other="--by-layer" if by_layer else learned[0]))  # fmt: skip
    rows = reading.read(data)
    base = load_base(base_name, device, dtype, quantize)
    from detour.training.weighing import search, weigh

    try:
        with watched(t("trying") if trials else t("training"), t) as watcher:
            how: dict[str, Any] = {"watcher": watcher, "teller": teller(t)}
            if trials:
                found = search(base, chain, rows, settings, trials=trials, **how)
            else:
                found = weigh(base, chain, rows, settings, by_layer=by_layer, **how)
    except TrainingError as error:
        error.hint = text("the chain as it is may be the best of these adapters; else more steps, "
                          "another --learning-rate, or {command}",
                          command="detour chain consolidate")  # fmt: skip
        raise
    written = _written(spec, chain, found.chain, output)
    if as_json:
        print_json({
            "file": str(output), "chain": written.text, "loss_before": round(found.before, 6),
            "loss_after": round(found.after, 6), "rows": found.rows,
            "validation_rows": found.validation_rows, "steps": found.steps,
            "seconds": round(found.seconds, 2),
        })  # fmt: skip
        return
    say(t("loss {before:.3f} → {after:.3f}, {seconds:.0f} s", before=found.before,
          after=found.after, seconds=found.seconds))  # fmt: skip
    say(f"{output}: {written.text}")
    note(t("a loss says not whether each adapter is still right: {command}",
           command=f"detour chain measure {in_a_chain(output)}"))  # fmt: skip


def _written(spec: str, chain: Chain, found: Chain, output: Path) -> Chain:
    """The chain as it was named, with the weights that were found; its file is written."""
    from detour.adapter.chain import Chain, Term
    from detour.adapter.chain_file import ChainFile, expanded, seen_from
    from detour.adapter.chain_text import parse

    named = [
        replace(term, weight=one.weight, layers=one.layers)
        for term, one in zip(expanded(parse(spec)), found.terms, strict=True)
    ]
    ChainFile(seen_from(named, output.parent), output.stem).write(output)
    return Chain(tuple(
        Term(term.adapter, one.weight, one.layers)
        for term, one in zip(chain.terms, found.terms, strict=True)
    ))  # fmt: skip
