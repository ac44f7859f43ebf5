"""How a step fits into memory: how many of its rows at once, and whether layers run once more.

Decided before the first step by the formulas of `estimate.memory`: all rows at once where they fit,
else fewer of them, else one whose layers are computed again in the backward (a third more work, so
it comes last). A CPU gains nothing from many tokens at once: the training of an adapter takes there
about as many as fill `WORKING` bytes. Where memory runs out all the same, the next of
these is taken. None of it changes a gradient but for rounding. Knows sizes, settings and free
bytes; knows no steps.
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
from detour.model.rows import Batch
from detour.training.config import TrainConfig
from detour.training.estimate.machine import SLACK
from detour.training.estimate.memory import (
    MEMORY_ERROR,
    Layout,
    Method,
    activations,
    judging,
    memory,
    weight_bytes,
)
from detour.training.estimate.sizes import Sizes, sizes_of

CAREFUL = 1 + MEMORY_ERROR  # times the estimate that must be free
ROOM = 0.25  # of the free memory may hold what frozen first layers say
JUDGED_AT_ONCE = 16  # rows of a validation, where they fit
WORKING = 2**29  # bytes of activations for each thread of a CPU
FEWEST = 256  # tokens at once that a CPU's products want (benchmarks/train/parts.py)


class Fit:
    """What of a training is in memory at once; may become less.

    Attributes:
        rows: of a step at most so many at once.
        tokens: of a step at most so many at once, or a row; None: no matter.
        again: layers are computed again in the backward.
        judged: rows of a validation at once.
        prefix: what frozen first layers say of the rows is kept; None: not decided yet.
        room: bytes that may be kept of it.
        told: what was estimated and decided, in words; nothing where the system does not tell.
    """

    def __init__(
        self,
        config: TrainConfig,
        rows: int,
        again: bool = False,
        judged: int = JUDGED_AT_ONCE,
        recomputes: bool = False,
        told: Text | None = None,
    ) -> None:
        self._may_split = config.objective is None  # a loss of one's own is of whole batches
        self._may_recompute = recomputes and config.checkpointing is None
        self.rows = rows
        self.tokens: int | None = None
        self._together = 0  # rows of the largest part so far
        self.again = again
        self.judged = judged
        self.prefix: bool | None = None
        self.room = 0
        self.told = told

    def parts(self, batch: Batch) -> list[Batch]:
        """What of a step's rows runs at once, part by part."""
        found = batch.parts(self.rows, self.tokens)
        self._together = max(self._together, *(len(part.ids) for part in found))
        return found

    def less(self) -> Text | None:
        """Take half of the rows at once, or compute layers again; None where nothing is left."""
        if self._together:
            self.rows = min(self.rows, self._together)  # no more ran, for their tokens
        if self._may_split and self.rows > 1:
            self.rows = -(-self.rows // 2)
            self._together = self.rows
            if self.rows == 1:
                return text("the memory is full: one row at once from here")
            return text("the memory is full: {rows} rows at once from here", rows=self.rows)
        if self._may_recompute and not self.again:
            self.again = True
            return text("the memory is full: layers are computed again in the backward from here")
        return None

    def less_judged(self) -> Text | None:
        """Judge half of the rows at once; None where it is one, or they must stay together."""
        if not self._may_split or self.judged == 1:
            return None
        self.judged = -(-self.judged // 2)
        return text("the memory is full: {rows} rows of a validation at once from here",
                    rows=self.judged)  # fmt: skip

    def kept(self) -> Mapping[str, Any]:
        """What is to lie in the state, as JSON."""
        return {"rows": self.rows, "tokens": self.tokens, "again": self.again,
                "judged": self.judged, "prefix": self.prefix}  # fmt: skip


def fitted(
    base: Base,
    config: TrainConfig,
    learned: Sequence[int],
    judged: Sequence[int],
    *,
    packs: bool,
    processes: int = 1,
    beside: int = 1,
    whole: bool = False,
    kept: Mapping[str, Any] | None = None,
) -> Fit:
    """What of a training is to be in memory at once.

    A base that is spread over processes is left as the settings have it: its layers must run
    equally often in all of them.

    Args:
        base: as it lies in memory.
        config: its settings come first.
        learned: tokens of every row that is learned.
        judged: of every row that judges.
        packs: whether rows lie in one line, without padding.
        processes: that share a step's rows.
        beside: processes on this machine that share its memory, this one among them.
        whole: every weight learns, of a copy that is there.
        kept: what an interrupted run had decided. It is taken again, so that the last bits are
            those of a run without a pause, unless it does not fit any more.
    """
    wanted = -(-min(config.batch_size, len(learned)) // processes)
    rows, again = min(config.micro_batch_size or wanted, wanted), bool(config.checkpointing)
    can = can_recompute(base.model)
    if kept and config.micro_batch_size is None:
        rows = min(int(kept.get("rows") or wanted), wanted)  # absent in states of old versions
    if kept and config.checkpointing is None:
        again = bool(kept.get("again")) and can
    found = Fit(config, rows, again, recomputes=can)
    if base.is_spread:
        return found
    need = _Need(base, config, packs, whole)
    splits = config.micro_batch_size is None and config.objective is None
    if splits and not whole and base.device.type == "cpu":
        found.tokens = need.tokens_in(WORKING * torch.get_num_threads())
    if kept:
        found.judged, found.prefix = kept.get("judged") or JUDGED_AT_ONCE, kept.get("prefix")
        found.tokens = kept.get("tokens") if splits else None
    free = free_memory(base.device)
    if free is None:
        return found
    free //= beside if base.device.type == "cpu" else 1
    need.at_once = found.tokens
    if splits:
        while found.rows > 1 and CAREFUL * need(learned, found.rows, found.again) > free:
            found.rows -= 1
        if found.rows != rows:
            found.rows = -(-wanted // -(-wanted // found.rows))  # parts of like size
    if config.checkpointing is None and can:
        found.again |= CAREFUL * need(learned, found.rows, found.again) > free
    while found.judged > 1 and CAREFUL * need.judging(judged, found.judged) > free:
        found.judged -= 1
    needed = need(learned, found.rows, found.again)
    share = 1.0 if found.prefix else ROOM  # an interrupted run had it
    found.room = max(0, round(min(share * free, free - CAREFUL * needed)))
    found.told = _told(needed, free, found, wanted)
    return found


def _told(needed: float, free: float, found: Fit, wanted: int) -> Text:
    takes, has = _size(needed), _size(free)
    if found.again:
        return text(
            "memory: {needed} besides the base, {free} are free; {rows} of {wanted} rows at once, "
            "and layers are computed again in the backward",
            needed=takes, free=has, rows=found.rows, wanted=wanted,
        )  # fmt: skip
    if found.rows < wanted:
        return text(
            "memory: {needed} besides the base, {free} are free; {rows} of {wanted} rows at once",
            needed=takes, free=has, rows=found.rows, wanted=wanted,
        )  # fmt: skip
    return text("memory: {needed} besides the base, {free} are free", needed=takes, free=has)


class _Need:
    """Bytes that a training takes besides the base."""

    def __init__(self, base: Base, config: TrainConfig, packs: bool, whole: bool) -> None:
        blueprint = Blueprint(base.name, base.model, base.slots)
        quantized: Method = "qlora" if method_of(base.model.config) else "lora"
        self._method: Method = "full" if whole else quantized
        self._number = torch.finfo(base.dtype).bits // 8
        self._slack = SLACK["cuda" if base.device.type == "cuda" else "cpu"]
        self._sizes: Sizes = sizes_of(blueprint, config)
        self._packs = packs
        self.at_once: int | None = None
        """Tokens of which a step's parts are made."""

    def tokens_in(self, size: float) -> int:
        """Tokens whose activations take about so many bytes, and no fewer than `FEWEST`."""
        thousand = activations(self._sizes, self._method, self._number, Layout(1, 1000))
        return max(FEWEST, int(1000 * size / thousand))

    def __call__(self, lengths: Sequence[int], rows: int, again: bool) -> float:
        """At most, with so many of the longest rows at once."""
        tokens = self._tokens(lengths, rows)
        if self.at_once and self._packs:
            tokens = min(tokens, max(self.at_once, max(lengths, default=0)))
        layout = Layout(1, tokens, again)
        told = memory(self._sizes, self._method, self._number, layout, 0.0, self._slack)
        return told.total - weight_bytes(self._sizes, self._method, self._number)

    def judging(self, lengths: Sequence[int], rows: int) -> float:
        """Of a forward alone."""
        tokens = self._tokens(lengths, rows)
        return (1 + self._slack) * judging(self._sizes, self._number, tokens)

    def _tokens(self, lengths: Sequence[int], rows: int) -> int:
        longest = sorted(lengths, reverse=True)[:rows]
        return sum(longest) if self._packs else rows * max(longest, default=0)


def _size(size: float) -> str:
    """Such as "1.2 GB" or "300 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
