"""TIES: trim, elect signs, merge what agrees (Yadav et al. 2023, arXiv:2306.01708).

Signs are elected among the weighted changes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.merge.parts import Method, Part, mean_of_agreeing, tiles, trimmed


def ties(keep: float = 0.2, scale: float = 1.0) -> Method:
    """Of each change the largest share `keep`; of these, entry by entry, the mean of those with the
    elected sign, `scale` times over.
    """

    def merge(parts: Sequence[Part], _: str) -> Float[Tensor, "out in"]:
        cuts = [part.cut(keep) for part in parts]
        found: list[Tensor] = []
        for tile in tiles(parts[0].shape[0]):
            kept = [trimmed(p.rows(tile), cut) for p, cut in zip(parts, cuts, strict=True)]
            found.append(scale * mean_of_agreeing(torch.stack(kept)))
        return torch.cat(found)

    return merge
