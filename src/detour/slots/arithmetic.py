"""How a content changes a layer's output, with as few and as large products as possible.

`reference.py` states what is meant, token by token. This module knows tensors, contents and row
indices; it knows neither layers nor models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from detour.errors import SlotError
from detour.slots.content import Content, Spread, Term
from detour.slots.products import onednn_computes, onednn_linear

Gate = Tensor | float | None
FEW = 64  # tokens up to which two views cost more than adding into the product saves
THIN = 8  # the rank up to which `_hidden` turns its product round


@dataclass(frozen=True, eq=False)
class Rows:
    """Which row of the contents each token belongs to: an index over x's leading dimensions.

    (batch,) for x (batch, tokens, in); (batch, tokens) for packed rows; (tokens,) for flattened x.
    Some models lay (batch, tokens, in) out flat on their way: where `tokens` says how many each row
    of a (batch,) index has, such an input of (batch · tokens, in) is known for what it is.
    It remembers what it picked from gates that many layers have in common, so a gate must not be
    changed in place while it is held.
    """

    index: Int[Tensor, "..."]
    in_order: bool
    highest: int
    tokens: int | None = None
    picked: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def of(cls, index: Tensor, tokens: int | None = None) -> Rows:
        """Raises SlotError for an index that is empty, negative or not of whole numbers."""
        if index.is_floating_point() or index.dtype == torch.bool or index.numel() == 0:
            raise SlotError(
                "a row index must name rows",
                expected="integers, at least one",
                found=f"{index.dtype} of shape {tuple(index.shape)}",
            )
        flat = index.reshape(-1).tolist()
        if min(flat) < 0:
            raise SlotError("a row index cannot be negative", found=str(min(flat)))
        in_order = index.ndim == 1 and flat == list(range(len(flat)))
        return cls(index.long(), in_order, max(flat), tokens)

    @cached_property
    def flat(self) -> Rows | None:
        """The same for inputs laid out flat; None where the tokens of a row are not counted."""
        if self.tokens is None or self.index.ndim != 1:
            return None
        return Rows.of(self.index.repeat_interleave(self.tokens))

    def over(self, x: Float[Tensor, "*lead in"]) -> Rows:
        """The index that fits x: this one, or the flat one."""
        if x.ndim == 2 and x.shape[0] != len(self.index) and self.flat is not None:
            return self.flat
        return self

    def is_whole(self, x: Float[Tensor, "*lead in"], count: int) -> bool:
        """Whether x is `count` sequences, the first of the first row, and so on."""
        return x.ndim == 3 and self.in_order and count == x.shape[0] == self.index.shape[0]

    def pick(self, table: Float[Tensor, "rows *rest"]) -> Float[Tensor, "*lead *rest"]:
        """Return table[index]; where the index is 0, 1, 2 … that is the table itself."""
        if self.in_order and len(self.index) == len(table):
            return table
        if table.requires_grad:
            return table[self.index]
        if id(table) not in self.picked:
            self.picked[id(table)] = (table, table[self.index])
        return self.picked[id(table)][1]


def fast(
    x: Float[Tensor, "*lead in"], content: Content, rows: Rows | None = None
) -> Float[Tensor, "*lead out"]:
    """What `reference` gives, for whole batches; without a gain, which wants the layer's output.

    Raises SlotError when the content tells rows apart and the row index is missing, names a row
    beyond them, or does not fit x's leading dimensions: nothing is broadcast.
    """
    out = content.out_features or x.shape[-1]
    return add(x.new_zeros(*x.shape[:-1], out), x, content, rows)


def add(
    y: Float[Tensor, "*lead out"],
    x: Float[Tensor, "*lead in"],
    content: Content,
    rows: Rows | None = None,
) -> Float[Tensor, "*lead out"]:
    """Add a content to the output y, in y's dtype; where no gradient flows, y itself is changed.

    Products run in the factors' dtype, their sum is rounded to y's. Raises SlotError as `fast`.
    """
    if content.own_rows is not None and rows is not None and rows.is_whole(x, content.own_rows):
        return low_rank(y, x, content.terms[0].down, content.terms[0].up)
    rows = rows and rows.over(x)
    check_rows(x, content, rows)
    y = _affine(y, content, rows)
    for term in content.terms:
        y = _add_term(y, x, term, rows)
    return y


HiddenOf = Callable[[Float[Tensor, "rank in"]], Float[Tensor, "*lead rank"]]


def add_hidden(
    y: Float[Tensor, "*lead out"],
    hidden_of: HiddenOf,
    content: Content,
    rows: Rows | None = None,
) -> Float[Tensor, "*lead out"]:
    """`add` for layers whose narrow activations are no matrix product: embeddings, convolutions.

    `hidden_of` gives them for one factor `down`. Per-row factors are laid out as a bank. Raises
    SlotError as `fast`.
    """
    check_rows(y, content, rows)
    y = _affine(y, content, rows)
    for term in content.terms:
        if not term.is_shared:
            if not term.is_banked:
                term = _as_bank(term)
            term = without_bank(term) if term.is_banked else term
        if not term.is_shared:  # one factor of the two was banked
            term = without_bank(_as_bank(term))
        gate = term.gate
        if isinstance(gate, Tensor):
            assert rows is not None
            gate = _beside(rows.pick(gate if gate.ndim == 2 else gate[:, None]), y)
        hidden = _gated(hidden_of(term.down), gate)
        learns = torch.is_grad_enabled() and _needs_gradient(y, hidden, term.up)
        y = _onto(y, hidden, term.up, in_place=not learns)
    return y


def _affine(y: Tensor, content: Content, rows: Rows | None) -> Tensor:
    """Compute y + gain ⊙ y + shift in fp32 at least, rounded once."""
    if content.gain is None and content.shift is None:
        return y
    exact = y.to(torch.promote_types(y.dtype, torch.float32))
    gain, shift = (_picked(part, y, rows) for part in (content.gain, content.shift))
    scaled = exact if gain is None else exact + exact * gain
    return (scaled if shift is None else scaled + shift).to(y.dtype)


def _picked(part: Tensor | None, y: Tensor, rows: Rows | None) -> Tensor | None:
    if part is None or part.ndim == 1:
        return part
    assert rows is not None
    return _beside(rows.pick(part), y)


def check_rows(x: Tensor, content: Content, rows: Rows | None) -> None:
    """Know that the row index fits the input and names rows of the content; SlotError if not."""
    if content.rows is None:
        return
    if rows is None or rows.index.ndim == 0:
        raise SlotError(
            "this content differs by row, and no row index is set",
            expected="one row per leading position of the input",
            hint="with slots.rows(index): ...",
        )
    if rows.index.ndim >= x.ndim or x.shape[: rows.index.ndim] != rows.index.shape:
        raise SlotError(
            "the row index does not fit the input",
            expected=f"an index over leading dimensions of {tuple(x.shape[:-1])}",
            found=f"shape {tuple(rows.index.shape)}",
        )
    if rows.highest >= content.rows:
        raise SlotError(
            "the row index names a row that the content does not have",
            expected=f"rows 0 to {content.rows - 1}",
            found=f"row {rows.highest}",
        )


def _add_term(y: Tensor, x: Tensor, term: Term, rows: Rows | None) -> Tensor:
    if term.is_banked:
        term = without_bank(term)
    if term.is_shared:
        gate = term.gate
        if isinstance(gate, Tensor):
            assert rows is not None
            gate = _beside(rows.pick(gate if gate.ndim == 2 else gate[:, None]), x)
        return low_rank(y, x, term.down, term.up, gate)
    assert rows is not None
    if rows.index.ndim == 1 and (x.ndim > 2 or _is_row_order(term, rows)):
        return _add_by_row(y, x, term, rows)
    return _add_term(y, x, _as_bank(term), rows)


def _is_row_order(term: Term, rows: Rows) -> bool:
    return rows.in_order and len(rows.index) == term.rows


def _beside(gate: Float[Tensor, "*some rank"], x: Float[Tensor, "*lead in"]) -> Tensor:
    """The gate with a 1 for every leading dimension of x that the row index leaves alone."""
    if gate.ndim == x.ndim:
        return gate
    return gate.reshape(*gate.shape[:-1], *[1] * (x.ndim - gate.ndim), gate.shape[-1])


def _add_by_row(y: Tensor, x: Tensor, term: Term, rows: Rows) -> Tensor:
    """One row per sequence of x (batch, ..., in): a batched product of each row's factors."""
    batch = len(rows.index)
    down, up = (_of_rows(f, s, rows, batch) for _, f, s in term.factors)
    gate = term.gate
    if isinstance(gate, Tensor):
        gate = rows.pick(gate if gate.ndim == 2 else gate[:, None])[:, None]  # (batch, 1, rank)
    flat_y = y.reshape(batch, -1, y.shape[-1])
    flat_x = x.reshape(batch, -1, x.shape[-1])
    return low_rank(flat_y, flat_x, down, up, gate).reshape(y.shape)


