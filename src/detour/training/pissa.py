"""PiSSA: training begins at a weight's principal directions instead of at nothing.

W = W_rest + s·B₀A₀ with B₀A₀ the largest singular triples; A and B learn from there (Meng et al.
2024, arXiv:2404.02948). Here the base's weight stays as it is and B₀A₀ is taken off again beside
the factors, so that step 0 is the base; the adapter is s·(BA − B₀A₀), of twice the rank, which is
what PEFT converts its own to. Knows tensors and the layers' weights; knows no data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.update import Update
from detour.model.plain_weight import plain_weight
from detour.slots.content import Content, pissa
from detour.slots.install import SlotSet
from detour.training.factors import Factors, Size

LARGEST_EXACT = 2048  # the narrower side up to which all singular values are computed
ITERATIONS = 16  # of the randomised decomposition beyond; what PEFT calls pissa_niter_16


class Principal(Factors):
    """Factors that begin at the largest singular triples of the layers' weights."""

    def __init__(
        self,
        slots: SlotSet,
        layers: list[str],
        sizes: Mapping[str, Size],
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__({layer: slots.shapes[layer] for layer in layers}, sizes, seed, device)
        self._start: dict[str, tuple[Tensor, Tensor]] = {}
        for layer, (down, up) in self.pairs.items():
            first = principal(plain_weight(slots.module(layer)), len(down), seed)
            shrunk = 1 / math.sqrt(self.scales[layer])
            self._start[layer] = (first[0].to(down) * shrunk, first[1].to(up) * shrunk)
            with torch.no_grad():
                down.copy_(self._start[layer][0])
                up.copy_(self._start[layer][1])

    def contents(self) -> dict[str, Content]:
        """The factors, and their start taken off."""
        return {
            layer: pissa(down, up, self.scales[layer], self._start[layer])
            for layer, (down, up) in self.pairs.items()
        }

    def updates(self, taken: Mapping[str, Tensor]) -> dict[str, Update]:
        """A snapshot minus the start: twice the rank."""
        began = {
            layer: Update(down.cpu(), up.cpu().mT.contiguous(), self.scales[layer])
            for layer, (down, up) in self._start.items()
        }
        learned = super().updates(taken)
        return {n: Update.sum([(u, 1.0), (began[n], -1.0)]) for n, u in learned.items()}


def principal(
    weight: Float[Tensor, "out in"], rank: int, seed: int
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
    """`(down, up)` with upᵀ @ down the best approximation of that rank, shared evenly by both.

    Beyond 2,048 rows and columns it is a randomised decomposition (Halko et al. 2011).
    """
    if min(weight.shape) <= LARGEST_EXACT:
        left, sizes, right = torch.linalg.svd(weight.float(), full_matrices=False)
        left, sizes, right = left[:, :rank], sizes[:rank], right[:rank]
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            left, sizes, turned = torch.svd_lowrank(weight.float(), q=rank, niter=ITERATIONS)
        right = turned.mT
    roots = sizes.sqrt()
    return roots[:, None] * right, roots[:, None] * left.mT
