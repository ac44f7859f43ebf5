"""Chains as contents of the slots: one for all rows of a batch, or one for every row.

Rows that differ are laid out in one of two ways, layer by layer. A *bank* holds every distinct
update once and mixes them by a gate: each adapter is read once a step, but every row computes all
of them. *Own factors* are laid side by side for every row, weights folded in: a row computes its
own chain only, and what two rows share lies there twice. Knows chains and contents, no layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.errors import SlotError
from detour.slots.content import (
    Content,
    Device,
    Spread,
    Term,
    Weighted,
    bank,
    down_of,
    merged,
    of_outputs,
    shared,
    up_of,
)

# a bank up to so many times as wide as the widest row's own chain; see benchmarks/decode/layouts.py
BANK_WIDTHS = 8


def contents_for_chain(
    chain: Chain | None,
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> dict[str, Content]:
    """One chain for all rows, per layer; a layer on which nothing acts is left out.

    Raises SlotError for an adapter that is not bound to a base yet.
    """
    _check_bound([chain])
    contents: dict[str, Content] = {}
    for layer, updates in (chain.updates() if chain else {}).items():
        content = shared(updates, dtype, device, layer)
        if not content.is_empty:
            contents[layer] = content
    return contents


def contents_for_rows(
    chains: Sequence[Chain | None],
    dtype: torch.dtype = torch.float32,
    device: Device = None,
) -> dict[str, Content]:
    """A chain per row (None: the base): distinct updates become a bank, the gate their weights.

    A layer on which all rows agree is held as one shared chain; one on which nothing acts is left
    out, so that only base rows give {}. Raises SlotError as `contents_for_chain`.
    """
    _check_bound(chains)
    by_row = [chain.updates() if chain else {} for chain in chains]
    gates: dict[tuple[tuple[float, ...], ...], Tensor] = {}
    contents: dict[str, Content] = {}
    for layer in dict.fromkeys(layer for row in by_row for layer in row):
        rows = [merged(row.get(layer, ())) for row in by_row]
        bank_of_layer = {id(u): u for row in rows for u, weight in row if weight != 0}
        weights = tuple(_weights(row, bank_of_layer) for row in rows)
        updates = list(bank_of_layer.values())
        if not updates:
            continue
        if all(row == weights[0] for row in weights):
            pairs = zip(updates, weights[0], strict=True)
            contents[layer] = shared(pairs, dtype, device, layer)
            continue
        if weights not in gates:
            gates[weights] = torch.tensor(weights, dtype=dtype, device=device)
        gate = gates[weights]
        own = _own_rank(updates, weights)
        if _is_wide(updates, own):
            contents[layer] = _own_factors(updates, weights, own, gate)
        else:
            contents[layer] = bank(updates, gate, layer)
    return contents


def _own_rank(updates: Sequence[Update], weights: Sequence[Sequence[float]]) -> int:
    """The rank of the widest row's own chain."""
    return max(sum(u.rank for u, w in zip(updates, row, strict=True) if w) for row in weights)


def _is_wide(updates: Sequence[Update], own: int) -> bool:
    """Whether rows had better have factors of their own; embeddings and convolutions never do."""
    plain = all(update.down.ndim == 2 and not update.lookup for update in updates)
    return plain and sum(update.rank for update in updates) > BANK_WIDTHS * own > 0


def _own_factors(
    updates: Sequence[Update], weights: Sequence[Sequence[float]], own: int, gate: Tensor
) -> Content:
    """Every row its own chain, side by side along the rank, zeros behind shorter ones."""
    rows = len(weights)
    shapes = {(u.out_features, u.in_features) for u in updates}
    if len(shapes) > 1:
        raise SlotError(
            "the updates of one layer have different shapes",
            expected="one (out, in)",
            found=", ".join(map(str, sorted(shapes))),
            hint="chain adapters that were made for the same base",
        )
    ((out, wide),) = shapes
    down, up = gate.new_zeros(rows, own, wide), gate.new_zeros(rows, own, out)
    for row, mine in enumerate(weights):
        begin = 0
        for update, weight in zip(updates, mine, strict=True):
            if weight and update.rank:
                end = begin + update.rank
                down[row, begin:end] = down_of(update, gate.dtype, gate.device)
                up[row, begin:end] = up_of(update, weight, gate.dtype, gate.device)
                begin = end
    return Content(
        (Term(down, up, Spread.PER_ROW, Spread.PER_ROW),),
        of_outputs([u.row_scale for u in updates], gate, gate.device),
        of_outputs([u.bias_delta for u in updates], gate, gate.device),
    )


def _weights(row: list[Weighted], bank_of_layer: Mapping[int, Update]) -> tuple[float, ...]:
    own = {id(update): weight for update, weight in row}
    return tuple(own.get(key, 0.0) for key in bank_of_layer)


def _check_bound(chains: Sequence[Chain | None]) -> None:
    for chain in chains:
        for term in chain.terms if chain else ():
            term.adapter.check_bound(SlotError)
