"""What a training takes: memory, hours, energy and money, for LoRA, QLoRA and all weights.

Nothing is loaded and nothing is trained; what is assumed is said. Time is operations over a share
of the device's peak (its utilisation, MFU in Chowdhery et al. 2022, arXiv:2204.02311), and where
weights are split over devices, no less than gathering them takes. Knows sizes, work and machines.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from detour.language.catalogue import Text, text
from detour.model.blueprint import Blueprint
from detour.training.config import Plan, TrainConfig, derive
from detour.training.cost import Work, operations, whole_operations
from detour.training.energy import Energy, Rated
from detour.training.estimate.machine import CPU, Machine
from detour.training.estimate.memory import (
    CHUNK,
    MEMORY_ERROR,
    METHODS,
    Layout,
    Memory,
    Method,
    logits,
    logits_elsewhere,
    memory,
    weight_bytes,
)
from detour.training.estimate.sizes import Sizes, adapted_layers, sizes_of
from detour.training.estimate.workload import Workload

MOST_ROWS = 4096  # at once, that are looked at
MOST_DEVICES = 1024
UTILISATION = {"gpu": 0.35, CPU: 0.5}
UNPACKING = 1.4  # times longer with weights in 4 bits (Raschka 2023 measured 1.39 for 7B)
LEAST, LONGEST = 0.6, 2.0  # what hours may be off by, as factors


@dataclass(frozen=True)
class Question:
    """A training, and what it would run on.

    Attributes:
        blueprint: of the base.
        config: its settings.
        workload: what it has to learn.
        machine: of which there are `devices`.
        devices: how many.
        dtype: of the base's numbers.
        utilisation: share of the machine's peak that a training reaches.
        price_per_hour: of one device, in any currency.
    """

    blueprint: Blueprint
    config: TrainConfig
    workload: Workload
    machine: Machine
    devices: int
    dtype: torch.dtype
    utilisation: float
    price_per_hour: float | None = None

    @property
    def number(self) -> int:
        """Bytes of a number of the base."""
        return self.dtype.itemsize

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return max(self.workload.learned.longest, self.workload.judged.longest)

    @property
    def rows(self) -> int:
        """Of a step on one device."""
        return -(-min(self.config.batch_size, self.workload.learned.count) // self.devices)


@dataclass(frozen=True)
class Way:
    """One of the methods on this machine.

    Attributes:
        method: how it is trained.
        layout: how it lies in memory; where nothing fits, the least that is possible.
        memory: of one device in that layout.
        fits: into the machine.
        most_rows: that would fit at once in that layout.
        flops: operations of the whole training.
        seconds: that it takes.
        energy: what all devices take.
        price: of all devices.
        devices_needed: over how many it had to be split; None where it fits, or nothing helps.
    """

    method: Method
    layout: Layout
    memory: Memory
    fits: bool
    most_rows: int
    flops: float
    seconds: float
    energy: Energy
    price: float | None
    devices_needed: int | None

    def to_json(self) -> dict[str, Any]:
        """As `--json` has it; memory is that of one device."""
        return {
            "memory_bytes": self.memory.to_json(),
            "fits": self.fits,
            "micro_batch": self.layout.rows if self.fits else 0,
            "largest_micro_batch": self.most_rows,
            "checkpointing": self.layout.checkpointing,
            "sharded": self.layout.shards > 1,
            "gpus_needed": self.devices_needed,
            "flops": float(f"{self.flops:.4g}"),
            "hours": float(f"{self.seconds / 3600:.4g}"),
            "hours_range": [float(f"{self.seconds * off / 3600:.4g}") for off in (LEAST, LONGEST)],
            "energy_kwh": float(f"{self.energy.watt_hours / 1000:.4g}"),
            "price": None if self.price is None else float(f"{self.price:.4g}"),
        }


@dataclass(frozen=True)
class Estimate:
    """The answer to a question."""

    question: Question
    plan: Plan
    sizes: Sizes
    ways: Mapping[Method, Way]

    def to_json(self) -> dict[str, Any]:
        """As `--json` has it, but for what is said in words."""
        asked = self.question
        learned = asked.workload.learned
        return {
            "base": asked.blueprint.name,
            "gpu": asked.machine.name,
            "gpus": asked.devices,
            "gpu_memory_bytes": round(asked.machine.memory),
            "peak_flops": float(f"{asked.machine.flops:.4g}"),
            "watts": asked.machine.watts,
            "mfu": asked.utilisation,
            "dtype": str(asked.dtype).removeprefix("torch."),
            "parameters": self.sizes.parameters,
            "trainable": self.sizes.adapter,
            "rows": learned.count + asked.workload.judged.count,
            "tokens": round(learned.count * learned.tokens),
            "sequence_length": asked.longest,
            "batch_size": asked.config.batch_size,
            "steps": self.plan.steps,
            **{method: way.to_json() for method, way in self.ways.items()},
        }

    def assumptions(self) -> list[Text]:
        """What the numbers stand on, a sentence each."""
        asked, layout = self.question, self.ways["lora"].layout
        tokens = layout.rows * layout.tokens
        whole = (
            text("all weights as detour train --whole does it: float32, and the best are kept")
            if asked.number == 4
            else text("all weights in mixed precision, 16 bytes a parameter; detour train --whole "
                      "takes float32: --dtype float32")
        )  # fmt: skip
        found = [
            text("{device}: {source}", device=asked.machine.name, source=asked.machine.source),
            text(
                "a training reaches {share:.0%} of the peak (--mfu), with 4 bits 1/{times:g} of "
                "that; hours may be {least:g} to {most:g} times as many",
                share=asked.utilisation, times=UNPACKING, least=LEAST, most=LONGEST,
            ),
            text("memory may be off by {share:.0%}", share=MEMORY_ERROR),
            text("{steps} steps at most, {rows} rows each; the longest row has {longest} tokens",
                 steps=self.plan.steps, rows=asked.config.batch_size, longest=asked.longest),
            text(
                "fused attention, and logits of at most {count} tokens at a time; all of a step's "
                "at once would take {memory:.2g} GB instead of {ours:.2g}",
                count=CHUNK, memory=logits_elsewhere(self.sizes, tokens) / 1e9,
                ours=logits(self.sizes, asked.number, min(tokens, CHUNK)) / 1e9,
            ),
            whole,
        ]  # fmt: skip
        if asked.devices > 1:
            found.append(
                text("memory is that of one of {devices} devices; each learns from other rows",
                     devices=asked.devices)
            )  # fmt: skip
        if asked.devices > 1 or any(way.layout.shards > 1 for way in self.ways.values()):
            found.append(
                text("several devices: accelerate launch … -m detour train, with --spread (FSDP) "
                     "where the base is split")
            )  # fmt: skip
        return found

    def advice(self) -> list[Text]:
        """What to do where something does not fit."""
        asked = self.question
        found: list[Text] = []
        for method, way in self.ways.items():
            if way.fits:
                continue
            if method == "lora" and self.ways["qlora"].fits:
                found.append(text("lora does not fit, qlora does: --quantize 4bit"))
            if way.devices_needed:
                found.append(
                    text("{method} fits on {count} × {name}, split over them (FSDP)",
                         method=method, count=way.devices_needed, name=asked.machine.name)
                )  # fmt: skip
            elif way.memory.activations > way.memory.total / 2:
                found.append(
                    text("{method} fits nowhere with rows of {longest} tokens: take shorter ones",
                         method=method, longest=asked.longest)
                )  # fmt: skip
            else:
                found.append(text("{method} needs a larger device", method=method))
        return found


def estimate(question: Question) -> Estimate:
    """The answer.

    Raises:
        SlotError: a target that names no layer of the base.
    """
    sizes = sizes_of(question.blueprint, question.config)
    plan = derive(question.config, sizes.width, question.workload.learned.count)
    work = question.workload.work(plan.steps, question.config)
    ways: dict[Method, Way] = {
        method: _way(question, sizes, plan, work, method) for method in METHODS
    }
    return Estimate(question, plan, sizes, ways)


def _way(asked: Question, sizes: Sizes, plan: Plan, work: Work, method: Method) -> Way:
    layout, most = _layout(asked, sizes, method, asked.devices)
    fits = most > 0
    flops = _flops(asked, method, work, layout.checkpointing)
    seconds = _seconds(asked, sizes, plan, method, layout, flops)
    hours = asked.devices * seconds / 3600
    return Way(
        method,
        layout,
        memory(sizes, method, asked.number, layout, asked.machine.context, asked.machine.slack),
        fits,
        most,
        flops,
        seconds,
        Rated(asked.devices * asked.machine.watts, "stated").energy(seconds),
        None if asked.price_per_hour is None else asked.price_per_hour * hours,
        None if fits else _devices_needed(asked, sizes, method),
    )


def _layouts(asked: Question, devices: int) -> Iterator[Layout]:
    """From what is fastest to what needs least."""
    for shards in (1, devices) if devices > 1 else (1,):
        for checkpointing in (False, True):
            yield Layout(1, asked.longest, checkpointing, shards)


def _layout(asked: Question, sizes: Sizes, method: Method, devices: int) -> tuple[Layout, int]:
    """The first layout in which a row fits, with as many rows as wanted, and how many would fit.

    Where none does, the last layout with one row, and 0.
    """
    last = Layout(1, asked.longest)
    for layout in _layouts(asked, devices):
        most = most_rows(sizes, method, asked.number, layout, asked.machine)
        if most:
            parts = -(-asked.rows // most)
            return replace(layout, rows=-(-asked.rows // parts)), most  # parts of like size
        last = layout
    return last, 0


def most_rows(sizes: Sizes, method: Method, number: int, layout: Layout, machine: Machine) -> int:
    """How many rows fit into the machine at once; 0 where not even one does."""

    def taken(rows: int) -> float:
        own = replace(layout, rows=rows)
        return memory(sizes, method, number, own, machine.context, machine.slack).total

    return bisect_right(range(1, MOST_ROWS + 1), machine.memory, key=taken)


def _devices_needed(asked: Question, sizes: Sizes, method: Method) -> int | None:
    """The fewest devices that it fits on when it is split; a processor is no such device."""
    if asked.machine.name == CPU:
        return None
    for devices in range(asked.devices + 1, MOST_DEVICES + 1):
        if _layout(asked, sizes, method, devices)[1]:
            return devices
    return None


def _flops(asked: Question, method: Method, work: Work, checkpointing: bool) -> float:
    """Of the whole training; with checkpoints each layer's forward once more."""
    if checkpointing:
        work = replace(work, again=work.learned, again_pairs=work.learned_pairs)
    if method == "full":
        return whole_operations(asked.blueprint, work)
    return operations(asked.blueprint, adapted_layers(asked.blueprint, asked.config), work)


def _seconds(
    asked: Question, sizes: Sizes, plan: Plan, method: Method, layout: Layout, flops: float
) -> float:
    reached = asked.machine.flops * asked.utilisation / (UNPACKING if method == "qlora" else 1)
    busy = min(asked.devices, asked.config.batch_size, asked.workload.learned.count)
    computing = flops / (reached * busy)
    if layout.shards == 1:
        return computing
    # weights come in the forward and again in the backward; gradients of all weights go out
    parts = -(-asked.rows // layout.rows)
    moved = weight_bytes(sizes, method, asked.number) * (3 if method == "full" else 2)
    return max(computing, plan.steps * parts * moved / asked.machine.link)
