"""Training a LoRA: Detour beside TRL, transformers' Trainer with PEFT, and itself without a trick.

    pip install trl==1.16.0
    python benchmarks/train/run.py [--shape tiny|real|0.6b] [--rounds 5] [--ablation] [--json]

Every way trains in a process of its own (`way.py`), in turn, so that the machine's drift hits all.
A ratio is a peer's seconds of processor time over ours in the same round; quoted are the median and
the quartiles. Memory is the peak above the loaded model.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from way import DETOUR

PEERS = ["trl", "trl best", "trl best fp32", "trainer", "trainer fp32"]
GEMM = 1024  # rows, columns and depth of the product that the machine's peak is measured with


def measured(way: str, shape: str, threads: int) -> dict[str, float]:
    """One process; its figures."""
    command = [sys.executable, str(Path(__file__).parent / "way.py"), way, "--shape", shape,
               "--threads", str(threads)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{way}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def gemm_peak(dtype: torch.dtype) -> float:
    """Multiplications and additions a second of processor time, of large products."""
    a, b = torch.randn(GEMM, GEMM).to(dtype), torch.randn(GEMM, GEMM).to(dtype)
    layer = torch.nn.functional.linear
    best = 0.0
    for _ in range(8):
        began = time.process_time()
        for _ in range(8):
            layer(a, b)
        best = max(best, 8 * 2 * GEMM**3 / (time.process_time() - began))
    return best


def spread(values: list[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, _, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
    return {"median": statistics.median(values), "low": low, "high": high}


def cpu() -> str:
    """The processor's name, where the system tells it."""
    told = Path("/proc/cpuinfo")
    lines = told.read_text().splitlines() if told.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="real")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--ways", nargs="*", help="instead of the peers")
    parser.add_argument("--ours", default="detour", choices=list(DETOUR))
    parser.add_argument("--ablation", action="store_true", help="beside itself without a trick")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ablated = [name for name in DETOUR if name != given.ours]
    ways = given.ways or (ablated if given.ablation else PEERS)
    seen: dict[str, list[dict[str, float]]] = {way: [] for way in (given.ours, *ways)}
    for number in range(given.rounds):
        order = list(seen) if number % 2 == 0 else list(reversed(seen))
        for way in order:
            figures = measured(way, given.shape, given.threads)
            seen[way].append(figures)
            print(f"round {number + 1}, {way}: {figures['seconds']:.2f} s", file=sys.stderr)
    ours = seen[given.ours]
    told: dict[str, Any] = {
        "shape": given.shape,
        "ratios": {
            way: spread([b["seconds"] / a["seconds"] for a, b in zip(ours, seen[way], strict=True)])
            for way in ways
        },
        "memory_ratios": {
            way: spread([a["memory"] / b["memory"] for a, b in zip(ours, seen[way], strict=True)])
            for way in ways
        },
        "seconds": {way: statistics.median(f["seconds"] for f in seen[way]) for way in seen},
        "memory_bytes": {way: statistics.median(f["memory"] for f in seen[way]) for way in seen},
        "tokens": ours[0]["tokens"],
        "machine": {
            "cpu": cpu(), "threads": given.threads, "torch": torch.__version__,
            "transformers": transformers.__version__,
            "gemm_peak_fp32": gemm_peak(torch.float32),
            "gemm_peak_bf16": gemm_peak(torch.bfloat16),
        },
    }  # fmt: skip
    if given.json:
        print(json.dumps(told, indent=1))
        return
    for way in ways:
        ratio, memory = told["ratios"][way], told["memory_ratios"][way]
        print(
            f"{way}: {ratio['median']:.2f}x [{ratio['low']:.2f}, {ratio['high']:.2f}], "
            f"our memory {memory['median']:.2f} of its"
        )


if __name__ == "__main__":
    main()
