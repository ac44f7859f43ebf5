"""`detour estimate`: what a training would take, from the base's configuration alone.

Knows Click; the reckoning is `training/estimate`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import (
    base_option,
    dtype_option,
    json_option,
    lang_option,
)
from detour.cli.output import heading, print_json, print_table, say
from detour.cli.pipeline import settings_over
from detour.cli.rows import RowOptions, row_options
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.model.blueprint import Blueprint
    from detour.training.config import TrainConfig
    from detour.training.estimate.estimate import Estimate, Way
    from detour.training.estimate.workload import Workload

ROWS = 1000  # where nobody says how many
TOKENS = 512  # of a row, where nobody says: a block of plain text
_COUNT = click.IntRange(min=1)


@click.command("estimate")
@base_option
@click.option("--gpu", default="cpu", show_default=True, metavar="NAME",
              help="Such as A100-80GB or L40; cpu is this machine.")  # fmt: skip
@click.option("--gpus", type=_COUNT, default=1, show_default=True, help="How many of them.")
@click.option("--data", metavar="DATA", help="The rows, in any form that detour check knows.")
@row_options
@click.option("--tokens", type=_COUNT,
              help="Of all rows.  [default: rows × sequence length]")  # fmt: skip
@click.option("--rows", type=_COUNT,
              help="How many.  [default: tokens / sequence length, or 1000]")  # fmt: skip
@click.option("--sequence-length", type=_COUNT,
              help="Tokens of the longest row.  [default: tokens / rows, or 512]")  # fmt: skip
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--targets", help="Layers to adapt: all-linear, or names with commas.")
@click.option("--steps", type=int, help="Optimiser steps.  [default: from the data]")
@click.option("--epochs", type=float, help="Passes over the data, instead of steps.")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@dtype_option
@click.option("--mfu", type=click.FloatRange(0, 1, min_open=True),
              help="Share of the peak that is reached.  [default: 0.35; cpu: 0.5]")  # fmt: skip
@click.option("--watts", type=click.FloatRange(min=0, min_open=True),
              help="What one device takes.  [default: its data sheet's; cpu: 65]")  # fmt: skip
@click.option("--price-per-hour", type=click.FloatRange(min=0),
              help="Of one device, in any currency.")  # fmt: skip
@lang_option
@json_option
def command(
    base_name: str,
    gpu: str,
    gpus: int,
    data: str | None,
    reading: RowOptions,
    tokens: int | None,
    rows: int | None,
    sequence_length: int | None,
    dtype: str | None,
    mfu: float | None,
    watts: float | None,
    price_per_hour: float | None,
    language: str,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Tell memory, hours, energy and price of a training before it is run; no weights are loaded,
    and none are fetched.
    """
    t = Catalogue.load(language)
    _check(data, tokens, rows, sequence_length, gpu, gpus)
    from dataclasses import replace

    import torch

    from detour.model.blueprint import Blueprint
    from detour.training.config import make_config
    from detour.training.estimate.estimate import UTILISATION, Question, estimate
    from detour.training.estimate.machine import CPU, gpu_called, processor

    config = make_config(settings_over({}, flags))
    on_cpu = gpu.lower() == CPU
    numbers = getattr(torch, dtype or ("float32" if on_cpu else "bfloat16"))
    machine = None if on_cpu else gpu_called(gpu)
    blueprint = Blueprint.of(base_name)
    workload = (
        _of_data(data, base_name, blueprint, config, reading)
        if data
        else _told(tokens, rows, sequence_length, blueprint, config)
    )
    machine = machine or processor(numbers)
    machine = replace(machine, watts=watts or machine.watts)
    share = mfu or UTILISATION[CPU if on_cpu else "gpu"]
    found = estimate(
        Question(blueprint, config, workload, machine, gpus, numbers, share, price_per_hour)
    )
    if as_json:
        said = {"assumptions": [t.say(told) for told in found.assumptions()],
                "advice": [t.say(told) for told in found.advice()]}  # fmt: skip
        print_json({**found.to_json(), **said})
        return
    _say(found, t)


def _check(
    data: str | None,
    tokens: int | None,
    rows: int | None,
    sequence_length: int | None,
    gpu: str,
    gpus: int,
) -> None:
    """Refuse options that say different things."""
    given = {"--tokens": tokens, "--rows": rows, "--sequence-length": sequence_length}
    others = [name for name, value in given.items() if value is not None]
    if data and others:
        raise ConfigError(
            text("{one} and {other} exclude each other", one="--data", other=others[0]),
            hint=text("give one of the two"),
        )
    if tokens and rows and sequence_length and tokens > rows * sequence_length:
        raise ConfigError(
            text("so many tokens are not in so many rows of that length"),
            expected=text("at most {count} tokens", count=rows * sequence_length),
            found=text("{count} tokens", count=tokens),
        )
    if tokens and rows and tokens < 2 * rows:
        raise ConfigError(
            text("so few tokens are not in so many rows"),
            expected=text("at least {count} tokens", count=2 * rows),
            found=text("{count} tokens", count=tokens),
        )
    if gpus > 1 and gpu.lower() == "cpu":
        raise ConfigError(
            text("--gpus counts GPUs, and --gpu names none"), expected="--gpu NAME", found="cpu"
        )


