"""What trains: a GPU of the table, or this machine's processor.

Knows the table `gpus.yaml`, torch's products and the operating system's memory; knows no models.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

import torch
import yaml

from detour.errors import ConfigError, MachineError
from detour.language.catalogue import text
from detour.training.energy import ASSUMED_WATTS

CPU = "cpu"
# bytes taken before the first tensor: by Python and torch's libraries, or by CUDA and its own
CONTEXTS = {CPU: 450_000_000, "cuda": 750_000_000}
# held by the allocator beside a training's activations: glibc's 0.9 to 1.4 in trainings of the
# starter, whose rows differ in length; CUDA's is an assumption
SLACK = {CPU: 1.2, "cuda": 0.1}
SIDES = {"cpu": 1536, "cuda": 8192}  # of the square products that a peak is measured with
PRODUCTS = 5
_MAKERS = re.compile(r"nvidia|geforce|tesla|amd|instinct|[^a-z0-9]")


@dataclass(frozen=True)
class Machine:
    """One device, or one of several alike.

    Attributes:
        name: of the table, or "cpu".
        memory: bytes.
        flops: peak of dense products, a second.
        watts: the most that it takes.
        link: bytes a second to the next one, one way; 0 where there is none.
        context: bytes that are taken before the first tensor.
        slack: what the allocator holds beside the activations, as a share of them.
        source: where these numbers are from.
    """

    name: str
    memory: float
    flops: float
    watts: float
    link: float
    context: float
    slack: float
    source: str


def gpus() -> dict[str, Machine]:
    """The table, by name."""
    return {name: _machine(name, row) for name, row in _table().items()}


def gpu_called(name: str) -> Machine:
    """The GPU that somebody means; case, makers' names and signs do not matter.

    Raises:
        ConfigError: none in the table is called so.
    """
    known: dict[str, str] = {}
    for own, row in _table().items():
        for alias in (own, *row["also"]):
            known[_plain(alias)] = own
            known.setdefault(_plain(alias).removesuffix("gb"), own)
    found = known.get(_plain(name))
    if found is None:
        near = get_close_matches(_plain(name), known, 1)
        raise ConfigError(
            text("there is no GPU {name!r} in the table", name=name),
            expected=text("one of {names}", names=", ".join([CPU, *_table()])),
            hint=text("did you mean {close!r}?", close=known[near[0]])
            if near
            else text("take one with as much memory, and give --watts"),
        )
    return _machine(found, _table()[found])


def processor(dtype: torch.dtype) -> Machine:
    """The processor here: its memory, and its peak as measured now, with torch's threads.

    Raises:
        MachineError: the operating system does not tell how much memory there is.
    """
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        raise MachineError(text("this machine does not tell how much memory it has"))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    peak = gemm_peak(torch.device(CPU), dtype)
    told = text("measured: square products {side} wide in {dtype}, threads: {threads}",
                side=SIDES[CPU], dtype=str(dtype).removeprefix("torch."),
                threads=torch.get_num_threads())  # fmt: skip
    return Machine(CPU, memory, peak, ASSUMED_WATTS[CPU], 0.0, CONTEXTS[CPU], SLACK[CPU], told)


def gemm_peak(device: torch.device, dtype: torch.dtype, side: int | None = None) -> float:
    """Operations a second of the fastest of some large square products on this device."""
    side = side or SIDES[device.type]
    left, right = (torch.ones(side, side, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(left)

    def product() -> None:
        torch.mm(left, right, out=out)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    product()  # the first one makes ready what the others use
    return 2 * side**3 / min(_seconds(product) for _ in range(PRODUCTS))


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _table() -> dict[str, dict[str, Any]]:
    source = files("detour.training.estimate").joinpath("gpus.yaml")
    return yaml.safe_load(source.read_text("utf-8"))


def _machine(name: str, row: dict[str, Any]) -> Machine:
    return Machine(
        name, row["memory_gb"] * 1e9, row["tflops"] * 1e12, row["watts"], row["link_gb_s"] * 1e9,
        CONTEXTS["cuda"], SLACK["cuda"], row["source"],
    )  # fmt: skip


def _plain(name: str) -> str:
    return _MAKERS.sub("", name.lower())