def _of_rows(factor: Tensor, spread: Spread, rows: Rows, batch: int) -> Tensor:
    if spread is Spread.SHARED:
        return factor.expand(batch, *factor.shape)
    return factor if rows.in_order and batch == len(factor) else factor[rows.index]


def _as_bank(term: Term) -> Term:
    """Rows as a bank in which each row opens its own entry: for tokens that mix rows freely."""
    count = term.rows
    assert count is not None
    entries = [f if s is Spread.PER_ROW else f.expand(count, *f.shape) for _, f, s in term.factors]
    own = torch.eye(count, dtype=term.down.dtype, device=term.down.device)
    gate = term.gate
    if isinstance(gate, Tensor) and gate.ndim == 2:
        gate = (own[:, :, None] * gate[:, None]).flatten(1)  # (rows, rows · rank)
        return Term(entries[0].flatten(0, 1), entries[1].flatten(0, 1), gate=gate)
    if gate is not None:
        own = own * (gate[:, None] if isinstance(gate, Tensor) else gate)
    return Term(entries[0], entries[1], Spread.BANKED, Spread.BANKED, own)


def without_bank(term: Term, expand: Callable[[Tensor, int], Tensor] | None = None) -> Term:
    """Both factors banked: side by side along the rank, the gate repeated over each adapter's
    rank. One banked: mixed by the gate into one factor per row, for it is linear in that factor.
    """
    gate = term.gate
    assert isinstance(gate, Tensor)
    if term.spread_down is term.spread_up:
        wide = (expand or over_rank)(gate, term.rank)
        return Term(term.down.flatten(0, 1), term.up.flatten(0, 1), gate=wide)
    down, up = (
        torch.einsum("ra,a...->r...", gate, f) if s is Spread.BANKED else f
        for _, f, s in term.factors
    )
    spreads = [
        Spread.PER_ROW if s is Spread.BANKED else s for s in (term.spread_down, term.spread_up)
    ]
    return Term(down, up, spreads[0], spreads[1])


