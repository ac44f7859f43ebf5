"""How many tokens of a step at once: processor time and memory of a training by that number.

    python benchmarks/train/parts.py [--shape real] [--dtype float32] [--rounds 3] [--json]

Every number runs in a process of its own, in turn: the loop of `detour train` over the shape's
rows, once to warm up and once counted. 1 means row by row, 0 the whole step. Told are medians.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from loop import Loop
from shapes import SHAPES
from way import peak, resident

AT_ONCE = (0, 1024, 512, 256, 1)


def measured(shape: str, dtype: str, tokens: int) -> dict[str, float]:
    """Of a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--shape", shape, "--dtype", dtype,
               "--one", str(tokens)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{tokens} tokens: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def one(shape: str, dtype: str, tokens: int) -> dict[str, float]:
    """Seconds of processor time, and bytes above the loaded model."""
    loop = Loop.of(SHAPES[shape], getattr(torch, dtype))
    loaded = resident()
    loop.fit.tokens = tokens or None
    loop.run()
    began = time.process_time()
    loop.run()
    return {"seconds": time.process_time() - began, "memory": peak() - loaded}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="real")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", type=int, help="one number, in this process")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.one is not None:
        print(json.dumps(one(given.shape, given.dtype, given.one)))
        return
    seen: dict[int, list[dict[str, float]]] = {tokens: [] for tokens in AT_ONCE}
    for _ in range(given.rounds):
        for tokens, told in seen.items():
            told.append(measured(given.shape, given.dtype, tokens))
    table = {
        str(tokens or "all"): {
            key: statistics.median(each[key] for each in told) for key in ("seconds", "memory")
        }
        for tokens, told in seen.items()
    }
    if given.json:
        print(json.dumps({"shape": given.shape, "dtype": given.dtype, "tokens": table}, indent=1))
        return
    for tokens, told in table.items():
        print(f"{tokens:>5} at once: {told['seconds']:.2f} s, {told['memory'] / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
