"""`detour bench`: a few training steps on your own base and rows, timed.

Knows Click; the steps are `training/estimate/bench.py`'s. Nothing is written.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.accounting import cost_options
from detour.cli.options import (
    json_option,
    lang_option,
    load_base,
    model_options,
)
from detour.cli.output import note, print_json, say
from detour.cli.pipeline import settings_from
from detour.cli.rows import RowOptions, row_options
from detour.language.catalogue import Catalogue

if TYPE_CHECKING:
    from detour.model.base import Base
    from detour.training.estimate.bench import Bench


@click.command("bench")
@click.option("--data", required=True, metavar="DATA",
              help="The rows, in any form that detour check knows.")  # fmt: skip
@row_options
@model_options
@click.option("--steps", "measured", type=click.IntRange(min=1), default=8, show_default=True,
              help="Steps to measure, after two that are not counted.")  # fmt: skip
@click.option("--config", "config_file", type=click.Path(path_type=Path),
              help="YAML with settings of the training; flags win.")  # fmt: skip
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--targets", help="Layers to adapt: all-linear, or names with commas.")
@click.option("--epochs", type=float, help="Passes over the data, of the whole training.")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@click.option("--micro-batch-size", type=int,
              help="Rows of a step in memory at once.  [default: all]")  # fmt: skip
@click.option("--dora", is_flag=True, default=None, help="Train the rows' lengths apart (DoRA).")
@click.option("--seed", type=int, help="Of factors and order.  [default: 0]")
@cost_options
@lang_option
@json_option
def command(
    data: str,
    reading: RowOptions,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    measured: int,
    config_file: Path | None,
    watts: float | None,
    price_per_hour: float | None,
    language: str,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Take a few training steps and tell how fast they are, and what the whole training of this
    base on these rows would take. Nothing is written.
    """
    t = Catalogue.load(language)
    from detour.cli.train import looked_at
    from detour.data.reading import learnable
    from detour.training.config import make_config
    from detour.training.estimate.bench import bench

    config = make_config(settings_from(config_file, flags))
    loaded = reading.read(data)
    rows = learnable(loaded)
    base = load_base(base_name, device, dtype, quantize)
    note(t("{count} rows from {data}; {told}; base {base}", count=len(rows), data=data,
           told=loaded.told, base=base.name))  # fmt: skip
    looked_at(data, base, reading.look(), t)
    found = bench(base, loaded, config, measured, watts)
    hours = found.estimate_seconds / 3600
    price = None if price_per_hour is None else price_per_hour * hours
    if as_json:
        print_json({**_summary(found, price), "rows": len(rows), "machine": machine_of(base)})
        return
    _say(found, price, machine_of(base), t)


def machine_of(base: Base) -> dict[str, Any]:
    """What the steps ran on."""
    import torch

    on_gpu = base.device.type == "cuda"
    return {
        "device": base.device.type,
        "name": torch.cuda.get_device_name(base.device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "dtype": str(base.dtype).removeprefix("torch."),
    }


def _processor() -> str:
    with suppress(OSError):
        told = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        if found := re.search(r"^model name\s*:\s*(.+)$", told, re.MULTILINE):
            return found[1]
    import platform

    return platform.processor() or platform.machine()


def _summary(found: Bench, price: float | None) -> dict[str, Any]:
    """What --json prints; times in seconds."""
    return {
        "tokens_per_second": round(found.tokens_per_second, 1),
        "share_of_peak": round(found.share_of_peak, 4),
        "gemm_peak_flops": float(f"{found.gemm_peak:.4g}"),
        "peak_memory_bytes": found.peak_memory,
        "steps": found.steps,
        "step_seconds": float(f"{found.step_seconds:.4g}"),
        "estimate_steps": found.plan.steps,
        "estimate_seconds": float(f"{found.estimate_seconds:.4g}"),
        "energy_kwh": float(f"{found.estimate_kwh:.4g}"),
        "energy_source": found.energy.source,
        "price": None if price is None else float(f"{price:.4g}"),
    }


def _say(found: Bench, price: float | None, machine: dict[str, Any], t: Catalogue) -> None:
    say(t("{name}, {dtype}, threads: {threads}", name=machine["name"], dtype=machine["dtype"],
          threads=machine["threads"]))  # fmt: skip
    say(t("{rate:.0f} tokens/s, the median of {steps} steps of {seconds:.3g} s",
          rate=found.tokens_per_second, steps=found.steps, seconds=found.step_seconds))  # fmt: skip
    say(t("{share:.0%} of the {peak:.3g} GFLOP/s of a large product here",
          share=found.share_of_peak, peak=found.gemm_peak / 1e9))  # fmt: skip
    if found.peak_memory is None:
        say(t("this system does not tell how much memory was taken"))
    else:
        say(t("{memory:.0f} MB above the loaded base at most", memory=found.peak_memory / 1e6))
    told = "" if price is None else t("; price {price:.3g}", price=price)
    say(t("the whole training: {steps} steps, {minutes:.3g} minutes, {energy:.3g} kWh{price}",
          steps=found.plan.steps, minutes=found.estimate_seconds / 60,
          energy=found.estimate_kwh, price=told))  # fmt: skip
