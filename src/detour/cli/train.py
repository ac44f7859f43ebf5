"""`detour train DATA -o OUT`: an adapter from conversations of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.accounting import ACCOUNTED, accounting_of, accounting_options
from detour.cli.company import FLAGS, among, company_options
from detour.cli.options import (
    full_option,
    json_option,
    lang_option,
    model_options,
    replace_option,
)
from detour.cli.output import note
from detour.cli.pipeline import asked
from detour.cli.rows import RowOptions, row_options
from detour.errors import ConfigError
from detour.language.catalogue import ENGLISH, Catalogue, text

if TYPE_CHECKING:
    from detour.data.report import DataReport, Look
    from detour.training.cost import AnyBase


@click.command("train")
@click.argument("data", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="The adapter's new folder.")  # fmt: skip
@row_options
@model_options
@full_option
@click.option("--start", metavar="NAME",
              help="Go on from an adapter; by default with its rank and targets.")  # fmt: skip
@company_options
@click.option("--config", "config_file", type=click.Path(path_type=Path),
              help="YAML with settings, also Axolotl's or LlamaFactory's; flags win.")  # fmt: skip
@click.option("--whole", is_flag=True, help="Train all weights; the outcome is a model.")
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 16]")
@click.option("--targets", help="Layers to adapt: all-linear, or names with commas.")
@click.option("--steps", type=int, help="Optimiser steps.  [default: from the data]")
@click.option("--epochs", type=float, help="Passes over the data, instead of steps.")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@click.option("--micro-batch-size", type=int,
              help="Rows of a step in memory at once.  [default: all]")  # fmt: skip
@click.option("--learning-rate", type=float, help="Highest rate.  [default: from the base]")
@click.option("--dora", is_flag=True, default=None, help="Train the rows' lengths apart (DoRA).")
@click.option("--rslora", is_flag=True, default=None, help="Scale is alpha / √rank.")
@click.option("--init", type=click.Choice(["random", "pissa"]),
              help="How the factors begin.  [default: random]")  # fmt: skip
@click.option("--up-rate", type=float,
              help="Rate of the up factors, in multiples (LoRA+).  [default: 1]")  # fmt: skip
@click.option("--objective", metavar="MODULE:FUNCTION",
              help="A loss of your own; also file.py:function.")  # fmt: skip
@click.option("--patience", type=int,
              help="Stop after so many validations no better; 0: never.  [default: 3]")  # fmt: skip
@click.option("--seed", type=int, help="Of factors and order.  [default: 0]")
@click.option("--licence", default="", help="Licence of the adapter, as on the card.")
@click.option("--description", default="", help="What the adapter is for, as on the card.")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@replace_option
@click.option("--spread", is_flag=True,
              help="Spread the base over the processes that train (FSDP).")  # fmt: skip
@accounting_options
@lang_option
@json_option
def command(
    data: str | None,
    output: Path | None,
    reading: RowOptions,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    full: bool,
    start: str | None,
    config_file: Path | None,
    whole: bool,
    licence: str,
    description: str,
    resume: bool,
    replace: bool,
    spread: bool,
    language: str,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Train an adapter on DATA: conversations or texts, in any form that detour check knows."""
    t = Catalogue.load(language)
    counted = {name: flags.pop(name) for name in ACCOUNTED}
    together = {name: flags.pop(name) for name in FLAGS}
    ask = asked(
        data, output, base_name, reading, dtype=dtype, quantize=quantize,
        whole=whole, config_file=config_file, flags=flags, t=t,
    )  # fmt: skip
    loaded = ask.reading.read(ask.data)  # before the imports that take seconds
    from detour.adapter.peft_format import check_vacant
    from detour.team import launched

    accounting = accounting_of(counted)
    if not (replace or resume):
        check_vacant(ask.output)
    has_head = loaded.kind in ("classification", "regression")
    if ask.whole or has_head:
        launched().check_alone(text("the training of heads and of whole models"))
    look = ask.reading.look()
    company = among(together, ask.output.name, description)
    if company and (ask.whole or has_head):
        raise ConfigError(
            text("only adapters of texts and conversations learn in company"),
            hint=text("leave --company out"),
        )
    if ask.whole:
        from detour.cli.train_whole import train_whole_and_save

        train_whole_and_save(
            loaded, ask, accounting, look, start=start, device=device, full=full, licence=licence,
            description=description, resume=resume, as_json=as_json, t=t,
        )  # fmt: skip
        return
    if has_head:
        from detour.cli.train_head import train_and_save

        told = {"start": start, "quantize": ask.quantize}
        train_and_save(
            loaded, ask.data, ask.output, ask.base, ask.settings, told, accounting, look,
            device=device, dtype=ask.dtype, licence=licence, description=description, resume=resume,
            as_json=as_json, t=t,
        )  # fmt: skip
        return
    from detour.cli.train_adapter import train_adapter_and_save

    train_adapter_and_save(
        loaded, ask, accounting, look, start=start, company=company, spread=spread, device=device,
        full=full, licence=licence, description=description, resume=resume, as_json=as_json, t=t,
    )  # fmt: skip


def teller(t: Catalogue) -> Callable[[str], None]:
    """Says remarks on stderr, in the catalogue's language."""
    return lambda told: note(t.say(told))


def saved(folder: Path) -> str:
    """What is said between training and judging: a fault from here on loses nothing."""
    return text("{folder} is saved; now it is judged", folder=folder)


def looked_at(data: str, base: AnyBase, look: Look, t: Catalogue = ENGLISH) -> DataReport:
    """What `detour check` says, near duplicates apart; what is bad is said before training.

    Raises:
        DataError: it is so bad that nothing is trained.
    """
    from detour.data.findings import check_trainable, is_blocking
    from detour.data.report import look_at
    from detour.data.table import open_table

    report = look_at(open_table(data, look.encoding), base.tokenizer, base.longest, look)
    said = [one for one in report.findings if one.severity != "info" and not is_blocking(one)]
    for finding in said:
        note(f"{finding.code} ({finding.rows}): {t.say(finding.told)}")
    check_trainable(report.findings, report.mend)
    if report.verdict == "too_few":
        note(t.say(report.advice))
    if report.mend and any(finding.options for finding in said):
        note(t("a copy without that: {command}", command=report.mend))
    return report
