"""The ratios of `against_peft.py --out FILE` as a picture, with the aims beside them.

python benchmarks/decode/plot.py ratios.jsonl docs/pictures/decode.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

AIMS = {  # (shape, comparison): the ratio that is aimed at
    ("tiny", "PEFT mixed, as generate does it"): 5.0,
    ("0.6b", "PEFT mixed, as generate does it"): 1.8,
    ("0.6b", "PEFT chains of three, one after another"): 6.0,
    ("tiny", "PEFT chains of three, one after another"): 6.0,
    ("tiny", "load and activate"): 20.0,
    ("0.6b", "load and activate"): 20.0,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ratios", type=Path)
    parser.add_argument("picture", type=Path)
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.ratios.read_text("utf-8").splitlines()]
    rows = [row for row in rows if not row["name"].startswith("overhead")]
    labels = [f"{row['run'].split(',')[0]}: {row['name']}" for row in rows]
    figure, axes = plt.subplots(figsize=(9, 0.42 * len(rows) + 1.2), layout="constrained")
    for place, row in enumerate(reversed(rows)):
        left, right = row["median"] - row["low"], row["high"] - row["median"]
        axes.barh(place, row["median"], color="#c2410c", height=0.62)
        axes.errorbar(row["median"], place, xerr=[[max(left, 0)], [max(right, 0)]], color="#111827")
        aim = AIMS.get((row["run"].split(",")[0], row["name"]))
        if aim:
            axes.plot([aim, aim], [place - 0.4, place + 0.4], color="#1d4ed8", linewidth=2)
        axes.text(row["high"] * 1.05, place, f"{row['median']:.1f}×", va="center")
    axes.set_yticks(range(len(rows)), labels[::-1])
    axes.axvline(1, color="#4b5563", linewidth=1)
    axes.set_xscale("log")
    axes.set_xlabel("how many times longer the peer takes (median, quartiles; blue: aimed at)")
    figure.savefig(given.picture, dpi=110)


if __name__ == "__main__":
    main()
