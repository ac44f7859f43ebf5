"""KnOTS: merge in the directions that all changes share (Stoica et al. 2024, arXiv:2410.19735).

The changes stand side by side, [ΔW₁ … ΔWₙ] = U Σ [V₁ … Vₙ]; the Vᵢ, which speak of the same
directions now, are merged by TIES, and U Σ turns the result back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.merge.parts import Method, Part, mean_of_agreeing, trimmed

NOTHING = 1e-6  # of the largest singular value, below which there is no direction


def knots(keep: float = 0.2, scale: float = 1.0) -> Method:
    """As `ties`, in the shared directions."""

    def merge(parts: Sequence[Part], _: str) -> Float[Tensor, "out in"]:
        left, own = shared_directions(parts)
        kept: list[Tensor] = []
        for one in own:
            count = max(1, round(keep * one.numel()))
            cut = one.abs().flatten().kthvalue(one.numel() - count + 1).values
            kept.append(trimmed(one, float(cut)))
        return (left @ (scale * mean_of_agreeing(torch.stack(kept)))).float()

    return merge


def shared_directions(
    parts: Sequence[Part],
) -> tuple[Float[Tensor, "out k"], list[Float[Tensor, "k in"]]]:
    """U Σ and every Vᵢ, by thin QRs of the factors: no matrix of out × n·in is ever made."""
    ups = torch.cat([p.update.up.double() * (p.update.scale * p.weight) for p in parts], 1)
    q, r = torch.linalg.qr(ups)  # (out, R), (R, R)
    blocks: list[Tensor] = []
    cores: list[Tensor] = []
    start = 0
    for part in parts:
        q_down, r_down = torch.linalg.qr(part.update.down.double().flatten(1).T)  # (in, r)
        cores.append(r[:, start : start + part.update.rank] @ r_down.T)
        blocks.append(q_down.T)
        start += part.update.rank
    u, sizes, vh = torch.linalg.svd(torch.cat(cores, 1), full_matrices=False)
    there = sizes > NOTHING * sizes.max().clamp_min(torch.finfo(torch.float64).tiny)
    own: list[Tensor] = []
    start = 0
    for block in blocks:
        own.append(vh[there, start : start + len(block)] @ block)
        start += len(block)
    return q @ u[:, there] * sizes[there], own
