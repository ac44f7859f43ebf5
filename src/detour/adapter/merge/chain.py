"""A chain merged into one adapter by a method that acts on dense changes.

The merged change of a layer has seldom the rank of its parts, so the adapter is the nearest of a
rank that is asked for, and how near it is, is told. Knows chains and methods; knows no model.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.merge.parts import Method, Part
from detour.adapter.update import Update

EXACT = 2048  # rows or columns up to which all singular values are computed
ROUNDS = 6  # of the randomised method above that (Halko et al. 2011, arXiv:0909.4061)
SPARE = 16  # directions that it looks at besides


def merge(
    chain: Chain, method: Method, rank: int | None = None, name: str = ""
) -> tuple[Adapter, float]:
    """One adapter of what a method makes of a chain's weighted changes.

    Row scales (DoRA) and biases are summed as the chain would.

    Args:
        chain: what is merged.
        method: `ties(…)`, `dare(…)`, `prune(…)` or `knots(…)`.
        rank: of every layer at most; by default the sum of its parts' ranks.
        name: of the adapter.

    Returns:
        The adapter, and ε = √(Σ ‖M − ΔW'‖² / Σ ‖M‖²), M the merged change of a layer.

    Raises:
        ChainError: an adapter holds whole values and is not bound to its base yet.
        AdapterWeightsError: the adapters disagree about a layer's shape; names it.
    """
    chain.check_bound()
    flat = chain.flatten(name)  # its checks, its card, and the sums of what is no matrix
    merged: dict[str, Update] = {}
    lost = total = 0.0
    for layer, parts in chain.updates().items():
        whole = flat.updates[layer]
        dense = method([Part(update, weight) for update, weight in parts], layer)
        down, up = nearest(dense, min(rank or whole.rank, *dense.shape))
        merged[layer] = Update(
            down=down.reshape(len(down), *whole.down.shape[1:]), up=up,
            row_scale=whole.row_scale, bias_delta=whole.bias_delta, lookup=whole.lookup,
        )  # fmt: skip
        lost += float((dense - up @ down).square().sum())
        total += float(dense.square().sum())
    adapter = Adapter(merged, name or chain.text, chain.base, flat.card)
    return adapter, math.sqrt(lost / total) if total > 0 else 0.0


def nearest(
    dense: Float[Tensor, "out in"], rank: int
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
    """The factors of the nearest matrix of that rank (Eckart-Young); singular values are shared
    evenly. Above `EXACT` by a randomised method, whose error is a little larger.
    """
    if min(dense.shape) <= EXACT:
        u, sizes, vh = torch.linalg.svd(dense, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            u, sizes, v = torch.svd_lowrank(dense, min(rank + SPARE, *dense.shape), ROUNDS)
        vh = v.T
    roots = sizes[:rank].sqrt()
    return (roots[:, None] * vh[:rank]).contiguous(), (u[:, :rank] * roots).contiguous()
