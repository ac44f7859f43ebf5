"""Attention of one new token a row over its cache, for a CPU.

torch's own kernel is made for prompts. For one query a row and grouped heads it took 47 ms in bf16
where this takes 9 (28 layers, 8 rows, 16 heads on 8, 128 wide, 64 tokens), and 177 against 21 at
256 tokens: it is given the heads in groups, and keys are the left factor, which oneDNN reads
without copying the cache. Prompts and everything else stay with transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

_TORCH = "sdpa"
ONE_TOKEN, LEARNING, PACKED = OURS = ("detour_one_token", "detour_learning", "detour_packed")
_SMALL = 2**16  # key elements below which torch's kernel is as fast


@contextmanager
def one_token_attention(model: PreTrainedModel) -> Generator[None]:
    """Let the model attend this way where it lets the way be chosen, and leaves it to torch now."""
    with attending(model, ONE_TOKEN, _attend) if model.device.type == "cpu" else nullcontext():
        yield


@contextmanager
def attending(
    model: PreTrainedModel,
    name: str,
    attend: Callable[..., tuple[Tensor, None]],
    masks: Callable[..., Tensor | None] = sdpa_mask,
) -> Generator[None]:
    """Let the model attend by a function, where it lets that be chosen and leaves it to torch now.

    `name` is one of `OURS`. The function takes and gives what those of transformers do; `masks`
    makes its masks, by default as torch's kernel wants them.
    """
    if not getattr(model, "_supports_attention_backend", False):
        yield
        return
    AttentionInterface.register(name, attend)
    AttentionMaskInterface.register(name, masks)
    chosen = _configs(model, _TORCH)
    for config in chosen:  # the name's own setter would change the parts of a config as well
        config._attn_implementation_internal = name
    try:
        yield
    finally:
        for config in chosen:
            config._attn_implementation_internal = _TORCH


def torch_attention(model: PreTrainedModel) -> None:
    """Undo `attending` on a copy that was made meanwhile, by whatever function."""
    for name in OURS:
        for config in _configs(model, name):
            config._attn_implementation_internal = _TORCH


def is_plain(attention_mask: Tensor | None, more: Mapping[str, Any]) -> bool:
    """Whether a model asks for nothing but masked attention: no bias, softcap or sinks."""
    unknown = ("position_bias", "cache", "softcap", "s_aux")
    masked = attention_mask is None or attention_mask.dtype == torch.bool
    return masked and all(more.get(name) is None for name in unknown)


def _configs(model: PreTrainedModel, attention: str) -> list[Any]:
    """The model's configurations, its parts' among them, that name this attention."""
    found = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    return [c for c in found.values() if getattr(c, "_attn_implementation", None) == attention]


def _attend(
    module: nn.Module,
    query: Float[Tensor, "rows heads tokens width"],
    key: Float[Tensor, "rows groups keys width"],
    value: Float[Tensor, "rows groups keys value_width"],
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **more: Any,  # noqa: ANN401  (what a model hands to whatever attention was chosen)
) -> tuple[Tensor, None]:
    """What transformers calls; `one_token` where it can be."""
    plain = is_plain(attention_mask, more) and (
        attention_mask is None or attention_mask.shape[1:3] == (1, 1)
    )
    if query.shape[2] != 1 or not plain or torch.is_grad_enabled():
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **more
        )
    return one_token(query, key, value, attention_mask, scaling), None


def one_token(
    query: Float[Tensor, "rows heads 1 width"],
    key: Float[Tensor, "rows groups keys width"],
    value: Float[Tensor, "rows groups keys value_width"],
    mask: Bool[Tensor, "rows 1 1 keys"] | None = None,
    scaling: float | None = None,
) -> Float[Tensor, "rows 1 heads value_width"]:
    """softmax(scaling · q kᵀ) v; `mask` is true where a key counts. The softmax runs in fp32."""
    rows, heads, _, width = query.shape
    groups = key.shape[1]
    grouped = query.reshape(rows, groups, heads // groups, width)
    if key.numel() < _SMALL:
        found = functional.scaled_dot_product_attention(grouped, key, value, mask, scale=scaling)
        return found.reshape(rows, 1, heads, -1)
    scaled = grouped * (width**-0.5 if scaling is None else scaling)
    scores = (
        key.flatten(0, 1) @ scaled.flatten(0, 1).mT
    ).mT  # (rows · groups, heads a group, keys)
    if mask is not None:
        scores = scores.unflatten(0, (rows, groups)).masked_fill(~mask, float("-inf")).flatten(0, 1)
    weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
    return (weights @ value.flatten(0, 1)).reshape(rows, 1, heads, -1)
