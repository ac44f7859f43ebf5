"""How a training step's cost grows with tokens and with adapted layers.

    python benchmarks/train/growth.py [--shape tiny|real] [--json] [--picture FILE.png]

Rows of 128 tokens, all of them learned, LoRA of rank 8 in all linear layers of the upper so many
decoder layers; forward and backward, no optimiser. Processor seconds of one thread, medians of five
turns through all points in shuffled order, so that the machine's drift hits all alike. The line is
the least squares one; told is the largest distance from it, as a share of the largest cost.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shapes import ALPHA, RANK, SHAPES, TARGETS, Shape

from detour.model.base import Base
from detour.model.rows import Encoded, padded
from detour.training.config import make_config
from detour.training.kinds import factors_of
from detour.training.objective import answer_loss

LENGTH = 128  # tokens of a row
ROWS = (1, 2, 4, 8, 16, 24, 32)
LAYERS = {"tiny": 6, "real": 12}  # decoder layers of the model
FEW = 8  # rows of a step while adapted layers vary
TURNS = 5
DTYPE = torch.float32


@dataclass(frozen=True)
class Grown:
    """Costs along one axis, and the line through them."""

    axis: str
    places: list[float]
    seconds: list[float]
    slope: float
    offset: float
    off_line: float


def step(base: Base, upper: int, rows: int, vocabulary: int) -> Callable[[], None]:
    """Forward and backward of so many rows with so many upper layers adapted."""
    layers = base.model.config.num_hidden_layers
    chosen = "|".join(str(layers - 1 - place) for place in range(upper))
    pattern = rf".*layers\.({chosen})\..*({'|'.join(TARGETS)})"
    config = make_config({"rank": RANK, "alpha": ALPHA, "targets": pattern})
    factors = factors_of(base.slots, base.slots.named(config.targets), config, base.device)
    rng = random.Random(rows)
    ids = [[rng.randrange(2, vocabulary) for _ in range(LENGTH)] for _ in range(rows)]
    batch = padded([Encoded(row, [True] * LENGTH) for row in ids], 0)
    forward, head = base.forward, base.head

    def run() -> None:
        with base.hold(factors.contents()):
            answer_loss(forward, head, batch).backward()

    return run


def grown(axis: str, works: dict[float, Callable[[], None]], seed: int = 0) -> Grown:
    """Measure every point in turns and lay a line through the medians."""
    seen: dict[float, list[float]] = {place: [] for place in works}
    rng = random.Random(seed)
    for work in works.values():
        work()
    for _ in range(TURNS):
        order = list(works)
        rng.shuffle(order)
        for place in order:
            began = time.process_time()
            works[place]()
            seen[place].append(time.process_time() - began)
    places = sorted(seen)
    seconds = [statistics.median(seen[place]) for place in places]
    slope, offset = np.polyfit(places, seconds, 1)
    off = max(abs(s - slope * p - offset) for p, s in zip(places, seconds, strict=True))
    return Grown(axis, places, seconds, float(slope), float(offset), off / max(seconds))


def draw(found: Sequence[Grown], path: Path) -> None:
    """Points and lines, one axis beside the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, parts = plt.subplots(1, len(found), figsize=(9.5, 3.4), layout="constrained")
    for axes, one in zip(parts, found, strict=True):
        ends = [0, max(one.places)]
        axes.plot(ends, [one.offset + one.slope * end for end in ends], color="#9ca3af")
        axes.plot(one.places, one.seconds, "o", color="#c2410c")
        axes.set(xlabel=one.axis, xlim=(0, None), ylim=(0, None))
    parts[0].set_ylabel("processor seconds of a step")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(LAYERS), default="tiny")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shape: Shape = replace(SHAPES[given.shape], layers=LAYERS[given.shape])
    base = Base.from_model(shape.model(DTYPE))
    made = partial(step, base, vocabulary=shape.vocabulary)
    found = [
        grown("tokens of a step", {n * LENGTH: made(shape.layers, n) for n in ROWS}),
        grown("adapted layers", {k: made(k, FEW) for k in range(1, shape.layers + 1)}),
    ]
    if given.picture:
        draw(found, given.picture)
    if given.json:
        told: dict[str, Any] = {one.axis: vars(one) for one in found}
        print(json.dumps({"shape": given.shape, "dtype": str(DTYPE), **told}, indent=1))
        return
    for one in found:
        print(f"{one.axis}: {one.slope * 1e3:.3f} ms each + {one.offset * 1e3:.1f} ms, "
              f"at most {one.off_line:.1%} off the line")  # fmt: skip


if __name__ == "__main__":
    main()
