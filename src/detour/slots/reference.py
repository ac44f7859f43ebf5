"""What a content adds to a layer's output, said as plainly as possible: token by token.

Slow, and the measure of `arithmetic.py`. Knows tensors, contents and row indices.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from detour.slots.arithmetic import Rows, check_rows
from detour.slots.content import Content, Spread, Term


def reference(
    x: Float[Tensor, "*lead in"],
    content: Content,
    rows: Rows | None = None,
    y: Float[Tensor, "*lead out"] | None = None,
) -> Float[Tensor, "*lead out"]:
    """What a content adds to a layer's output, token by token. Raises SlotError as `fast`.

    y is the layer's own output, which a content with a gain wants.
    """
    check_rows(x, content, rows)
    tokens = x.reshape(-1, x.shape[-1])
    row_of = _row_of_each_token(x, rows) if content.rows is not None else [0] * len(tokens)
    out = content.out_features or x.shape[-1]
    own = torch.zeros(len(tokens), out) if y is None else y.reshape(-1, out)
    deltas = [
        sum(
            (_token_delta(token, term, row) for term in content.terms),
            _token_affine(before, content, row).to(token),
        )
        for token, before, row in zip(tokens, own, row_of, strict=True)
    ]
    return torch.stack(deltas).reshape(*x.shape[:-1], out)


def _token_affine(y: Float[Tensor, " out"], content: Content, row: int) -> Float[Tensor, " out"]:
    gain, shift = (
        part if part is None or part.ndim == 1 else part[row]
        for part in (content.gain, content.shift)
    )
    zero = torch.zeros_like(y, dtype=torch.float32)
    return (zero if gain is None else gain * y.float()) + (zero if shift is None else shift)


def _row_of_each_token(x: Tensor, rows: Rows | None) -> list[int]:
    assert rows is not None
    inner = [1] * (x.ndim - 1 - rows.index.ndim)
    return rows.index.reshape(*rows.index.shape, *inner).expand(x.shape[:-1]).reshape(-1).tolist()


def _token_delta(token: Float[Tensor, " in"], term: Term, row: int) -> Float[Tensor, " out"]:
    x = token.to(term.down.dtype)
    if not term.is_banked:
        gate = term.gate[row] if isinstance(term.gate, Tensor) else term.gate
        hidden = _pick_factor(term.down, term.spread_down, row, 0) @ x
        hidden = hidden if gate is None else hidden * gate
        return (hidden @ _pick_factor(term.up, term.spread_up, row, 0)).to(token.dtype)
    assert isinstance(term.gate, Tensor)
    delta = torch.zeros(term.up.shape[-1]).to(x)
    for adapter, weight in enumerate(term.gate[row]):
        hidden = _pick_factor(term.down, term.spread_down, row, adapter) @ x
        delta = delta + weight * (hidden @ _pick_factor(term.up, term.spread_up, row, adapter))
    return delta.to(token.dtype)


def _pick_factor(factor: Tensor, spread: Spread, row: int, adapter: int) -> Tensor:
    if spread is Spread.SHARED:
        return factor
    return factor[row if spread is Spread.PER_ROW else adapter]