def over_rank(gate: Float[Tensor, "rows adapters"], rank: int) -> Float[Tensor, "rows wide"]:
    """Repeat each adapter's gate for every component of its rank."""
    return gate[:, :, None].expand(*gate.shape, rank).flatten(1)


def low_rank(y: Tensor, x: Tensor, down: Tensor, up: Tensor, gate: Gate = None) -> Tensor:
    """Compute y + (gate · (x @ downᵀ)) @ up, for factors of two dimensions or, batched, three.

    Where a gradient flows it is torch's own for factors of two dimensions, for others `LowRank`'s.
    Elsewhere y is changed in place.
    """
    if torch.is_grad_enabled() and _needs_gradient(y, x, down, up, gate):
        if down.ndim == 2 and x.dtype == y.dtype and down.dtype == up.dtype:
            return _learned(y, x, down, up, gate)
        return LowRank.apply(y, x, down, up, gate)  # pyright: ignore[reportReturnType]
    if _is_much(x, down) and onednn_computes(down.dtype, x.device):
        hidden = _gated(onednn_linear(x.to(down.dtype), down), gate)
        return y.add_(onednn_linear(hidden, up.mT).to(y.dtype))
    return _onto(y, _gated(_hidden(x, down), gate), up, in_place=True)


def _learned(y: Tensor, x: Tensor, down: Tensor, up: Tensor, gate: Gate) -> Tensor:
    """The same by products that torch differentiates.

    fp32 factors beside 16-bit inputs are rounded for the products, as autocast does it: up to three
    times as fast as in fp32, and no input is kept in fp32 for the backward. Small products cost a
    CPU more so, .7 of the speed for 256 tokens of 256 numbers; but if it hung on how many tokens
    are together, a gradient in parts would not be that of the whole.
    """
    if x.dtype != down.dtype:
        down, up = down.to(x.dtype), up.to(x.dtype)
        gate = gate.to(x.dtype) if isinstance(gate, Tensor) else gate
    gated = _gated(x @ down.mT, gate)
    few = x.dtype == torch.float32 and x.numel() < FEW * x.shape[-1]  # else it is rounded twice
    return y + gated @ up if few else _onto(y, gated, up, in_place=False)


def _needs_gradient(*values: Gate) -> bool:
    return any(isinstance(v, Tensor) and v.requires_grad for v in values)


