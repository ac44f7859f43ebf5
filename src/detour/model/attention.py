"""Attention for learning in half precision on a CPU: forward and backward as plain products.

In bfloat16 torch's own kernel is slow there in its backward, where rows are short: 20 ms a layer,
for 8 rows of 64 tokens and 16 heads of 128 on one core of an AMD EPYC; this takes 7 ms for both
directions. Long rows are torch's: on an Intel Xeon it is 1.2 to 1.3 times slower for 128 tokens,
but 1.2 to 2.2 times faster for 256. The softmax is made again in the backward, so that nothing of
tokens × tokens is kept. Knows tensors and how transformers models choose their attention.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from detour.decoding.attention import LEARNING, attending, is_plain

_TOGETHER = 2**20  # scores of several rows that exist at once
_LONGEST = 128  # tokens of a row above which torch's kernel is taken


@contextmanager
def learning_attention(model: PreTrainedModel) -> Generator[None]:
    """Let a half-precision model on a CPU attend this way while gradients are wanted.

    Models that let nobody choose, or that recompute their layers in the backward (which comes after
    this is over), stay with what they have.
    """
    if not torchs_is_slow(model) or recomputes(model):
        yield
        return
    with attending(model, LEARNING, attend):
        yield


def torchs_is_slow(model: PreTrainedModel) -> bool:
    """Whether plain products are the faster attention for this model here and now."""
    half = model.dtype in (torch.bfloat16, torch.float16)
    return torch.is_grad_enabled() and model.device.type == "cpu" and half


def recomputes(model: PreTrainedModel) -> bool:
    """Whether some of its layers run once more in the backward (gradient checkpointing)."""
    return any(getattr(part, "gradient_checkpointing", False) for part in model.modules())


def attend(
    module: nn.Module,
    query: Float[Tensor, "rows heads tokens width"],
    key: Float[Tensor, "rows groups keys width"],
    value: Float[Tensor, "rows groups keys value_width"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **more: Any,  # noqa: ANN401  (what a model hands to whatever attention was chosen)
) -> tuple[Tensor, None]:
    """What transformers calls; `attention` where it can be."""
    long = max(query.shape[2], key.shape[2]) > _LONGEST
    if dropout or long or not is_plain(attention_mask, more):
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal, **more
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    mask = attention_mask
    if mask is None and causal and query.shape[2] > 1:
        tokens, keys = query.shape[2], key.shape[2]
        mask = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril()[None, None]
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    return attention(query, key, value, mask, scale).transpose(1, 2).contiguous(), None


def attention(
    query: Float[Tensor, "rows heads tokens width"],
    key: Float[Tensor, "rows groups keys width"],
    value: Float[Tensor, "rows groups keys value_width"],
    mask: Bool[Tensor, "#rows #heads tokens keys"] | None,
    scale: float,
) -> Float[Tensor, "rows heads tokens value_width"]:
    """softmax(scale · q kᵀ) v with its gradient; heads share keys in groups, in their order.

    `mask` is true where a key counts; where none does, the mean of all values comes out. The
    softmax runs in fp32.
    """
    return cast(Tensor, _Attention.apply(query, key, value, mask, scale))


class _Attention(torch.autograd.Function):
    """Some rows at a time; the heads of a group lie one after another, as tokens do."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,  # noqa: ANN401  # torch leaves it untyped
        query: Tensor,
        key: Tensor,
        value: Tensor,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        ctx.save_for_backward(query, key, value, mask)
        ctx.scale = scale
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        for rows in _parts(query, key):
            q, k, v = _grouped(query[rows], key), key[rows], value[rows]
            own = None if mask is None else _of(mask, rows)
            weights = _weights(q, k, own, query.shape[2], scale)
            out[rows] = (weights @ v).view(out[rows].shape)
        return out

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,  # noqa: ANN401
        upstream: Tensor,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        query, key, value, mask = ctx.saved_tensors
        to_query, to_key, to_value = (torch.empty_like(t) for t in (query, key, value))
        for rows in _parts(query, key):
            q, k, v = _grouped(query[rows], key), key[rows], value[rows]
            d = _grouped(upstream[rows], key)
            own = None if mask is None else _of(mask, rows)
            weights = _weights(q, k, own, query.shape[2], ctx.scale)
            to_value[rows] = weights.mT @ d
            # of the softmax p: p · (dp − Σ p dp), in fp32
            slope = (d @ v.mT).float().mul_(weights)
            slope.sub_(weights * slope.sum(-1, keepdim=True)).mul_(ctx.scale)
            if own is not None:  # only where a token may look at nothing is that not 0 already
                _by_heads(slope, query.shape[2]).masked_fill_(~own, 0.0)
            scores = slope.to(query.dtype)
            to_query[rows] = (scores @ k).view(to_query[rows].shape)
            to_key[rows] = scores.mT @ q
        return to_query, to_key, to_value, None, None


def _parts(query: Tensor, key: Tensor) -> list[slice]:
    rows, heads, tokens, _ = query.shape
    size = max(1, _TOGETHER // max(1, heads * tokens * key.shape[2]))
    return [slice(start, start + size) for start in range(0, rows, size)]


def _grouped(heads: Tensor, key: Tensor) -> Tensor:
    """(rows, heads, tokens, width) to (rows, groups, heads a group · tokens, width)."""
    rows, _, _, width = heads.shape
    return heads.reshape(rows, key.shape[1], -1, width)


def _of(mask: Tensor, rows: slice) -> Tensor:
    return mask if len(mask) == 1 else mask[rows]


def _by_heads(scores: Tensor, tokens: int) -> Tensor:
    """(rows, groups, heads a group · tokens, keys) as (rows, heads, tokens, keys), in place."""
    rows, _, _, keys = scores.shape
    return scores.view(rows, -1, tokens, keys)


def _weights(
    q: Float[Tensor, "rows groups more width"],
    k: Float[Tensor, "rows groups keys width"],
    mask: Tensor | None,
    tokens: int,
    scale: float,
) -> Float[Tensor, "rows groups more keys"]:
    scores = (q @ k.mT).float().mul_(scale)
    if mask is not None:
        _by_heads(scores, tokens).masked_fill_(~mask, torch.finfo(torch.float32).min)
    return scores.softmax(-1).to(q.dtype)
