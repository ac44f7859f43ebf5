"""What a training step minimises: the loss on answers and, if asked for, KL to the base.

Knows batches and models; knows neither optimisers nor files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from detour.model.loss import Head, completion_loss
from detour.model.packing import Forward
from detour.model.rows import Batch
from detour.training.own_loss import Objective, Said

Part = TypeVar("Part")


def in_parts(
    parts: Sequence[Part], share: Callable[[Part], Float[Tensor, ""]]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """What of a step's loss is still to be differentiated, and the whole of it, detached.

    `share` gives what a part adds to the loss of the step. The gradients of all parts but the last
    are taken here, one after another, so that one part's activations exist at a time.
    """
    *earlier, last = parts
    done = torch.zeros(())
    for part in earlier:
        loss = share(part)
        loss.backward()
        done = done.to(loss) + loss.detach()
    loss = share(last)
    return loss, (loss.detach() + done.to(loss) if earlier else loss.detach())


def answer_loss(
    forward: Forward, head: Head, batch: Batch, divisor: int | None = None
) -> Float[Tensor, ""]:
    """Mean cross-entropy (nats) over the supervised tokens.

    Of a part give the supervised tokens of the whole step as `divisor`; then the parts add up.
    """
    seen = forward(batch)
    return completion_loss(seen.hidden, head, seen.targets, divisor=divisor)


def own_loss(forward: Forward, head: Head, batch: Batch, objective: Objective) -> Float[Tensor, ""]:
    """A loss of the user's own over the supervised tokens; all their logits exist at once.

    Raises:
        ConfigError: as `Objective`.
    """
    seen = forward(batch)
    return objective(Said(head(seen.hidden).float(), seen.targets, seen.row, len(batch.ids)))


def base_log_probabilities(
    forward: Forward, head: Head, batch: Batch
) -> Float[Tensor, "supervised vocab"]:
    """What the model says at the supervised places; called on the bare base."""
    with torch.no_grad():
        return _log_probabilities(forward, head, batch)


def kl_to_base(
    forward: Forward,
    head: Head,
    batch: Batch,
    base: Float[Tensor, "supervised vocab"],
) -> Float[Tensor, ""]:
    """Mean KL(base || model) in nats over the supervised tokens.

    The direction that keeps everything the base gave weight to (remedy of many editing papers).
    """
    return kl(base, _log_probabilities(forward, head, batch))


def kl(
    base: Float[Tensor, "tokens vocab"], other: Float[Tensor, "tokens vocab"]
) -> Float[Tensor, ""]:
    """Mean over tokens of KL(base || other), both as log-probabilities."""
    return (base.exp() * (base - other)).sum(-1).mean()


def _log_probabilities(
    forward: Forward, head: Head, batch: Batch
) -> Float[Tensor, "supervised vocab"]:
    return head(forward(batch).hidden).float().log_softmax(-1)
