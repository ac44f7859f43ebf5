"""How probable whole answers are under a base and a chain, many rows at a time.

The head sees supervised places only, so that the logits of a batch never exist at once. Knows
bases, encoded rows and chains; knows no texts and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from detour.model.base import AnyChain, Base
from detour.model.loss import IGNORED, HeadFunction, hidden_states
from detour.model.rows import Encoded, padded
from detour.slots.chained import contents_for_chain

HEAD_ROWS = 1024  # places whose logits exist at once


def log_likelihoods(
    base: Base, rows: Sequence[Encoded], chain: AnyChain = None, batch_size: int = 64
) -> list[float]:
    """Of each row the sum of log-probabilities (nats) of its supervised tokens, in their order.

    Raises:
        WrongBase, SlotError: a chain that does not belong on this base.
        SlotsBusy: somebody else holds the slots.
    """
    head = base.head  # made while the slots are empty
    bound = base.bind(chain)
    contents = contents_for_chain(bound, torch.float32, base.device) if bound.terms else {}
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    found = [0.0] * len(rows)
    with base.hold(contents), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = padded([rows[place] for place in chosen], base.pad_id).to(base.device)
            hidden = hidden_states(base.model, batch.ids, batch.mask)  # (rows, tokens, width)
            for place, told in zip(chosen, _summed(hidden, head, batch.targets), strict=True):
                found[place] = told
    return found


def _summed(
    hidden: Float[Tensor, "rows tokens width"],
    head: HeadFunction,
    targets: Int[Tensor, "rows tokens"],
) -> list[float]:
    kept = targets != IGNORED
    states, wanted, row = hidden[kept], targets[kept], kept.nonzero()[:, 0]  # (supervised, …)
    total = torch.zeros(len(targets), dtype=torch.float64, device=hidden.device)
    for start in range(0, len(wanted), HEAD_ROWS):
        part = slice(start, start + HEAD_ROWS)
        losses = cross_entropy(head(states[part]).float(), wanted[part], reduction="none")
        total.index_add_(0, row[part], -losses.double())
    return total.tolist()
