"""Many adapters trained at once: each row of a batch has the factors of its own task.

All begin with the same `down`, so that they are comparable. A batch holds one row of every task, so
the cost is that of one adapter with a batch of that size. A task learns what it would learn alone:
its rows, its loss and its gradient do not depend on the others. Knows bases and rows; knows nothing
of descriptions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.update import Update
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, digest_of
from detour.model.loss import IGNORED, completion_loss, hidden_states
from detour.model.rows import encode, padded
from detour.slots.content import Content, per_row

AT_ONCE = 48  # tasks a batch
RATE, CLIP, ROWS = 4e-3, 1.0, 1


def train_many(
    base: Base,
    data: Mapping[str, Sequence[Example]],
    *,
    targets: Sequence[str] | str,
    rank: int = 4,
    alpha: float = 8.0,
    steps: int = 300,
    rows_per_task: int = ROWS,
    learning_rate: float = RATE,
    clip: float = CLIP,
    seed: int = 0,
    watcher: Callable[[int, int, float], None] | None = None,
) -> dict[str, Adapter]:
    """An adapter for every entry of `data`.

    What is minimised is the sum over tasks of each task's mean loss, so that the length of one's
    answers is nothing to the others; gradients are clipped by task. `watcher` is told the step, the
    steps of all, and the loss (nats, the mean over all tokens).

    Raises:
        BaseError: the base has no tokenizer.
        DataError: a row that cannot be used.
        SlotError: targets that name no layer.
        SlotsBusy: somebody else holds the slots.
    """
    if base.tokenizer is None:
        raise BaseError(
            text("{base} has no tokenizer", base=base.name), hint=text("training needs one")
        )
    _ = base.head  # made while the slots are empty
    layers = base.slots.named(targets)
    settings = how_made(targets, rank, alpha, steps, rows_per_task, learning_rate, clip)
    made: dict[str, Adapter] = {}
    names = list(data)
    chunks = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
    for number, chunk in enumerate(chunks):
        factors = _Factors({layer: base.slots.shapes[layer] for layer in layers}, len(chunk), rank,
                           alpha / rank, seed, base.device)  # fmt: skip
        optimiser = torch.optim.AdamW(
            factors.parameters, learning_rate, (0.9, 0.99), weight_decay=0.0
        )
        rows = [encode(base.tokenizer, data[name], base.longest) for name in chunk]
        index = torch.arange(len(chunk), device=base.device).repeat_interleave(rows_per_task)
        for step in range(steps):
            drawn = [
                row
                for name, own in zip(chunk, rows, strict=True)
                for row in random.Random(f"{seed}/{name}/{step}").choices(own, k=rows_per_task)
            ]
            batch = padded(drawn, base.pad_id).to(base.device)
            tokens = (batch.targets != IGNORED).view(len(chunk), -1).sum(-1)  # (tasks)
            rate = learning_rate * min(1.0, (step + 1) / 20) * (1 - step / steps)
            for group in optimiser.param_groups:
                group["lr"] = rate
            with (
                base.hold(factors.contents()),
                base.slots.rows(index, batch.ids.shape[1]),
            ):
                hidden = hidden_states(base.model, batch.ids, batch.mask)
                loss = completion_loss(hidden, base.head, batch.targets, divisor=1)
            loss.backward()
            factors.scale_gradients(1 / tokens)  # of the sum of losses: now of each task's mean
            factors.clip(clip)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if watcher:
                nats = float(loss.detach() / tokens.sum())
                watcher(number * steps + step + 1, len(chunks) * steps, nats)
        for place, name in enumerate(chunk):
            card = Card(
                base_model=base.name,
                data_sha256=digest_of(data[name]),
                seeds=(seed,),
                config={**settings, "together": len(chunk)},
            )
            made[name] = Adapter(factors.updates(place), name, base.fingerprint, card)
    return made


def how_made(
    targets: Sequence[str] | str,
    rank: int,
    alpha: float,
    steps: int,
    rows_per_task: int = ROWS,
    learning_rate: float = RATE,
    clip: float = CLIP,
) -> dict[str, Any]:
    """What the card of an adapter of `train_many` says of its settings, as JSON values."""
    return {
        "targets": targets if isinstance(targets, str) else list(targets),
        "rank": rank,
        "alpha": alpha,
        "steps": steps,
        "rows_per_task": rows_per_task,
        "learning_rate": learning_rate,
        "clip": clip,
    }


class _Factors:
    """Stacked factors: down (tasks, rank, in) alike at first, up (tasks, rank, out) zero."""

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        tasks: int,
        rank: int,
        scale: float,
        seed: int,
        device: torch.device,
    ) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.scale = scale
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        for layer, (out, width) in shapes.items():
            down = (torch.rand(rank, width, generator=generator) * 2 - 1) / math.sqrt(width)
            self.pairs[layer] = (
                nn.Parameter(down.expand(tasks, rank, width).clone().to(device)),
                nn.Parameter(torch.zeros(tasks, rank, out, device=device)),
            )

    @property
    def parameters(self) -> list[nn.Parameter]:
        return [factor for pair in self.pairs.values() for factor in pair]

    def contents(self) -> dict[str, Content]:
        return {layer: per_row(down, up, self.scale) for layer, (down, up) in self.pairs.items()}

    def clip(self, most: float) -> None:
        """The gradient of each task to at most that norm."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
        self.scale_gradients(most / norms.clamp(min=most))

    def scale_gradients(self, by: Float[Tensor, " tasks"]) -> None:
        """The gradient of each task times its own factor."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.grad.mul_(by.view(-1, 1, 1))

    def updates(self, task: int) -> dict[str, Update]:
        def own(factor: Tensor) -> Tensor:
            return factor.detach()[task].cpu().clone()

        return {
            layer: Update(own(down), own(up).mT.contiguous(), self.scale)
            for layer, (down, up) in self.pairs.items()
        }
