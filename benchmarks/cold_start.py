"""How long a command takes before it does anything, over the imports that it cannot avoid.

Each figure is the median of several whole processes, in seconds of wall time. Run on an idle
machine: `python benchmarks/cold_start.py`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time

RUNS = 5
COMMANDS = {
    "python alone": ["-c", "pass"],
    "import click": ["-c", "import click"],
    "import detour": ["-c", "import detour"],
    "detour --help": ["-m", "detour", "--help"],
    "import torch": ["-c", "import torch"],
    "import a causal model of transformers": ["-c", "from transformers import LlamaForCausalLM"],
    "from detour import Base": ["-c", "from detour import Base"],
    "detour list": ["-m", "detour", "list"],
    "detour generate": ["-m", "detour", "generate", "Answer like a pirate.", "-o", "{folder}"],
}


def seconds(arguments: list[str]) -> float:
    """Median wall time of one process."""
    times: list[float] = []
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            told = [argument.replace("{folder}", f"{folder}/made") for argument in arguments]
            began = time.perf_counter()
            subprocess.run([sys.executable, *told], check=True, capture_output=True)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Print one line per command."""
    for name, arguments in COMMANDS.items():
        print(f"{seconds(arguments):8.3f} s  {name}", flush=True)


if __name__ == "__main__":
    main()
