"""Every fast path of training beside its readable reference, on a grid of shapes.

    python benchmarks/train/references.py [--json]

Forward and backward, processor time of one thread. Above 1 the fast path is faster; quoted are the
median of five pairs and the quartiles. What is compared:

    packing    rows in one line / rows padded to the longest
    head       the head on learned tokens / on all tokens
    products   an update's products in the type that is chosen / in fp32
    rows       the own autograd function of factors that differ by row / torch's autograd
    attention  plain products in bfloat16 / torch's kernel
    prefix     states kept of the lower half of the layers / all layers run
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from shapes import ALPHA, RANK, SHAPES, TARGETS
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from way import plain_low_rank

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interleaved import Ratio, compare

from detour.model.attention import attend
from detour.model.base import Base
from detour.model.packing import Forward
from detour.model.rows import Batch, Encoded, padded
from detour.slots.arithmetic import low_rank
from detour.training.config import make_config
from detour.training.kinds import factors_of
from detour.training.objective import answer_loss

PAIRS = 5
SLOWER = 1 / 1.05
LAYERS = {"tiny": 4, "real": 2}
ROOM = 2**30


@dataclass(frozen=True)
class Measured:
    """One point of the grid."""

    path: str
    shape: str
    ratio: Ratio


def batch(rows: int, lengths: tuple[int, int], share: float, vocabulary: int) -> Batch:
    """Rows of lengths drawn evenly, of each the last share learned."""
    rng = random.Random(0)
    found: list[Encoded] = []
    for _ in range(rows):
        length = rng.randint(*lengths)
        start = length - max(1, round(share * length))
        ids = [rng.randrange(2, vocabulary) for _ in range(length)]
        found.append(Encoded(ids, [place >= start for place in range(length)]))
    return padded(found, 0)


def trained(
    base: Base, forward: Forward, given: Batch, everywhere: bool = False, layers: str = r"\d+"
) -> Callable[[], None]:
    """Forward and backward with factors in the layers that are named."""
    pattern = rf".*layers\.({layers})\..*({'|'.join(TARGETS)})"
    config = make_config({"rank": RANK, "alpha": ALPHA, "targets": pattern})
    factors = factors_of(base.slots, base.slots.named(config.targets), config, base.device)
    head = base.head

    def run() -> None:
        with base.hold(factors.contents()):
            if everywhere:
                told = base.model(input_ids=given.ids, attention_mask=given.mask).logits.float()
                loss = nn.functional.cross_entropy(told.flatten(0, 1), given.targets.flatten())
            else:
                loss = answer_loss(forward, head, given)
            loss.backward()

    return run


def of_models() -> Iterator[Measured]:
    """Packing, head and prefix."""
    for name, layers in LAYERS.items():
        shape = replace(SHAPES[name], layers=layers)
        base = Base.from_model(shape.model(torch.float32))
        packed, plain = base.forward, copy(base.forward)
        plain.packs = False
        for rows in (2, 8, 16):
            for lengths in ((20, 24), (60, 64), (20, 256)):
                given = batch(rows, lengths, 0.4, shape.vocabulary)
                where = f"{name}, {rows} rows of {lengths[0]} to {lengths[1]} tokens"
                yield Measured("packing", where, compare(
                    trained(base, packed, given), trained(base, plain, given), PAIRS))  # fmt: skip
        for share in (0.05, 0.4, 1.0):
            given = batch(8, (128, 128), share, shape.vocabulary)
            yield Measured("head", f"{name}, {share:.0%} of 8 × 128 tokens learned", compare(
                trained(base, packed, given), trained(base, packed, given, everywhere=True),
                PAIRS))  # fmt: skip
        upper = "|".join(str(place) for place in range(layers // 2, layers))
        for rows in (2, 16):
            given = batch(rows, (20, 256), 0.4, shape.vocabulary)
            lines = [i[m.bool()] for i, m in zip(given.ids, given.mask, strict=True)]
            adapted = base.slots.named(rf".*layers\.({upper})\..*({'|'.join(TARGETS)})")
            kept = packed.remembering(adapted, lines, ROOM)
            assert kept.prefix
            yield Measured("prefix", f"{name}, {rows} rows", compare(
                trained(base, kept, given, layers=upper),
                trained(base, packed, given, layers=upper), PAIRS))  # fmt: skip


def differentiated(
    how: Callable[..., Tensor], given: tuple[Tensor, ...], upstream: Tensor, times: int
) -> Callable[[], None]:
    """Forward and backward, so many times."""

    def work() -> None:
        for _ in range(times):
            torch.autograd.grad(how(*given), given, upstream)

    return work


def of_updates() -> Iterator[Measured]:
    """Of one adapter for all rows."""
    for dtype in (torch.float32, torch.bfloat16):
        for tokens in (16, 256, 2048):
            for width in (256, 1024, 4096):
                for rank in (4, 8, 64):
                    x, y = (torch.randn(tokens, width).to(dtype).requires_grad_() for _ in range(2))
                    down, up = (torch.randn(rank, width).requires_grad_() for _ in range(2))
                    upstream = torch.randn(tokens, width).to(dtype)
                    times = max(1, 2**24 // (tokens * width * 8))

                    where = f"{tokens} tokens, {width} wide, rank {rank}, {str(dtype)[6:]}"
                    yield Measured(
                        "products",
                        where,
                        compare(
                            *(
                                differentiated(how, (y, x, down, up), upstream, times)
                                for how in (low_rank, plain_low_rank)
                            ),
                            PAIRS,
                        ),
                    )


def of_rows() -> Iterator[Measured]:
    """Factors of each row its own, as a hypernetwork makes them."""
    for dtype in (torch.float32, torch.bfloat16):
        for rows in (4, 16):
            for tokens in (16, 64, 256):
                for width in (256, 1024):
                    x, y = (torch.randn(rows, tokens, width).to(dtype).requires_grad_()
                            for _ in range(2))  # fmt: skip
                    down, up = (torch.randn(rows, 8, width).requires_grad_() for _ in range(2))
                    upstream = torch.randn(rows, tokens, width).to(dtype)
                    times = max(1, 2**24 // (rows * tokens * width * 8))

                    where = f"{rows} rows of {tokens} tokens, {width} wide, {str(dtype)[6:]}"
                    yield Measured(
                        "rows",
                        where,
                        compare(
                            *(
                                differentiated(how, (y, x, down, up), upstream, times)
                                for how in (low_rank, plain_low_rank)
                            ),
                            PAIRS,
                        ),
                    )


def of_attention() -> Iterator[Measured]:
    """Attention in half precision; in single precision torch's kernel is what is used."""
    module = nn.Module()
    module.is_causal = True  # type: ignore[assignment]
    for heads, groups, width in ((8, 8, 32), (16, 8, 128)):
        module.num_key_value_groups = heads // groups  # type: ignore[assignment]
        for rows, tokens in ((1, 32), (1, 128), (1, 512), (8, 64), (1, 1024)):
            query, key, value = (
                torch.randn(rows, n, tokens, width).bfloat16().requires_grad_()
                for n in (heads, groups, groups)
            )
            upstream = torch.randn(rows, tokens, heads, width).bfloat16()

            def run(
                how: Callable[..., tuple[Tensor, None]],
                given: tuple[Tensor, ...] = (query, key, value),
                upstream: Tensor = upstream,
            ) -> Callable[[], None]:
                def work() -> None:
                    for _ in range(4):
                        torch.autograd.grad(how(module, *given, None)[0], given, upstream)

                return work

            where = f"{rows} × {tokens} tokens, {heads} heads in {groups} groups, {width} wide"
            yield Measured(
                "attention", where, compare(run(attend), run(sdpa_attention_forward), PAIRS)
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    found: list[Measured] = []
    for part in (of_updates, of_rows, of_attention, of_models):
        for one in part():
            found.append(one)
            print(f"{one.path}: {one.shape}: {one.ratio}", file=sys.stderr, flush=True)
    slower = [one for one in found if one.ratio.median < SLOWER]
    if given.json:
        print(json.dumps([{"path": o.path, "shape": o.shape, **vars(o.ratio)} for o in found]))
    print(f"{len(slower)} of {len(found)} more than 5 % slower than the reference")
    for one in slower:
        print(f"{one.path}: {one.shape}: {one.ratio}")


if __name__ == "__main__":
    main()
