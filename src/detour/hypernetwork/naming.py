"""Naming: what a description is made of, told by its encoding before anything is generated.

The encoder learns the names of primitives beside (and before) the updates themselves: an auxiliary
loss, and what a generator later says it understood. Knows encodings and numbers of primitives;
knows no base and no layers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import log_softmax

from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.reading import Library

LINES = 4  # about the learning of names
Told = tuple[int, tuple[int, ...]]  # a description's number, and the primitives that it names


def learn_names(
    network: Hypernetwork,
    library: Library,
    drawn: Callable[[random.Random, int], Sequence[Told]],
    *,
    steps: int,
    noise: float,
    batch_size: int = 256,
    seed: int = 0,
    teller: Callable[[str], None] | None = None,
) -> float:
    """Teach the encoder to name primitives before anything is generated; returns the last loss.

    It costs no base: a thousand descriptions a second instead of a hundred. `drawn` gives
    descriptions at random; their vectors get noise of that share.
    """
    if network.naming is None or not steps:
        return 0.0
    parameters = [*network.encoder.parameters(), *network.naming.parameters()]
    device = parameters[0].device
    optimiser = torch.optim.AdamW(parameters, 2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    last = 0.0
    network.train()
    for step in range(steps):
        rng = random.Random(f"names/{seed}/{step}")
        told = drawn(rng, batch_size)
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        described = library.picked([number for number, _ in told]).noisy(noise, generator)
        encoded, there = network.encoder(described.to(device))
        loss = named(network, encoded, there, [primitives for _, primitives in told])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        last = float(loss.detach())
        if teller and (step + 1) % max(1, steps // LINES) == 0:
            teller(f"names: {step + 1} of {steps} steps, {last:.3f} nats")
    return last


def named(
    network: Hypernetwork,
    encoded: Float[Tensor, "tasks parts task_width"],
    there: Bool[Tensor, "tasks parts"],
    wanted: Sequence[tuple[int, ...]],
) -> Float[Tensor, ""]:
    """How badly the encodings are named, in nats a primitive; 0 for a network without names."""
    if network.naming is None:
        return encoded.new_zeros(())
    return naming_loss(log_softmax(network.naming(encoded), -1), there, wanted)


def naming_loss(
    said: Float[Tensor, "tasks parts primitives"],
    there: Bool[Tensor, "tasks parts"],
    wanted: Sequence[tuple[int, ...]],
) -> Float[Tensor, ""]:
    """Nats a primitive, of log-probabilities.

    Part by part where a description has one for each primitive; else all primitives of the first.
    """
    counts: list[int] = there.sum(1).tolist()
    places = [
        (row, part if counts[row] == len(primitives) else 0, primitive)
        for row, primitives in enumerate(wanted)
        for part, primitive in enumerate(primitives)
    ]
    if not places:
        return said.new_zeros(())
    rows, parts, primitives = zip(*places, strict=True)
    return -said[list(rows), list(parts), list(primitives)].mean()
