"""`detour chain consolidate SPEC DATA -o OUT`: a finished chain as one adapter, polished on rows.

Knows Click and files; the training is `training/consolidate.py`'s.
"""

from __future__ import annotations

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
    replace_option,
)
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.rows import RowOptions, row_options
from detour.cli.train import teller
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError, TrainingError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.adapter.chain import Chain
    from detour.training.loop import Result


@click.command("consolidate")
@click.argument("spec")
@click.argument("data")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="Folder of the adapter.")  # fmt: skip
@row_options
@model_options
@click.option("--rank", type=int,
              help="Rank of the adapter.  [default: that of all parts together]")  # fmt: skip
@click.option("--steps", type=int, help="Optimiser steps.  [default: 40]")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: from the base]")
@click.option("--seed", type=int, help="Of the order of rows.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@replace_option
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
    resume: bool,
    replace: bool,
    language: str,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Write the chain SPEC as one adapter that learned DATA a little: rows that say what the whole
    chain shall say.

    Its parts can be taken out or weighted no more.
    """
    t = Catalogue.load(language)
    chain = parse_chain(spec)
    if len(chain.terms) < 2:
        raise ConfigError(
            text("there is nothing to consolidate in a single adapter"),
            expected="formal:0.8+pun", found=spec, hint="detour train DATA --start ADAPTER",
        )  # fmt: skip
    from detour.adapter.peft_format import check_target, check_vacant
    from detour.training.config import make_config
    from detour.training.consolidate import consolidate

    config = make_config({name: value for name, value in flags.items() if value is not None})
    check_target(output)
    if not (replace or resume):
        check_vacant(output)
    rows = reading.read(data)
    unfinished = Unfinished(output, resume)
    base = load_base(base_name, device, dtype, quantize)
    try:
        with watched(t("training"), t) as watcher:
            result, error = consolidate(
                base, chain, rows, config, name=output.name, watcher=watcher, teller=teller(t),
                checkpoints=unfinished.state, resume=resume,
            )  # fmt: skip
        adapter = _described(result.adapter, chain)
        path = adapter.save(output)
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    except TrainingError as error:
        error.hint = text(
            "more steps, another --learning-rate, or {command} for the chain as it is",
            command="detour chain flatten",
        )
        raise
    unfinished.drop()
    if as_json:
        print_json(_summary(result, adapter, chain, error, path))
        return
    say(t("loss {first:.3f} → {best:.3f} at step {step}, {seconds:.0f} s", first=result.first_loss,
          best=result.best_loss, step=result.best_step, seconds=result.seconds))  # fmt: skip
    say(t("{folder} is written", folder=path))
    if error:
        note(t("it began {error:.1%} away from the chain, for its rank", error=error))
    note(t("its {count} parts are one adapter now: none of them can be taken out or weighted",
           count=len(chain.terms)))  # fmt: skip
    say(t("Try: {call}", call=f'detour ask "…" --chain {in_a_chain(path)} --base {base_name}'))


def parts_of(chain: Chain) -> list[dict[str, Any]]:
    """The adapters of a chain as a card names them."""
    return [
        {"name": term.adapter.name, "weight": term.weight, "digest": term.adapter.digest()}
        for term in chain.terms
    ]


def _described(adapter: Adapter, chain: Chain) -> Adapter:
    """With its parts on its card; fictional if one of them is."""
    card = adapter.card
    return adapter.with_(
        card=card.with_(
            config={**card.config, "chain": chain.text, "parts": parts_of(chain)},
            fictional=card.fictional or any(term.adapter.card.fictional for term in chain.terms),
        )
    )


def _summary(
    result: Result, adapter: Adapter, chain: Chain, error: float, path: Path
) -> dict[str, Any]:
    return {
        "adapter": str(path),
        "chain": chain.text,
        "rank": adapter.rank,
        "relative_error": error,
        "loss_first": round(result.first_loss, 6),
        "loss_best": round(result.best_loss, 6),
        "best_step": result.best_step,
        "steps": result.plan.steps,
        "rows": result.rows,
        "seconds": round(result.seconds, 2),
    }
