"""How strongly the other adapters of a chain act on what one of them is asked, layer by layer.

On the texts of adapter i, its tests' questions with the answers that it gives alone,

    J(j → i) = gⱼ² Σ E‖Bⱼ Aⱼ x‖² / gᵢ² Σ E‖Bᵢ Aᵢ x‖²

over all layers, x being what enters a layer while the chain acts, g an adapter's weight times its
scale. And how far the next tokens of those texts move when the others join: KL(alone ‖ chain) in
nats. Neither says whether an answer is still right. Knows bases, chains and token ids.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import kl_div

from detour.adapter.chain import Chain, Term
from detour.adapter.update import Update
from detour.model.base import Base


@dataclass(frozen=True)
class Moved:
    """What others do to the texts of one adapter.

    Attributes:
        interference: J(j → i) by the place of j in the chain; NaN where i itself does nothing.
        kl_to_alone: mean KL(alone ‖ chain) of the next token, in nats.
        tokens: behind both.
    """

    interference: Mapping[int, float]
    kl_to_alone: float
    tokens: int


@dataclass
class Heard:
    """Σ ‖g B A x‖² of every term, over layers and tokens."""

    terms: Sequence[Term]
    energies: list[float] = field(default_factory=list[float])

    def __post_init__(self) -> None:
        self.energies = [0.0] * len(self.terms)

    def listen(self, layer: str, x: Float[Tensor, "... tokens in"]) -> None:
        """Add what every term adds to a layer's output."""
        flat = x.flatten(0, -2).float()
        for place, term in enumerate(self.terms):
            update, weight = term.adapter.updates.get(layer), term.weight_at(layer)
            if update is not None and weight:
                self.energies[place] += weight**2 * _energy(update, flat)


def moved(base: Base, chain: Chain, place: int, texts: Sequence[tuple[list[int], int]]) -> Moved:
    """The figures of the adapter at `place` on its texts: ids, and where in them the answer begins.

    Raises:
        SlotsBusy: somebody else holds the slots.
    """
    heard = Heard(chain.terms)
    divergence, count = 0.0, 0
    alone = Chain((chain.terms[place],))
    for ids, start in texts:
        given = torch.tensor([ids])
        with _listening(base, heard):
            together = base.logits(given, chain)[0, start - 1 : -1].float().log_softmax(-1)
        own = base.logits(given, alone)[0, start - 1 : -1].float().log_softmax(-1)
        divergence += float(kl_div(together, own, reduction="sum", log_target=True))
        count += len(own)
    whole = heard.energies[place]
    return Moved(
        {other: energy / whole if whole else math.nan
         for other, energy in enumerate(heard.energies) if other != place},
        max(0.0, divergence / count) if count else math.nan, count,
    )  # fmt: skip


def _energy(update: Update, x: Float[Tensor, "tokens in"]) -> float:
    """Σ ‖s B A x‖² over tokens; of a bias, ‖b‖² a token. Only linear layers are counted."""
    if update.lookup or update.down.ndim > 2:
        return 0.0
    hidden = x @ update.down.flatten(1).to(x).mT
    told = update.scale * hidden @ update.up.to(x).mT
    if update.bias_delta is not None:
        told = told + update.bias_delta.to(x)
    return float(told.square().sum())


@contextmanager
def _listening(base: Base, heard: Heard) -> Generator[None]:
    layers = {layer for term in heard.terms for layer in term.adapter.updates}
    modules = dict(base.model.named_modules())
    handles: list[Any] = []
    try:
        for layer in sorted(layers & modules.keys()):
            handles.append(modules[layer].register_forward_pre_hook(_hook(heard, layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hook(heard: Heard, layer: str) -> Any:  # noqa: ANN401 - torch's own type of a hook says no more
    def hook(_: nn.Module, given: tuple[Any, ...]) -> None:
        if given and isinstance(given[0], Tensor) and given[0].is_floating_point():
            heard.listen(layer, given[0])

    return hook
