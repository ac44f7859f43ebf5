"""Magnitude pruning: the sum of what is largest in each change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.merge.parts import Method, Part, tiles, trimmed


def prune(keep: float = 0.2) -> Method:
    """Of each change the largest share `keep`, summed as they are."""

    def merge(parts: Sequence[Part], _: str) -> Float[Tensor, "out in"]:
        cuts = [part.cut(keep) for part in parts]
        return torch.cat([
            torch.stack([trimmed(p.rows(tile), cut)
                         for p, cut in zip(parts, cuts, strict=True)]).sum(0)
            for tile in tiles(parts[0].shape[0])
        ])  # fmt: skip

    return merge
