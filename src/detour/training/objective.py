"""What a training step minimises: the loss on answers and, if asked for, KL to the base.

Knows batches and models; knows neither optimisers nor files.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from detour.model.loss import IGNORED, Head, completion_loss, hidden_states
from detour.model.rows import Batch


def answer_loss(model: PreTrainedModel, head: Head, batch: Batch) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) over the supervised tokens."""
    hidden = hidden_states(model, batch.ids, batch.mask)  # (rows, tokens, width)
    return completion_loss(hidden, head, batch.targets)


def base_log_probabilities(
    model: PreTrainedModel, head: Head, batch: Batch
) -> Float[Tensor, "supervised vocab"]:
    """What the model says at the supervised places; called on the bare base."""
    with torch.no_grad():
        return _log_probabilities(model, head, batch)


def kl_to_base(
    model: PreTrainedModel,
    head: Head,
    batch: Batch,
    base: Float[Tensor, "supervised vocab"],
) -> Float[Tensor, ""]:
    """Mean KL(base || model) in nats over the supervised tokens.

    The direction that keeps everything the base gave weight to (remedy of many editing papers).
    """
    return kl(base, _log_probabilities(model, head, batch))


def kl(
    base: Float[Tensor, "tokens vocab"], other: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, ""]:
    """Mean over tokens of KL(base || other), both as log-probabilities."""
    return (base.exp() * (base - other)).sum(-1).mean()


def _log_probabilities(
    model: PreTrainedModel, head: Head, batch: Batch
) -> Float[Tensor, "supervised vocab"]:
    hidden = hidden_states(model, batch.ids, batch.mask)
    return head(hidden[_kept(batch.targets)]).float().log_softmax(-1)


def _kept(targets: Int[Tensor, "rows tokens"]) -> Tensor:
    return targets != IGNORED
