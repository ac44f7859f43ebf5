"""The order in which rows are learned: rows of like length together, seeded.

Batches depend on the seed and the step only, so that a resumed run sees the same ones. Knows rows;
knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from detour.model.rows import Batch, Encoded, padded

BUCKET = 8  # rows are sorted by length within this many batches


class Order:
    """An endless, seeded series of batches of rows' numbers: `order[step]`.

    Rows of like length meet, so that little is padded; with a `bucket` of 1 they meet by chance.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, bucket: int = BUCKET
    ) -> None:
        self._lengths = list(lengths)
        self._batch_size = min(batch_size, len(self._lengths))
        self._seed = seed
        self._bucket = bucket
        self._epoch = -1
        self._plan: list[list[int]] = []

    @property
    def per_epoch(self) -> int:
        """Steps in which every row is seen once; a last short batch counts as one."""
        return -(-len(self._lengths) // self._batch_size)

    def __getitem__(self, step: int) -> list[int]:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._plan, self._epoch = self._planned(epoch), epoch
        return self._plan[place]

    def _planned(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self._seed}/{epoch}")
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        size = self._batch_size
        span = size * self._bucket
        plan: list[list[int]] = []
        for start in range(0, len(order), span):
            bucket = sorted(order[start : start + span], key=lambda i: self._lengths[i])
            plan += [bucket[i : i + size] for i in range(0, len(bucket), size)]
        rng.shuffle(plan)
        return plan


class Batches:
    """An endless, seeded series of training batches: `batches[step]`."""

    def __init__(self, rows: Sequence[Encoded], batch_size: int, pad_id: int, seed: int) -> None:
        self._rows = list(rows)
        self._pad_id = pad_id
        self._order = Order([len(row.ids) for row in self._rows], batch_size, seed)

    @property
    def per_epoch(self) -> int:
        """Steps in which every row is seen once; a last short batch counts as one."""
        return self._order.per_epoch

    @property
    def ids(self) -> list[Int[Tensor, " tokens"]]:
        """Of every row."""
        return [torch.tensor(row.ids) for row in self._rows]

    @property
    def lengths(self) -> list[int]:
        """Tokens of every row."""
        return [len(row.ids) for row in self._rows]

    def __getitem__(self, step: int) -> Batch:
        return padded([self._rows[place] for place in self._order[step]], self._pad_id)

    def __iter__(self) -> Iterator[Batch]:
        step = 0
        while True:
            yield self[step]
            step += 1