def _is_much(x: Tensor, down: Tensor) -> bool:
    """From where on oneDNN is the faster for both products: for 256 tokens, 1,024 wide and rank 16,
    0.17 against 0.22 ms; rank 48, 0.29 against 0.54 ms. Thinner or shorter, calling it costs more.
    """
    return down.ndim == 2 and down.shape[0] >= THIN and x.numel() * down.shape[0] > 2**21


def _hidden(x: Tensor, down: Tensor) -> Tensor:
    """Compute x @ downᵀ in down's dtype.

    Up to rank 8 the product is formed lying down: 0.39 against 0.57 ms in fp32 and 0.15 against
    0.37 ms in bf16 for 1,024 tokens, 1,024 wide, on one core; 72 against 106 µs for factors of
    their own for 32 rows of 32 tokens, 256 wide. From rank 16 on, or for fewer than 16 tokens,
    there is no gain.
    """
    x = x.to(down.dtype)
    if down.shape[-2] > THIN:
        return x @ down.mT
    tokens = x.shape[-2] if down.ndim == 3 else x.numel() // max(x.shape[-1], 1)
    if tokens < 16:
        return x @ down.mT
    if down.ndim == 3:
        return (down @ x.mT).mT
    return (down @ x.reshape(-1, x.shape[-1]).mT).mT.reshape(*x.shape[:-1], down.shape[0])


def _gated(hidden: Tensor, gate: Gate) -> Tensor:
    return hidden if gate is None else hidden * gate


def _onto(y: Tensor, gated: Tensor, up: Tensor, *, in_place: bool) -> Tensor:
    """Compute y + gated @ up, in y's dtype."""
    fits = y.dtype == up.dtype == gated.dtype and y.is_contiguous()
    if fits and up.ndim == 3 and in_place:
        return y.baddbmm_(gated, up)  # a view with gaps would run row by row
    if fits and up.ndim == 2:
        flat_y, flat_gated = y.view(-1, y.shape[-1]), gated.reshape(-1, gated.shape[-1])
        if in_place:
            flat_y.addmm_(flat_gated, up)
            return y
        return torch.addmm(flat_y, flat_gated, up).view(y.shape)
    delta = (gated @ up).to(y.dtype)  # adding fp32 to bf16 directly costs ten times the cast
    return y.add_(delta) if in_place else y + delta


class LowRank(torch.autograd.Function):
    """`low_rank` with a backward that forms only the gradients asked for.

    It keeps x in its own dtype (fp32 factors over a bf16 base would double it) and the narrow
    hidden activations, and brackets every product around the rank.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401
        y: Tensor,
        x: Tensor,
        down: Tensor,
        up: Tensor,
        gate: Gate,
    ) -> Tensor:
        """Shapes as in `low_rank`."""
        hidden = _hidden(x, down)
        learnable = (gate,) if isinstance(gate, Tensor) else ()
        ctx.save_for_backward(x, down, up, hidden, *learnable)
        ctx.number = None if learnable else gate
        return _onto(y, _gated(hidden, gate), up, in_place=False)

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  (torch names it so)
        ctx: Any,  # noqa: ANN401
        *grad_outputs: Tensor,
    ) -> tuple[Tensor | None, ...]:
        """The gradients of y, x, down, up and gate; None for what needs none."""
        (dy,) = grad_outputs
        x, down, up, hidden, *learnable = ctx.saved_tensors
        gate: Gate = learnable[0] if learnable else ctx.number
        wants_y, wants_x, wants_down, wants_up, wants_gate = ctx.needs_input_grad
        d = dy.to(up.dtype)
        d_up = _outer(_gated(hidden, gate), d, up) if wants_up else None
        d_x = d_down = d_gate = None
        if wants_x or wants_down or wants_gate:
            d_gated = _hidden(d, up)
            d_hidden = _gated(d_gated, gate)
            d_x = (d_hidden @ down).to(x.dtype) if wants_x else None
            d_down = _outer(d_hidden, x.to(down.dtype), down) if wants_down else None
            d_gate = (d_gated * hidden).sum_to_size(learnable[0].shape) if wants_gate else None
        return dy if wants_y else None, d_x, d_down, d_up, d_gate


def _outer(narrow: Tensor, wide: Tensor, like: Tensor) -> Tensor:
    """narrowᵀ @ wide: over all tokens for a factor of two dimensions, row by row for three."""
    if like.ndim == 2:
        narrow, wide = narrow.reshape(-1, narrow.shape[-1]), wide.reshape(-1, wide.shape[-1])
    return narrow.mT.to(like.dtype) @ wide
