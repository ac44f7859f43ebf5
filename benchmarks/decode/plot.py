"""The ratios of `against_peft.py --out FILE` as a picture, with what is demanded beside them.

python benchmarks/decode/plot.py ratios.jsonl docs/pictures/decode.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

WANTED = {  # (shape, comparison): the ratio demanded
    ("tiny", "PEFT mixed"): 5.0,
    ("0.6b", "PEFT mixed"): 1.8,
    ("0.6b", "PEFT chains of three, one after another"): 6.0,
    ("tiny", "PEFT chains of three, one after another"): 6.0,
    ("tiny", "load and activate"): 20.0,
    ("0.6b", "load and activate"): 20.0,
    ("0.6b", "overhead of decoding: one adapter"): 1.15,
    ("0.6b", "overhead of decoding: a chain of three"): 1.4,
}


def draw(axes: Axes, rows: list[dict[str, Any]], title: str) -> None:
    """One bar a row, quartiles as a line, the demand as a blue mark."""
    for place, row in enumerate(reversed(rows)):
        around = [[row["median"] - row["low"]], [row["high"] - row["median"]]]
        axes.barh(place, row["median"], color="#c2410c", height=0.62)
        axes.errorbar(row["median"], place, xerr=around, color="#111827", capsize=3)
        wanted = WANTED.get((row["shape"], row["name"]))
        if wanted:
            axes.plot([wanted] * 2, [place - 0.42, place + 0.42], color="#1d4ed8", linewidth=2.5)
        axes.text(row["high"] * 1.06, place, f"{row['median']:.2f}", va="center")
    axes.set_yticks(range(len(rows)), [f"{r['shape']}: {r['name']}" for r in reversed(rows)])
    axes.axvline(1, color="#4b5563", linewidth=1)
    axes.set_title(title, loc="left", fontsize=10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratios", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.ratios.read_text("utf-8").splitlines()]
    for row in rows:
        row["shape"] = row["run"].split(",")[0]
    against = [row for row in rows if not row["name"].startswith("overhead")]
    over = [row for row in rows if row["name"].startswith("overhead")]
    figure, (first, second) = plt.subplots(
        2, 1, figsize=(9.5, 0.36 * len(rows) + 1.9), layout="constrained",
        height_ratios=[len(against), len(over)],
    )  # fmt: skip
    draw(first, against, "PEFT's time over Detour's (blue: demanded at least)")
    first.set_xscale("log")
    first.set_xlim(0.8, 2 * max(row["high"] for row in against))
    draw(second, over, "Detour's time with adapters over the base's (blue: demanded at most)")
    second.set_xlim(0.8, 1.15 * max(row["high"] for row in over))
    figure.savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()
