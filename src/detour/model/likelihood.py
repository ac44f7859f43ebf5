"""How probable whole answers are under a base and a chain, many rows at a time.

The head sees supervised places only, so that the logits of a batch never exist at once. Knows
bases, encoded rows and chains; knows no texts and no files.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn.functional import cross_entropy

from detour.model.base import AnyChain, Base
from detour.model.loss import HeadFunction
from detour.model.packing import Supervised
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
    head, forward = base.head, base.forward  # made while the slots are empty
    bound = base.bind(chain)
    contents = contents_for_chain(bound, torch.float32, base.device) if bound.terms else {}
    order = sorted(range(len(rows)), key=lambda place: len(rows[place].ids))
    found = [0.0] * len(rows)
    with base.hold(contents), torch.no_grad():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = padded([rows[place] for place in chosen], base.pad_id).to(base.device)
            for place, told in zip(chosen, _summed(forward(batch), head, len(chosen)), strict=True):
                found[place] = told
    return found


def _summed(seen: Supervised, head: HeadFunction, rows: int) -> list[float]:
    total = torch.zeros(rows, dtype=torch.float64, device=seen.hidden.device)
    for start in range(0, len(seen.targets), HEAD_ROWS):
        part = slice(start, start + HEAD_ROWS)
        logits = head(seen.hidden[part]).float()
        losses = cross_entropy(logits, seen.targets[part], reduction="none")
        total.index_add_(0, seen.row[part], -losses.double())
    return total.tolist()
