"""The order in which rows are learned: rows of like length together, seeded.

Batches depend on the seed and the step only, so that a resumed run sees the same ones. Knows rows;
knows no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from detour.model.rows import Batch, Encoded, padded

BUCKET = 8  # rows are sorted by length within this many batches


class Batches:
    """An endless, seeded series of training batches: `batches[step]`."""

    def __init__(self, rows: Sequence[Encoded], batch_size: int, pad_id: int, seed: int) -> None:
        self._rows = list(rows)
        self._batch_size = min(batch_size, len(self._rows))
        self._pad_id = pad_id
        self._seed = seed
        self._epoch = -1
        self._plan: list[list[int]] = []

    @property
    def per_epoch(self) -> int:
        """Steps in which every row is seen once; a last short batch counts as one."""
        return -(-len(self._rows) // self._batch_size)

    def __getitem__(self, step: int) -> Batch:
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            self._plan, self._epoch = self._planned(epoch), epoch
        return padded([self._rows[i] for i in self._plan[place]], self._pad_id)

    def __iter__(self) -> Iterator[Batch]:
        step = 0
        while True:
            yield self[step]
            step += 1

    def _planned(self, epoch: int) -> list[list[int]]:
        rng = random.Random(f"{self._seed}/{epoch}")
        order = list(range(len(self._rows)))
        rng.shuffle(order)
        size = self._batch_size
        span = size * BUCKET
        plan: list[list[int]] = []
        for start in range(0, len(order), span):
            bucket = sorted(order[start : start + span], key=lambda i: len(self._rows[i].ids))
            plan += [bucket[i : i + size] for i in range(0, len(bucket), size)]
        rng.shuffle(plan)
        return plan
