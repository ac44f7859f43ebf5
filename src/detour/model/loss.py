"""The loss on answers: hidden states, then the head on supervised rows only, in chunks.

Of a frozen head the gradient is formed in the forward pass, chunk by chunk, so that the logits of a
whole batch never exist at once (tokens × vocabulary is the largest tensor of a training step).
A head that itself learns (a slot with trainable content) is recomputed in the backward pass.

Knows tensors and transformers' causal models. Does not know tokenizers, adapters or optimisers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedConfig, PreTrainedModel

from detour.errors import BaseError, DataError
from detour.language.catalogue import text
from detour.model.attention import learning_attention

IGNORED = -100
"""The target of a token that the loss does not count; torch's own convention."""
CACHED = 2**18  # logits whose softmax is taken at once on a CPU: 1 MB stays near the core
TOGETHER = 2**24  # and elsewhere, where it is the number of calls that costs

HeadFunction: TypeAlias = Callable[[Tensor], Tensor]


def hidden_states(
    model: PreTrainedModel,
    ids: Int[Tensor, "rows tokens"],
    mask: Shaped[Tensor, "rows *mask"] | None = None,
    positions: Int[Tensor, "rows tokens"] | None = None,
) -> Float[Tensor, "rows tokens width"]:
    """The decoder's last hidden states, without the head.

    `mask` is 1 on real tokens and 0 on padding, (rows, tokens), or whatever (rows, 1, tokens,
    tokens) form the model's attention takes.
    """
    with learning_attention(model):
        output = model.base_model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False
        )
    return output.last_hidden_state


