"""How much memory a training takes on one device, by a formula for each part.

With N parameters of the base, e bytes for each (4 in float32, 2 in bfloat16), P parameters of the
adapter, T tokens in memory at once, K numbers that a token leaves for the backward and L decoder
layers of width h:

    part          LoRA        QLoRA                       full, float32   full, mixed precision
    weights       e N + 4 P   e (N − M) + 9/16 M + 4 P    4 N             2 N
    gradients     4 P         4 P                         4 N             2 N
    optimizer     8 P         8 P                         8 N             12 N
    other         4 P         4 P + e of one layer        4 N

M are the parameters that bitsandbytes packs: half a byte for each, and 4 bytes for every block of
64 (Dettmers et al. 2023, arXiv:2305.14314, without their second quantisation). AdamW keeps two
moments; mixed precision keeps weights in float32 beside them, 16 bytes a parameter in all
(Rajbhandari et al. 2020, arXiv:1910.02054). "Other" are the best weights that are put aside, the
weight that is unpacked at the moment, and what the device's libraries take.

    activations = f (e K + (8 − 2 e) L h) T + max(S, e K₁ T) + e h T
    with layers computed again = e L h T + max(S, 2 e K₁ T) + e h T
    logits S = e V min(T, 1024) + 8 min(V min(T, 1024), 2²⁴)

f is the share of the layers from the lowest adapted one on. Two norms a layer keep their input in
float32. K₁ is the K of the largest block, whose gradients are formed in the backward, when the
head's are gone; V is the vocabulary. Fused attention keeps no scores (Dao et al. 2022,
arXiv:2205.14135). The head sees 1,024 tokens at a time, whose logits become their gradient in
place, few rows at a time in float32; of a head that learns, or whose logits are capped, they are 12
V bytes a token: themselves, their softmax and its gradient. Elsewhere these of all T tokens usually
exist at once. "Other" has also what the allocator holds
besides, a share of the activations that depends on the machine.

Over several devices weights, gradients and optimiser are split evenly (FSDP, ZeRO-3), and two
blocks and what is outside of blocks are there as a whole. Knows sizes; knows no machines.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from detour.training.estimate.sizes import Sizes

Method = Literal["lora", "qlora", "full"]
METHODS: tuple[Method, ...] = ("lora", "qlora", "full")
MEMORY_ERROR = 0.25  # what these formulas may be off by, as a share
CHUNK = 1024  # tokens whose logits exist at once, as in `model/loss.py`
PACKED = 0.5 + 4 / 64  # bytes of a 4-bit parameter with its share of the scale of 64
LOGIT = 8  # bytes of a logit whose softmax is taken: itself and its logarithm, in float32
TOGETHER = 2**24  # of which so many exist at once


@dataclass(frozen=True)
class Memory:
    """Bytes on one device."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    other: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.other

    def to_json(self) -> dict[str, int]:
        """Whole bytes, and their sum."""
        parts = {
            "weights": round(self.weights),
            "gradients": round(self.gradients),
            "optimizer": round(self.optimizer),
            "activations": round(self.activations),
            "other": round(self.other),
        }
        return {**parts, "total": sum(parts.values())}


@dataclass(frozen=True)
class Layout:
    """How a training lies in memory.

    Attributes:
        rows: that are in memory at once on one device.
        tokens: of each of them.
        checkpointing: layers are computed again in the backward.
        shards: devices that weights, gradients and optimiser are split over.
    """

    rows: int
    tokens: int
    checkpointing: bool = False
    shards: int = 1


def memory(
    sizes: Sizes,
    method: Method,
    number: int,
    layout: Layout,
    context: float = 0.0,
    slack: float = 0.0,
) -> Memory:
    """What one device holds at most.

    Args:
        sizes: of the model.
        method: how it is trained.
        number: bytes of a number of the base: 4 for float32, 2 for bfloat16.
        layout: what is in memory at once.
        context: bytes that the device's libraries take.
        slack: what the allocator holds beside the activations, as a share of them.
    """
    kept = _states(sizes, method, number)
    active = activations(sizes, method, number, layout)
    shares = {part: size / layout.shards for part, size in kept.items()}
    return Memory(
        weights=shares["weights"] + (_gathered(sizes, method, number) if layout.shards > 1 else 0),
        gradients=shares["gradients"],
        optimizer=shares["optimizer"],
        activations=active,
        other=shares["best"]
        + context
        + slack * active
        + (_unpacked(sizes, number) if method == "qlora" else 0),
    )


def weight_bytes(sizes: Sizes, method: Method, number: int) -> float:
    """Of the base's own parameters."""
    packed = sizes.packable if method == "qlora" else 0
    return packed * PACKED + (sizes.parameters - packed) * number


def activations(sizes: Sizes, method: Method, number: int, layout: Layout) -> float:
    """Bytes that the forward leaves for the backward, and what the backward needs to work."""
    tokens = layout.rows * layout.tokens
    seen = min(tokens, CHUNK)
    in_place = sizes.plain_head and method != "full"
    head = logits(sizes, number, seen) if in_place else logits_elsewhere(sizes, seen)
    block = number * sizes.kept_most * tokens
    hidden = number * sizes.width * tokens
    if layout.checkpointing:
        return sizes.blocks * hidden + max(head, 2 * block) + hidden
    learned = 1.0 if method == "full" else sizes.learned
    norms = 2 * (4 - number) * sizes.width * sizes.blocks
    return learned * (number * sizes.kept + norms) * tokens + max(head, block) + hidden


def judging(sizes: Sizes, number: int, tokens: int) -> float:
    """Bytes that a forward of so many tokens takes where nothing is kept: a block, what goes from
    block to block, and the logits of a chunk.
    """
    flowing = number * (sizes.kept_most + 2 * sizes.width) * tokens
    return flowing + logits(sizes, number, min(tokens, CHUNK))


def logits(sizes: Sizes, number: int, tokens: int) -> float:
    """Bytes of the logits of so many tokens, with what their loss needs."""
    count = sizes.vocabulary * tokens
    return number * count + LOGIT * min(count, TOGETHER)


def logits_elsewhere(sizes: Sizes, tokens: int) -> float:
    """The same where all exist at once, in float32, with their softmax and its gradient."""
    return 12 * sizes.vocabulary * tokens


def _states(sizes: Sizes, method: Method, number: int) -> dict[str, float]:
    """Bytes of what lasts from step to step."""
    base = weight_bytes(sizes, method, number)
    if method != "full":
        own = 4 * sizes.adapter  # factors are float32 whatever the base is
        return {"weights": base + own, "gradients": own, "optimizer": 2 * own, "best": own}
    if number == 4:
        return {"weights": base, "gradients": base, "optimizer": 2 * base, "best": base}
    masters = 4 * sizes.parameters
    return {"weights": base, "gradients": base, "optimizer": 3 * masters, "best": 0}


def _gathered(sizes: Sizes, method: Method, number: int) -> float:
    """Bytes that FSDP holds as a whole: a block, the next one, and embeddings, norms, head.

    Where all weights learn, a block's gradients too.
    """
    outside = sizes.parameters - sizes.block * sizes.blocks
    block = sizes.block * (PACKED if method == "qlora" else number)
    return (3 if method == "full" else 2) * block + max(0, outside) * number


def _unpacked(sizes: Sizes, number: int) -> float:
    """Bytes of a layer's weight while it is used: no more than half of a block."""
    return sizes.block * number / 2
