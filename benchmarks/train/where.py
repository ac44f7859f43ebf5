"""Where a training step's time goes, and what is left to the machine's limit.

    python benchmarks/train/where.py [--shape tiny|real|0.6b] [--dtype bfloat16] [--json]

torch's profiler tells the processor time of every operator over some steps of the loop of `detour
train`; operators are sorted by what they are for, told from their names and shapes. The limit is
what the operations that `training.cost` counts would take at the rate of a large product here.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from typing import Any

import torch
from loop import Loop
from run import cpu, gemm_peak
from shapes import RANK, SHAPES
from torch.profiler import ProfilerActivity, profile

from detour.training.cost import counted, operations
from detour.training.estimate.sizes import adapted_layers

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "linear", "matmul", "addmv", "mv", "dot")
MOVED = ("copy", "_to_copy", "cat", "clone", "contiguous", "split", "index", "embedding", "gather",
         "fill", "zero", "scatter", "slice", "view", "empty", "select", "as_strided")  # fmt: skip


def part_of(name: str, shapes: list[Any], vocabulary: int) -> str:
    """What an operator is for."""
    plain = name.removeprefix("aten::").removeprefix("mkldnn::").strip("_")
    numbers = {n for shape in shapes if isinstance(shape, list) for n in shape}
    if any(word in name for word in ("flash", "scaled_dot_product", "_Attention")):
        return "attention"
    if "Adam" in name or "foreach" in name:
        return "optimiser"
    if vocabulary in numbers:
        return "head and loss"
    if any(plain.startswith(word) for word in PRODUCTS):
        if plain.startswith(("bmm", "baddbmm")):
            return "attention"
        return "products of the adapter" if RANK in numbers else "products of the base"
    if any(plain.startswith(word.strip("_")) for word in MOVED):
        return "copies and casts"
    return "pointwise: norms, rotations, activations, sums"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="real")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--operators", type=int, default=0, help="print so many of the costliest")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    shape, dtype = SHAPES[given.shape], getattr(torch, given.dtype)
    loop = Loop.of(shape, dtype)
    base, train, adapted = loop.base, loop.run, adapted_layers(loop.base, loop.config)
    train()  # what is made once
    peak = gemm_peak(dtype)
    seconds: list[float] = []
    for _ in range(3):
        began = time.process_time()
        with counted(base) as work:
            train()
        seconds.append(time.process_time() - began)
        flops = operations(base, adapted, work)
    took = sorted(seconds)[1]
    peak = max(peak, gemm_peak(dtype))
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        train()
    parts: dict[str, float] = defaultdict(float)
    costly: dict[tuple[str, str], float] = defaultdict(float)
    for event in seen.key_averages(group_by_input_shape=True):
        part = part_of(event.key, event.input_shapes, shape.vocabulary)
        parts[part] += event.self_cpu_time_total
        costly[event.key, part] += event.self_cpu_time_total
    whole = sum(parts.values())
    shares = {part: own / whole for part, own in sorted(parts.items(), key=lambda p: -p[1])}
    told = {
        "shape": shape.name, "dtype": given.dtype, "seconds": took, "flops": flops,
        "share_of_peak": flops / took / peak, "shares": shares,
        "machine": {"cpu": cpu(), "threads": given.threads, "torch": torch.__version__,
                    "gemm_peak": peak},
    }  # fmt: skip
    if given.json:
        print(json.dumps(told, indent=1))
        return
    print(f"{took:.2f} s, {flops / took / 1e9:.1f} of {peak / 1e9:.1f} GFLOP/s: "
          f"{told['share_of_peak']:.0%} of the peak")  # fmt: skip
    for part, share in shares.items():
        print(f"{share:6.1%}  {part}")
    for (name, part), own in sorted(costly.items(), key=lambda c: -c[1])[: given.operators]:
        print(f"{own / whole:6.1%}  {name} ({part})")


if __name__ == "__main__":
    main()
