"""The tables and curves of docs/hypernetworks.md, from the figures of all runs.

    python -m recipes.hypernetwork.tables --picture curves.png

Prints Markdown; a cell is the mean over the seeds that are there, with the lowest and the highest.
Reads `figures/`; judges nothing.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from detour.files import write_bytes_atomically
from detour.measure.statistics import wilson
from recipes.hypernetwork.experiment import FIGURES, UNKNOWN, Run, by_split, pooled, runs

SPLITS = {
    "combinations, new frames": "held-out tasks of 2, en: new frames",
    "new words": "held-out tasks of 2, en: new words",
    "riddles": "held-out tasks of 2, en: new words, riddles",
    "German, new frames": "held-out tasks of 2, de: new frames",
    "seen tasks, new frames": "seen tasks, en: new frames",
}
CURVED = "held-out tasks of 2, en: new frames"


def stem(run: Run) -> str:
    """A run's name without its seed: runs that differ in nothing else."""
    return run.name.removesuffix(f"-{run.seed}")


def read(figures: Path) -> dict[str, list[dict[str, Any]]]:
    """The figures of all runs that have some, by stem."""
    found: dict[str, list[dict[str, Any]]] = {}
    for run in runs():
        path = figures / f"{run.name}.json"
        if path.exists():
            found.setdefault(stem(run), []).append(json.loads(path.read_text("utf-8")))
    return found


def cell(values: Sequence[float]) -> str:
    """Such as ".71 [.69, .72]"; one value alone has no spread."""
    if not values:
        return "–"
    told = short(mean(values))
    return f"{told} [{short(min(values))}, {short(max(values))}]" if len(values) > 1 else told


def short(value: float) -> str:
    """Two digits without the zero before the point."""
    return f"{value:.2f}".replace("0.", ".", 1) if value < 1 else "1.00"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def of_runs(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """A line a kind of run."""
    rows: list[list[str]] = []
    for name, figures in found.items():
        splits = [by_split(one) for one in figures]
        seeds = str(len(figures))
        row = [cell([s[split] for s in splits if split in s]) for split in SPLITS.values()]
        rows.append([name, *row, seeds])
    return table(["run", *SPLITS, "seeds"], rows)


def of_primitives(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Tasks with a primitive that never trained, alone and with one that did."""
    rows: list[list[str]] = []
    for count, name in ((1, "the notion alone"), (2, "with a known one")):
        for language in ("en", "de"):
            split = f"held-out tasks of {count}, {language}: new frames"
            values = [
                one["arms"]["generated"][split]["exact_match"]
                for one in found.get("primitives", ())
                if split in one["arms"]["generated"]
            ]
            rows.append([name, language, cell(values)])
    return table([f"never trained: {', '.join(UNKNOWN)}", "language", "exact match"], rows)


def of_regimes(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Tasks that the prompt hides, beside tasks that it says: what the sentence is worth."""
    lines = {
        "hidden: adapter from the right sentence": ("head-L", "generated"),
        "hidden: from a wrong one": ("head-L", "wrong"),
        "hidden: from junk": ("head-L", "junk"),
        "said: the base, no adapter": ("describing", "prompt alone"),
        "said: adapter from the right sentence": ("describing", "generated"),
        "said: from a wrong one": ("describing", "wrong"),
        "said: from junk": ("describing", "junk"),
        "trained where it is said, then hidden": ("describing", "hidden"),
    }
    splits = [f"held-out tasks of 2, {language}: new frames" for language in ("en", "de")]
    rows: list[list[str]] = []
    for line, (name, arm) in lines.items():
        told = [one["headline"]["arms"].get(arm, {}) for one in found.get(name, ())]
        rows.append([line, *(cell([t[s]["exact_match"] for t in told if s in t]) for s in splits)])
    return table(["the prompt and the adapter", "English", "German"], rows)


def of_baselines(figures: Path) -> str:
    """What needs no hypernetwork, with Wilson's interval over rows."""
    path = figures / "baselines.json"
    if not path.exists():
        return "(no baselines yet)"
    arms: dict[str, dict[str, dict[str, float]]] = json.loads(path.read_text("utf-8"))["arms"]
    columns = {**SPLITS, "German, seen tasks": "seen tasks, de: new frames"}

    def told(splits: Mapping[str, Mapping[str, float]], name: str) -> str:
        share, count = pooled(splits)[name]
        low, high = wilson(share, round(count))
        return f"{short(share)} [{short(low)}, {short(high)}]"

    rows = [[arm, *(told(splits, one) for one in columns.values())] for arm, splits in arms.items()]
    return table(["", *columns], rows)


def curves(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes:
    """Exact match over the number of training combinations, and over phrases a notion."""
    from matplotlib.figure import Figure

    def points(names: Mapping[float, str]) -> list[tuple[float, float]]:
        return [
            (x, by_split(one)[CURVED]) for x, name in names.items() for one in found.get(name, ())
        ]

    panels = {
        "share of the combinations that train": points(
            {0.25: "tasks-0.25", 0.5: "tasks-0.5", 1.0: "head-L"}
        ),
        "phrases a notion and language": points({5: "phrases-5", 15: "phrases-15", 55: "head-L"}),
    }
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, (label, drawn) in zip(
        figure.subplots(1, 2, sharey=True), panels.items(), strict=True
    ):
        axes.scatter([x for x, _ in drawn], [y for _, y in drawn], s=20, color="C0")
        places = sorted({x for x, _ in drawn})
        axes.plot(places, [mean(y for x, y in drawn if x == place) for place in places], "C0")
        axes.set_xlabel(label)
        axes.set_ylim(0, 1)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("exact match, held-out combinations")
    figure.suptitle("English, sentence frames that never trained; a point is a seed, 1,000 steps")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def main() -> None:
    """Print the tables; draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, default=FIGURES)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    found = read(given.figures)
    parts = (of_runs(found), of_primitives(found), of_regimes(found), of_baselines(given.figures))
    print(*parts, sep="\n\n")
    if given.picture:
        write_bytes_atomically(given.picture, curves(found))


if __name__ == "__main__":
    main()
