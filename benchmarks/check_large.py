"""`detour check` on a JSONL file of any size: seconds, and the most memory it ever had.

    python benchmarks/check_large.py [--megabytes 1000] [--json]

The rows are made up: a question and its answer of 30 to 60 words out of 5,000, one row in a
thousand repeated, one in ten thousand with an e-mail address. The check runs in a process of its
own, whose peak the system tells.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WORDS = 5000


def write(path: Path, size: int) -> int:
    """Rows until the file has so many bytes; how many."""
    rng = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(rng.choices(letters, k=rng.randint(3, 10))) for _ in range(WORDS)]
    written = rows = 0
    before = ""
    with path.open("w", encoding="utf-8") as stream:
        while written < size:
            asked = " ".join(rng.choices(words, k=rng.randint(10, 20)))
            told = " ".join(rng.choices(words, k=rng.randint(20, 40)))
            if rng.random() < 1e-4:
                told += f" {words[rows % WORDS]}@example.org"
            line = json.dumps({"prompt": f"{asked}?", "completion": f"{told}."}) + "\n"
            line = before if before and rng.random() < 1e-3 else line
            before = line
            written += stream.write(line)
            rows += 1
    return rows


def main() -> None:
    """Write, check, tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.jsonl"
        rows = write(path, given.megabytes * 10**6)
        began = time.monotonic()
        command = [sys.executable, "-m", "detour", "check", str(path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.monotonic() - began
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        report = json.loads(done.stdout)
    told = {
        "rows": rows,
        "checked": report["rows"],
        "seconds": round(seconds, 1),
        "peak_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "verdict": report["verdict"],
        "findings": {one["code"]: one["rows"] for one in report["findings"]},
        "rows_looked_at_closely": report["sampled"],
    }
    if given.json:
        print(json.dumps(told, indent=1))
        return
    print(f"{rows:,} rows: {seconds:.0f} s, {told['peak_bytes'] / 1e6:.0f} MB at most")
    print(told["findings"])


if __name__ == "__main__":
    main()
