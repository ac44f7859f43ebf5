"""A chain that acts while an adapter trains, and stays as it is.

Knows chains, contents and factors; knows no rows and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.model.base import Base
from detour.slots.chained import contents_for_chain
from detour.slots.content import Content
from detour.training.factors import Factors


@dataclass(frozen=True, eq=False)
class Under:
    """What acts beneath.

    Attributes:
        contents: by layer; frozen.
        downs: by layer, A of every adapter beneath, (rank, in) each.
        digest: which chain it is.
    """

    contents: Mapping[str, Content] = field(default_factory=dict[str, Content])
    downs: Mapping[str, Sequence[Tensor]] = field(default_factory=dict[str, Sequence[Tensor]])
    digest: str = ""

    @staticmethod
    def of(base: Base, chain: Chain | Adapter | None) -> Under:
        """A chain of this base. Raises WrongBase, SlotError: it does not belong there."""
        if chain is None:
            return Under()
        bound = base.bind(chain)
        downs: dict[str, list[Tensor]] = {}
        for term in bound.terms:
            for layer, update in term.adapter.updates.items():
                downs.setdefault(layer, []).append(update.down.float().to(base.device))
        told = " ".join(f"{term.weight}:{term.adapter.digest()}" for term in bound.terms)
        return Under(contents_for_chain(bound, torch.float32, base.device), downs, told)

    def with_(self, contents: Mapping[str, Content]) -> dict[str, Content]:
        """Both at once, layer by layer."""
        layers = dict.fromkeys((*contents, *self.contents))
        none = Content()
        return {n: contents.get(n, none) + self.contents.get(n, none) for n in layers}

    def overlap(self, factors: Factors) -> Float[Tensor, ""]:
        """Σ ‖A Aᵢᵀ‖²_F over layers and adapters beneath: 0 where their inputs are orthogonal."""
        total = torch.zeros((), device=next(factors.parameters()).device)
        for layer, (down, _) in factors.pairs.items():
            for other in self.downs.get(layer, ()):
                total = total + (down @ other.mT).square().sum()
        return total
