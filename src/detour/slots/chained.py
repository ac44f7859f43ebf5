"""Chains as contents of the slots: one for all rows of a batch, or one for every row.

Rows that differ are laid out in one of two ways, layer by layer. A *bank* holds every distinct
update once and mixes them by a gate: each adapter is read once a step, but every row computes all
of them. *Own factors* are laid side by side for every row, weights folded in: a row computes its
own chain only, and what two rows share lies there twice. Knows chains and contents, no layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Float
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
    check_shapes,
    merged,
    of_outputs,
    shared,
)


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
    made: dict[object, tuple[Tensor, ...]] = {}
    contents: dict[str, Content] = {}
    for layer in dict.fromkeys(layer for row in by_row for layer in row):
        mixed = Mixed.of([merged(row.get(layer, ())) for row in by_row])
        if not mixed.updates:
            continue
        first = mixed.rows[0]
        if all(row == first for row in mixed.rows):
            pairs = [(mixed.updates[place], weight) for place, weight in first]
            contents[layer] = shared(pairs, dtype, device, layer)
            continue
        if mixed.rows not in made:
            made[mixed.rows] = (mixed.gate(dtype, device),)
        (gate,) = made[mixed.rows]
        if mixed.is_wide:
            contents[layer] = _own_factors(mixed, gate, made, layer)
        else:
            contents[layer] = bank(mixed.updates, gate, layer)
    return contents


@dataclass(frozen=True)
class Mixed:
    """One layer's distinct updates, and per row which of them act (by place), how strongly."""

    updates: list[Update]
    rows: tuple[tuple[tuple[int, float], ...], ...]

    @classmethod
    def of(cls, rows: Sequence[Sequence[Weighted]]) -> Mixed:
        """Leave out what has weight 0."""
        places: dict[int, int] = {}
        updates: list[Update] = []
        for row in rows:
            for update, weight in row:
                if weight != 0 and id(update) not in places:
                    places[id(update)] = len(updates)
                    updates.append(update)
        return cls(
            updates, tuple(tuple(sorted((places[id(u)], w) for u, w in r if w)) for r in rows)
        )

    def gate(self, dtype: torch.dtype, device: Device) -> Float[Tensor, "rows updates"]:
        """The weights of all updates, 0 for what does not act."""
        gate = torch.zeros(len(self.rows), len(self.updates), dtype=dtype)
        for row, mine in enumerate(self.rows):
            for place, weight in mine:
                gate[row, place] = weight
        return gate.to(device)

    @property
    def own(self) -> int:
        """The rank of the widest row's own chain."""
        return max(sum(self.updates[place].rank for place, _ in row) for row in self.rows)

    @property
    def is_wide(self) -> bool:
        """Whether rows had better have factors of their own; embeddings, convolutions never do."""
        plain = all(update.down.ndim == 2 and not update.lookup for update in self.updates)
        total = sum(update.rank for update in self.updates)
        return plain and total > bank_widths(len(self.rows)) * self.own > 0

    def components(self) -> tuple[list[list[int]], list[list[float]]]:
        """Per row which components it takes of all updates laid end to end, and how strongly.

        Shorter rows are filled with one behind the last, which stands for zeros.
        """
        begins = [0, *accumulate(update.rank for update in self.updates)]
        index = [[k for p, _ in row for k in range(begins[p], begins[p + 1])] for row in self.rows]
        scales = [
            [u.scale * w for p, w in row for u in [self.updates[p]] * self.updates[p].rank]
            for row in self.rows
        ]
        own = self.own
        for at, by in zip(index, scales, strict=True):
            at += [begins[-1]] * (own - len(at))
            by += [0.0] * (own - len(by))
        return index, scales


def bank_widths(rows: int) -> float:
    """Up to how many times the width of the widest row's own chain a bank is the faster layout.

    Fitted to what benchmarks/decode/layouts.py measured on a 1,024 wide model of 196 layers: the
    border lay near 2.3 for 4 rows, 4 for 8, 6 for 16, 11 for 32, 15 for 64 and 19 for 128.
    """
    return 24 * rows / (rows + 38)


def _own_factors(
    mixed: Mixed, gate: Tensor, made: dict[object, tuple[Tensor, ...]], layer: str
) -> Content:
    """Every row its own chain, side by side along the rank, zeros behind shorter ones."""
    updates = mixed.updates
    check_shapes(updates, layer)
    exact = torch.promote_types(gate.dtype, torch.float32)
    key = (mixed.rows, tuple((update.rank, update.scale) for update in updates))
    if key not in made:
        index, scales = mixed.components()
        weights = torch.tensor(scales, dtype=exact, device=gate.device)[:, :, None]
        made[key] = (torch.tensor(index, device=gate.device), weights)
    index, weights = made[key]
    down = _end_to_end([update.down.to(gate.device, gate.dtype) for update in updates])[index]
    up = _end_to_end([update.up.to(gate.device, exact).mT for update in updates])[index]
    up = up.mul_(weights).to(gate.dtype)
    return Content(
        (Term(down, up, Spread.PER_ROW, Spread.PER_ROW),),
        of_outputs([u.row_scale for u in updates], gate, gate.device),
        of_outputs([u.bias_delta for u in updates], gate, gate.device),
    )


def _end_to_end(factors: list[Float[Tensor, "_ wide"]]) -> Float[Tensor, "components wide"]:
    """All components of a layer, and one of zeros behind them."""
    return torch.cat([*factors, factors[0].new_zeros(1, factors[0].shape[1])])


def _check_bound(chains: Sequence[Chain | None]) -> None:
    for chain in chains:
        for term in chain.terms if chain else ():
            term.adapter.check_bound(SlotError)
