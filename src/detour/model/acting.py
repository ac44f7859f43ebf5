"""Whether an adapter does anything: the base's logits with it differ from those without it.

The most common fault of a server of adapters is one that loads without an error and changes
nothing. Names and shapes prove that every key landed, a norm above zero that something is in it;
only a forward proves that it arrives. Knows bases and chains.
"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.errors import AdapterWeightsError
from detour.language.catalogue import text
from detour.model.base import AnyChain, Base

PROBE = 8  # tokens


def check_acts(base: Base, chain: AnyChain) -> None:
    """Nothing, if every adapter of the chain moves the logits of a few tokens when it acts alone.

    Weights play no part: weight 0 is the base, and a − a may well be nothing. Rows of tokens and
    experts that the probe does not meet prove nothing, so adapters of these alone pass.

    Raises:
        AdapterWeightsError: an adapter leaves every logit as it is, bit for bit.
        WrongBase, SlotError, SlotsBusy: as `Base.ask`.
    """
    adapters = dict.fromkeys(term.adapter for term in base.bind(chain).terms)
    if not adapters:
        return
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, base.engine.vocabulary, (1, PROBE), generator=generator)
    for adapter in adapters:
        if not acts(base, adapter, ids):
            raise AdapterWeightsError(
                text("the adapter {adapter} changes nothing that the base says",
                     adapter=adapter.name),
                expected=text("other logits than the base's"),
                found=text("the same, bit for bit, on {count} tokens", count=PROBE),
                hint=text("it is too weak for the type of the weights, or acts where this model "
                          "does not look; try --dtype float32"),
            )  # fmt: skip


def acts(base: Base, adapter: Adapter, ids: Int[Tensor, "1 tokens"]) -> bool:
    """Whether it moves the logits of these tokens, or need not: see `check_acts`."""
    moved = not torch.equal(base.logits(ids, adapter), base.logits(ids))
    return moved or not _meets_every_token(adapter)


def _meets_every_token(adapter: Adapter) -> bool:
    """Whether every token goes through one of its layers: no table of tokens, no single expert."""
    return any(
        not update.lookup and ("[" not in name or name.endswith("[:]"))
        for name, update in adapter.updates.items()
    )