class Head:
    """From hidden states to logits exactly as the model itself does it.

    Softcap (Gemma), logit scale (Cohere) and logits scaling (Granite) are applied; a model that
    does anything else to its logits is found out by one forward of two tokens and refused.

    Raises:
        BaseError: the model has no head, or treats its logits in an unknown way.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        module = cast("nn.Module | None", model.get_output_embeddings())
        if module is None:
            raise BaseError(text("{model} has no language model head", model=type(model).__name__))
        self.module = module
        self._finish = _finishing(model.config.get_text_config())
        self._verify(model)

    def __call__(self, hidden: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead vocab"]:
        """(…, width) to (…, vocab)."""
        return self._finish(self.module(hidden))

    def _verify(self, model: PreTrainedModel) -> None:
        ids = torch.tensor([[0, 1]], device=model.device)
        with torch.no_grad():
            whole = model(input_ids=ids, use_cache=False).logits
            ours = self(hidden_states(model, ids))
        if whole.shape != ours.shape or not torch.allclose(
            whole.float(), ours.float(), rtol=1e-2, atol=1e-3
        ):
            raise BaseError(
                text(
                    "{model} treats its logits in a way Detour does not know",
                    model=type(model).__name__,
                ),
                expected=text("a head, softcap, logit_scale or logits_scaling"),
            )


def _finishing(config: PreTrainedConfig) -> HeadFunction:
    cap = getattr(config, "final_logit_softcapping", None)
    factor = getattr(config, "logit_scale", None) or 1.0
    divisor = getattr(config, "logits_scaling", None) or 1.0
    if cap:
        return lambda logits: torch.tanh(logits / cap) * cap
    if factor != 1 or divisor != 1:
        return lambda logits: logits * (factor / divisor)
    return lambda logits: logits


def completion_loss(
    hidden: Float[Tensor, "*lead width"],
    head: HeadFunction,
    targets: Int[Tensor, "*lead"],
    *,
    divisor: int | float | None = None,
    chunk: int = 1024,
) -> Float[Tensor, ""]:
    """Mean cross-entropy over the supervised tokens; the head sees no other.

    `targets[t]` is the token that should follow the one of `hidden[t]`, `IGNORED` where nothing is
    learned. The sum of losses (nats) is divided by `divisor`, by default the supervised tokens
    here; with several micro-batches give the number of the whole window. At most `chunk` rows of
    logits exist at once.

    Raises:
        DataError: no token is supervised.
    """
    kept = targets != IGNORED
    count = int(kept.sum())
    if count == 0:
        raise DataError(text("no token of this batch is supervised"), expected=text("at least one"))
    rows, wanted = hidden[kept], targets[kept]  # (supervised, width), (supervised)
    scale = 1.0 / (count if divisor is None else divisor)
    if torch.is_grad_enabled() and _learns(head, rows):
        return _recomputed(rows, head, wanted, chunk) * scale
    return cast(Tensor, _FrozenHead.apply(rows, head, wanted, chunk)) * scale


def targets_from(
    ids: Int[Tensor, "rows tokens"], mask: Bool[Tensor, "rows tokens"]
) -> Int[Tensor, "rows tokens"]:
    """Shift by one: the target of a token is its successor where `mask` counts the successor."""
    targets = torch.full_like(ids, IGNORED)
    targets[:, :-1] = torch.where(mask[:, 1:], ids[:, 1:], IGNORED)
    return targets


def _learns(head: HeadFunction, rows: Tensor) -> bool:
    return head(rows[:0].detach()).requires_grad  # no row, no cost: only whether a gradient flows


def _summed(rows: Tensor, head: HeadFunction, wanted: Tensor) -> Tensor:
    return cross_entropy(head(rows).float(), wanted, reduction="sum")


def _recomputed(rows: Tensor, head: HeadFunction, wanted: Tensor, chunk: int) -> Tensor:
    parts = [
        cast(Tensor, checkpoint(_summed, part, head, goal, use_reentrant=False))
        for part, goal in zip(rows.split(chunk), wanted.split(chunk), strict=True)
    ]
    return torch.stack(parts).sum()


def to_gradient_(
    logits: Float[Tensor, "rows vocab"], wanted: Int[Tensor, " rows"]
) -> Float[Tensor, ""]:
    """The summed cross-entropy (nats, float32); `logits` become its gradient to themselves.

    That is the softmax, less one at the wanted token. Formed in place and in float32, few rows at a
    time: what torch's own functions keep, the logarithms and a gradient apart, are two more tensors
    of the same size, which no cache holds.
    """
    numbers = CACHED if logits.device.type == "cpu" else TOGETHER
    at_once = max(1, numbers // logits.shape[-1])
    total = torch.zeros((), device=logits.device)
    for part, goal in zip(logits.split(at_once), wanted.split(at_once), strict=True):
        said, there = part.float().log_softmax(-1), goal[:, None]
        total -= said.gather(1, there).sum()
        part.copy_(said.exp_().scatter_add_(1, there, said.new_full(there.shape, -1.0)))
    return total


class _FrozenHead(torch.autograd.Function):
    """The summed loss; the gradient to the rows is formed in the forward, one chunk at a time."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any,  # noqa: ANN401  # torch leaves it untyped
        rows: Tensor,
        head: HeadFunction,
        wanted: Tensor,
        chunk: int,
    ) -> Tensor:
        needed = ctx.needs_input_grad[0]
        gradient = torch.empty_like(rows) if needed else None
        total = torch.zeros((), dtype=torch.float32, device=rows.device)
        for start in range(0, len(rows), chunk):
            own = slice(start, start + chunk)
            if gradient is None:
                total += _summed(rows[own], head, wanted[own])
                continue
            part = rows[own].detach().requires_grad_()
            with torch.enable_grad():
                logits = head(part)
            total += to_gradient_(logits.detach(), wanted[own])
            gradient[own] = torch.autograd.grad(logits, part, logits.detach())[0]
            del logits  # with its graph, before the next chunk's are made
        ctx.gradient = gradient
        return total

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: Any,  # noqa: ANN401
        upstream: Tensor,
    ) -> tuple[Tensor | None, None, None, None]:
        gradient = None if ctx.gradient is None else ctx.gradient * upstream
        return gradient, None, None, None
