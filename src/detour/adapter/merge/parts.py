"""The changes that a merge reads: dense, a tile of rows at a time, never as factors.

Merging A and B apart is not merging ΔW = BA: two halves of the same adapter would come out twice
as strong, or as a square. Knows updates; knows no method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.update import Update

TILE = 1024  # rows that are dense at a time


@dataclass(frozen=True)
class Part:
    """One adapter's change of a layer, with the weight it has there."""

    update: Update
    weight: float

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in)."""
        return self.update.out_features, self.update.in_features

    def rows(self, tile: slice) -> Float[Tensor, "rows in"]:
        """Some rows of weight · ΔW, in fp32 at least."""
        up, down = (
            factor.to(torch.promote_types(factor.dtype, torch.float32))
            for factor in (self.update.up[tile], self.update.down.flatten(1))
        )
        return (self.update.scale * self.weight) * (up @ down)

    def cut(self, keep: float) -> float:
        """The magnitude that a share `keep` of all entries reach."""
        count = self.shape[0] * self.shape[1]
        kept = max(1, round(keep * count))
        sizes = torch.cat([self.rows(tile).abs().flatten() for tile in tiles(self.shape[0])])
        return float(sizes.kthvalue(count - kept + 1).values)


Method = Callable[[Sequence[Part], str], Float[Tensor, "out in"]]
"""One layer's parts and its name in, the merged change out."""


def tiles(rows: int) -> Iterator[slice]:
    """All rows, so many at a time."""
    for start in range(0, rows, TILE):
        yield slice(start, min(start + TILE, rows))


def trimmed(rows: Tensor, cut: float) -> Tensor:
    """Entries below a magnitude are 0."""
    return torch.where(rows.abs() >= cut, rows, 0.0)


def signs_elected(stacked: Float[Tensor, "parts *entries"]) -> Float[Tensor, "*entries"]:
    """The sign of the sum, at every entry."""
    return stacked.sum(0).sign()


def mean_of_agreeing(
    stacked: Float[Tensor, "parts *entries"],
) -> Float[Tensor, "*entries"]:
    """The mean over the entries that are not 0 and have the elected sign; 0 where there is none."""
    agree = (stacked.sign() == signs_elected(stacked)) & (stacked != 0)
    return torch.where(agree, stacked, 0.0).sum(0) / agree.sum(0).clamp_min(1)
