"""How a step fits into memory: how many of its rows at once, and whether layers run once more.

Decided before the first step by the formulas of `estimate.memory`: all rows at once where they fit,
else fewer of them, else one whose layers are computed again in the backward (a third more work, so
it comes last). Where memory runs out all the same, the next of these is taken. None of it changes a
gradient. Knows sizes, settings and free bytes; knows no steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from detour.language.catalogue import Text, text
from detour.model.base import Base
from detour.model.blueprint import Blueprint
from detour.model.free_memory import free_memory
from detour.model.quantized import method_of
from detour.model.recompute import can_recompute
from detour.training.config import TrainConfig
from detour.training.estimate.machine import SLACK
from detour.training.estimate.memory import Layout, Method, memory, weight_bytes
from detour.training.estimate.sizes import Sizes, sizes_of

CAREFUL = 1.25  # times the estimate that must be free: it may be off by a quarter


class Fit:
    """What of a step is in memory at once; may become less.

    Attributes:
        rows: at most so many at once; None: all.
        again: layers are computed again in the backward.
        told: what was estimated and decided, in words; nothing where the system does not tell.
    """

    def __init__(
        self,
        config: TrainConfig,
        rows: int | None = None,
        again: bool = False,
        can_recompute: bool = False,
        told: Text | None = None,
    ) -> None:
        self._config = config
        self._may_split = config.objective is None  # a loss of one's own is of whole batches
        self._may_recompute = can_recompute and config.checkpointing is None
        self.rows = rows
        self.again = again
        self.told = told

    def less(self) -> Text | None:
        """Take half of the rows at once, or compute layers again; None where nothing is left."""
        rows = self.rows or self._config.batch_size
        if self._may_split and rows > 1:
            self.rows = -(-rows // 2)
            return text("the memory is full: {rows} rows at once from here", rows=self.rows)
        if self._may_recompute and not self.again:
            self.again = True
            return text("the memory is full: layers are computed again in the backward from here")
        return None

    def kept(self) -> Mapping[str, Any]:
        """What is to lie in the state, as JSON."""
        return {"rows": self.rows, "again": self.again}

    def go_on(self, kept: Mapping[str, Any]) -> None:
        """Begin with what `kept` gave, so that the last bits are those of a run without a pause;
        what was asked for by hand stays.
        """
        if self._config.micro_batch_size is None:
            self.rows = kept.get("rows")
        if self._may_recompute:
            self.again = bool(kept.get("again"))


def fit(
    base: Base,
    config: TrainConfig,
    lengths: Sequence[int],
    *,
    packs: bool,
    processes: int = 1,
    whole: bool = False,
) -> Fit:
    """What of a step is to be in memory at once.

    A base that is spread over processes is left as the settings have it: its layers must run
    equally often in all of them.

    Args:
        base: as it lies in memory.
        config: its settings come first.
        lengths: tokens of every row that is learned.
        packs: whether rows lie in one line, without padding.
        processes: that share a step's rows.
        whole: every weight learns, of a copy that is there.
    """
    rows, again = config.micro_batch_size, bool(config.checkpointing)
    can = can_recompute(base.model)
    free = 0 if base.is_spread else free_memory(base.device)
    if not free:
        return Fit(config, rows, again, can and not base.is_spread)
    blueprint = Blueprint(base.name, base.model, base.slots)
    need = _Need(base, sizes_of(blueprint, config), lengths, packs, whole)
    wanted = -(-min(config.batch_size, len(lengths)) // processes)
    rows = min(rows or wanted, wanted)
    if config.micro_batch_size is None and config.objective is None:
        while rows > 1 and not need.fits(free, rows, again):
            rows -= 1
    if config.checkpointing is None and can and not need.fits(free, rows, again):
        again = True
    rows = -(-wanted // -(-wanted // rows))  # parts of like size
    told = _told(need(rows, again), free, rows, wanted, again)
    is_whole = rows == wanted and config.micro_batch_size is None
    return Fit(config, None if is_whole else rows, again, can, told)


def _told(needed: float, free: float, rows: int, wanted: int, again: bool) -> Text:
    takes, has = _size(needed), _size(free)
    if again:
        return text(
            "memory: {needed} besides the base, {free} are free; {rows} of {wanted} rows at once, "
            "and layers are computed again in the backward",
            needed=takes, free=has, rows=rows, wanted=wanted,
        )  # fmt: skip
    if rows < wanted:
        return text(
            "memory: {needed} besides the base, {free} are free; {rows} of {wanted} rows at once",
            needed=takes, free=has, rows=rows, wanted=wanted,
        )  # fmt: skip
    return text("memory: {needed} besides the base, {free} are free", needed=takes, free=has)


class _Need:
    """Bytes that a training takes besides the base."""

    def __init__(
        self, base: Base, sizes: Sizes, lengths: Sequence[int], packs: bool, whole: bool
    ) -> None:
        quantized: Method = "qlora" if method_of(base.model.config) else "lora"
        self._method: Method = "full" if whole else quantized
        self._number = torch.finfo(base.dtype).bits // 8
        self._slack = SLACK["cuda" if base.device.type == "cuda" else "cpu"]
        self._sizes = sizes
        self._longest = sorted(lengths, reverse=True)
        self._packs = packs

    def __call__(self, rows: int, again: bool) -> float:
        """At most, with so many of the longest rows at once."""
        tokens = sum(self._longest[:rows]) if self._packs else rows * self._longest[0]
        told = memory(self._sizes, self._method, self._number, Layout(1, tokens, again), 0.0,
                      self._slack)  # fmt: skip
        return told.total - weight_bytes(self._sizes, self._method, self._number)

    def fits(self, free: float, rows: int, again: bool) -> bool:
        """Whether so much is free, with care."""
        return CAREFUL * self(rows, again) <= free


def _size(size: float) -> str:
    """Such as "1.2 GB" or "300 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
