"""The trainable factors of an adapter: their start, their contents, their snapshots.

Knows tensors and layer shapes; knows neither data nor optimisers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from detour.adapter.unbound import Unbound
from detour.adapter.update import Update
from detour.slots.content import Content, trainable

Snapshot = dict[str, Tensor]


class Size(NamedTuple):
    """How large one layer's update is, and what multiplies up @ down."""

    rank: int
    scale: float


class Pairs:
    """Trainable `(down, up)` by layer, as a training loop wants them: listed, copied, put back."""

    pairs: dict[str, tuple[nn.Parameter, nn.Parameter]]

    def parameters(self) -> Iterator[nn.Parameter]:
        """All factors, layer by layer."""
        for pair in self.pairs.values():
            yield from pair

    def ups(self) -> Iterator[nn.Parameter]:
        """The `up` of every layer: LoRA+ lets them learn faster (Hayou et al. 2024, 2402.12354)."""
        for _, up in self.pairs.values():
            yield up

    def values(self) -> Snapshot:
        """All factors as they stand, by `layer.down` and `layer.up`."""
        found: Snapshot = {}
        for layer, (down, up) in self.pairs.items():
            found[f"{layer}.down"], found[f"{layer}.up"] = down.detach(), up.detach()
        return found

    def snapshot(self) -> Snapshot:
        """A copy of all factors."""
        return {name: tensor.clone() for name, tensor in self.values().items()}

    def restore(self, taken: Mapping[str, Tensor]) -> None:
        """The inverse of `snapshot`."""
        with torch.no_grad():
            for layer, (down, up) in self.pairs.items():
                down.copy_(taken[f"{layer}.down"])
                up.copy_(taken[f"{layer}.up"])


class Factors(Pairs):
    """One trainable pair a layer: down (rank, in) random, up (rank, out) zero.

    With `up` zero the model starts as the base itself (Hu et al. 2021). Masters are fp32 whatever
    the base's type.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        sizes: Mapping[str, Size] | Size,
        seed: int,
        device: torch.device,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scales: dict[str, float] = {}
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for layer, (out, width) in shapes.items():
            rank, self.scales[layer] = sizes if isinstance(sizes, Size) else sizes[layer]
            bound = 1 / math.sqrt(width)  # as torch.nn.Linear, and PEFT, begin
            down = (torch.rand(rank, width, generator=generator) * 2 - 1) * bound
            pair = (
                nn.Parameter(down.to(device)),
                nn.Parameter(torch.zeros(rank, out, device=device)),
            )
            self.pairs[layer] = pair

    moves = False
    """Whether `contents` is another one after every step."""

    def begin_with(self, updates: Mapping[str, Update]) -> None:
        """Start at the low-rank updates of these layers instead of at the base.

        What they have less of the rank keeps its random `down` and its `up` of zero, as do the
        other layers, so that at the start the model is exactly what the updates make of it.
        """
        with torch.no_grad():
            for layer, update in updates.items():
                down, up = self.pairs[layer]
                down[: update.rank] = update.down.to(down)
                up[: update.rank] = update.up.mT.to(up) * (update.scale / self.scales[layer])

    def contents(self) -> dict[str, Content]:
        """What the slots hold while these factors train."""
        return {
            layer: trainable(down, up, self.scales[layer])
            for layer, (down, up) in self.pairs.items()
        }

    def updates(self, taken: Mapping[str, Tensor]) -> dict[str, Update]:
        """A snapshot as values: down (rank, in), up (out, rank)."""
        return {
            layer: Update(
                taken[f"{layer}.down"].cpu(),
                taken[f"{layer}.up"].cpu().mT.contiguous(),
                self.scales[layer],
            )
            for layer in self.pairs
        }

    def unbound(self, taken: Mapping[str, Tensor]) -> Unbound:
        """What a snapshot holds besides low-rank updates: nothing here."""
        return Unbound()
