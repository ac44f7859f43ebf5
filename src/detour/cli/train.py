"""`detour train DATA -o OUT`: an adapter from conversations of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import (
    data_options,
    full_option,
    in_a_chain,
    json_option,
    load_base,
    model_options,
    roles,
)
from detour.cli.output import note, print_json, say
from detour.cli.progress import watched
from detour.cli.unfinished import Unfinished

if TYPE_CHECKING:
    from detour.data.report import DataReport, Look
    from detour.measure.retention import Retention
    from detour.model.base import Base
    from detour.training.loop import Result
    from detour.training.record import History


@click.command("train")
@click.argument("data")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="The adapter's new folder.")  # fmt: skip
@data_options
@model_options
@full_option
@click.option("--start", metavar="NAME",
              help="Go on from an adapter; by default with its rank and targets.")  # fmt: skip
@click.option("--config", "config_file", type=click.Path(path_type=Path),
              help="YAML file with settings; flags win over it.")  # fmt: skip
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 16]")
@click.option("--targets", help="Layers to adapt: all-linear, or names with commas.")
@click.option("--steps", type=int, help="Optimiser steps.  [default: from the data]")
@click.option("--epochs", type=float, help="Passes over the data, instead of steps.")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: from the base]")
@click.option("--seed", type=int, help="Of factors and order.  [default: 0]")
@click.option("--licence", default="", help="Licence of the adapter, as on the card.")
@click.option("--description", default="", help="What the adapter is for, as on the card.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@json_option
def command(
    data: str,
    output: Path,
    columns: tuple[str, ...],
    format_name: str | None,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    full: bool,
    start: str | None,
    config_file: Path | None,
    licence: str,
    description: str,
    resume: bool,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Train an adapter on DATA: conversations or texts, in any form that detour check knows."""
    settings = settings_from(config_file, flags)
    from detour.data.reading import learnable, read_data
    from detour.data.report import Look

    loaded = read_data(data, roles(columns), format_name)
    if loaded.kind in ("classification", "regression"):
        from detour.cli.train_head import train_and_save

        told = {"start": start, "quantize": quantize}
        train_and_save(
            loaded, data, output, base_name, settings, told,
            device=device, dtype=dtype, licence=licence, description=description, resume=resume,
            as_json=as_json,
        )  # fmt: skip
        return
    examples = learnable(loaded)
    look = Look(roles(columns), format_name, near=False)
    from detour.adapter.card import Card
    from detour.adapter.library import Library
    from detour.adapter.peft_format import check_target
    from detour.measure.retention import retention
    from detour.training.config import make_config
    from detour.training.loop import train_with
    from detour.training.record import History, beside

    config = make_config(settings)
    begun = Library.default().load(start) if start else None
    check_target(output)
    unfinished = Unfinished(output, resume)
    base = load_base(base_name, device, dtype, quantize, full)
    note(f"{len(examples)} rows from {data}; {loaded.told}; base {base.name}")
    report = _looked_at(data, base, look)
    try:
        with watched("training") as watcher:
            history = History(watcher)
            result = train_with(
                base, loaded, config, name=output.name, watcher=history, teller=note,
                checkpoints=unfinished.state, resume=resume,
                card=Card(licence=licence, description=description), start=begun,
            )  # fmt: skip
        kept = retention(base, result.adapter)
        files = beside(base, result, history, kept, report, data)
        path = result.adapter.save(output, files)
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    told = summary(result, path, history, kept)
    if as_json:
        print_json(told)
    else:
        say(
            f"{path}: loss {result.first_loss:.3f} to {result.best_loss:.3f} "
            f"(step {result.best_step} of {result.plan.steps}, {result.seconds:.0f} s)"
        )
        say(
            f"neutral text: perplexity {kept.perplexity_before:.2f} to "
            f"{kept.perplexity_after:.2f}, KL {kept.kl_mean:.4f} nats a token"
        )
        say(f'Try: detour ask "…" --chain {in_a_chain(path)} --base {base_name} --compare')


def settings_from(config_file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Settings of the YAML file, overridden by the flags that were given."""
    from detour.training.config import make_config, read_config

    settings = read_config(config_file) if config_file else {}
    given = {name: value for name, value in flags.items() if value is not None}
    if isinstance(given.get("targets"), str) and given["targets"] != "all-linear":
        given["targets"] = tuple(part.strip() for part in given["targets"].split(","))
    settings = overridden(settings, given)
    make_config(settings)
    return settings


def overridden(settings: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
    """`settings` where `by` says nothing else; steps and epochs say the same, in two ways."""
    kept = dict(settings)
    for name, same in (("steps", "epochs"), ("epochs", "steps")):
        if by.get(name) is not None:
            kept.pop(same, None)
    return {**kept, **by}


def _looked_at(data: str, base: Base, look: Look) -> DataReport:
    """What `detour check` says, near duplicates apart; what is bad is said before training."""
    from detour.data.report import look_at
    from detour.data.table import open_table

    report = look_at(open_table(data), base.tokenizer, base.longest, look)
    for finding in report.findings:
        if finding.severity != "info":
            note(f"{finding.code} ({finding.rows}): {finding.advice}")
    return report


def summary(result: Result, path: Path, history: History, kept: Retention) -> dict[str, Any]:
    """What --json prints."""
    from detour.training.record import losses

    return {
        "adapter": str(path),
        "rows": result.rows,
        "validation_rows": result.validation_rows,
        "steps": result.plan.steps,
        "learning_rate": result.plan.learning_rate,
        "first_loss": round(result.first_loss, 6),
        "best_loss": round(result.best_loss, 6),
        "best_step": result.best_step,
        "train_seconds": round(result.seconds, 2),
        "tokens_per_second": round(history.tokens_per_second, 1),
        "loss_first": round(history.steps[0].loss, 6) if history.steps else None,
        "loss_last": round(history.steps[-1].loss, 6) if history.steps else None,
        "metrics": losses(result),
        "retention": kept.to_json(),
        "keys": len(result.adapter.updates),
    }
