"""DARE: drop entries by chance and scale up what is left (Yu et al. 2024, arXiv:2311.03099)."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.merge.parts import Method, Part, tiles


def dare(drop: float = 0.9, seed: int = 0) -> Method:
    """Each entry of each change is 0 with probability `drop`, else 1 / (1 − drop) times itself; the
    sum of all. What is dropped depends on the seed, the layer's name and the place in the chain.
    """

    def merge(parts: Sequence[Part], layer: str) -> Float[Tensor, "out in"]:
        chances = [_generator(seed, layer, place) for place in range(len(parts))]
        found: list[Tensor] = []
        for tile in tiles(parts[0].shape[0]):
            kept = [
                part.rows(tile) * _kept(part, tile, chance, drop)
                for part, chance in zip(parts, chances, strict=True)
            ]
            found.append(torch.stack(kept).sum(0) / (1 - drop))
        return torch.cat(found)

    return merge


def _kept(part: Part, tile: slice, chance: torch.Generator, drop: float) -> Tensor:
    return torch.rand(tile.stop - tile.start, part.shape[1], generator=chance) >= drop


def _generator(seed: int, layer: str, place: int) -> torch.Generator:
    digest = sha256(f"{seed}/{layer}/{place}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