def _of_data(
    data: str,
    base_name: str,
    blueprint: Blueprint,
    config: TrainConfig,
    reading: RowOptions,
) -> Workload:
    from detour.errors import BaseError
    from detour.model.base import UNLIMITED
    from detour.model.loading import load_tokenizer
    from detour.training.estimate.workload import Workload

    loaded = reading.read(data)
    tokenizer, _ = load_tokenizer(base_name)
    if tokenizer is None:
        raise BaseError(
            text("{base} has no tokenizer", base=base_name),
            hint=text("give --tokens and --rows instead of --data"),
        )
    return Workload.of_data(loaded, tokenizer, blueprint.positions or UNLIMITED, config)


def _told(
    tokens: int | None,
    rows: int | None,
    sequence_length: int | None,
    blueprint: Blueprint,
    config: TrainConfig,
) -> Workload:
    """What is not told follows from the rest."""
    from detour.training.estimate.workload import Workload

    limit = blueprint.positions
    usual = min(TOKENS, limit or TOKENS)
    count = rows or (-(-tokens // (sequence_length or usual)) if tokens else ROWS)
    mean = tokens / count if tokens else sequence_length or usual
    longest = sequence_length or max(1, -(-tokens // count) if tokens else usual)
    if limit and longest > limit:
        raise ConfigError(
            text("rows of {count} tokens are too long for the base", count=longest),
            expected=text("at most {longest} tokens", longest=limit),
            hint="--sequence-length",
        )
    return Workload.uniform(count, mean, longest, config)


def _say(found: Estimate, t: Catalogue) -> None:
    asked = found.question
    heading(
        t("{base}: {parameters:,} parameters; an adapter of rank {rank} has {trainable:,}",
          base=asked.blueprint.name, parameters=found.sizes.parameters, rank=asked.config.rank,
          trainable=found.sizes.adapter)
    )  # fmt: skip
    say(
        t("on {count} × {name}: {memory:.0f} GB, {tflops:.3g} TFLOP/s and {watts:.0f} W each",
          count=asked.devices, name=asked.machine.name, memory=asked.machine.memory / 1e9,
          tflops=asked.machine.flops / 1e12, watts=asked.machine.watts)
    )  # fmt: skip
    say()
    ways = list(found.ways.values())
    print_table(("", *(way.method for way in ways)), _rows(ways, asked.machine.memory, t))
    say()
    for told in found.advice():
        say(f"→ {t.say(told)}")
    for told in found.assumptions():
        say(f"- {t.say(told)}")


def _rows(ways: list[Way], memory: float, t: Catalogue) -> list[tuple[str, ...]]:
    """A line for each figure; of what does not fit, the least that it would need."""
    yes, no = t("yes"), t("no")
    parts = {
        "weights": t("weights, GB"),
        "gradients": t("gradients, GB"),
        "optimizer": t("optimiser, GB"),
        "activations": t("activations, GB"),
        "other": t("other, GB"),
        "total": t("in all, GB"),
    }
    rows = [
        (name, *(f"{way.memory.to_json()[part] / 1e9:.2f}" for way in ways))
        for part, name in parts.items()
    ]
    rows += [
        (t("fits"), *(_fits(way, memory, t) for way in ways)),
        (t("rows at once"), *(_at_once(way) for way in ways)),
        (t("layers computed again"), *(yes if way.layout.checkpointing else no for way in ways)),
        _scaled([way.seconds for way in ways],
                {t("hours"): 3600, t("minutes"): 60, t("seconds"): 1}),
        _scaled([way.energy.watt_hours for way in ways],
                {t("energy, kWh"): 1000, t("energy, Wh"): 1}),
    ]  # fmt: skip
    if any(way.price is not None for way in ways):
        rows.append((t("price"), *(f"{way.price or 0:.3g}" for way in ways)))
    return rows


def _scaled(values: list[float], units: dict[str, float]) -> tuple[str, ...]:
    """A line in the largest unit in which the largest value is no fraction."""
    most = max(values)
    name, size = next(((n, s) for n, s in units.items() if most >= s), list(units.items())[-1])
    told = (value / size for value in values)
    return (name, *(f"{one:.3g}" if one < 1000 else f"{one:,.0f}" for one in told))


def _fits(way: Way, memory: float, t: Catalogue) -> str:
    """Barely: with less to spare than the formulas may be off by."""
    from detour.training.estimate.memory import MEMORY_ERROR

    if not way.fits:
        return t("no")
    return t("yes") if (1 + MEMORY_ERROR) * way.memory.total <= memory else t("barely")


def _at_once(way: Way) -> str:
    return f"{way.layout.rows} (≤ {way.most_rows})" if way.fits else "–"
