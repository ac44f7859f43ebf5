"""Put the starter's hypernetwork into the package, with the figures of all its seeds.

    python -m recipes.hypernetwork.publish work/hypernetwork

The network is that of seed 0. Its known phrases and its confidence are made anew from the tasks of
validation; it is then judged once more as it ships, and the figures of the other seeds stand beside
its own. Nothing ships that misses a bar, unless the bar is named with `--short-of`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

from detour.evaluate import hypernet as ways
from detour.hypernetwork.build import calibrated
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.known import Known
from detour.hypernetwork.saved import load_generator, save_generator
from detour.hypernetwork.tasks import Tasks
from detour.model.base import Base
from recipes.hypernetwork.experiment import Run, by_split, figures_path, strange, tasks_of

PACKAGE = Path("src/detour/starter/hypernetwork")
LARGEST = 10_000_000  # bytes
SEEDS = ("spans-0", "spans-1", "spans-2")
BARS = {  # split → least exact match
    "held-out tasks of 2, en: new frames": 0.75,
    "held-out tasks of 2, en: new words": 0.55,
    "held-out tasks of 2, en: new words, riddles": 0.45,
    "held-out tasks of 2, de: new frames": 0.55,
    "seen tasks, en: new frames": 0.90,
}
CONFIDENCE = {"misidentified": 0.85, "far": 0.95}
OTHERS = ("wrong", "junk", "vague")  # sentences that are not the task's
MOST = {"wrong": 0.05, "junk": 0.05}  # of exact match on held-out tasks


def remade(generator: Generator, tasks: Tasks) -> Generator:
    """The same network with its known phrases and its confidence made anew."""
    embedder = generator.reader.embedder
    known = Known.of(embedder, tasks.of("train"), generator.network.config.encoder)
    made = Generator(
        generator.network, generator.tagger, known, None, generator.base,
        generator.embedder_sha256, "hypernetwork",
    )  # fmt: skip
    unsupported = strange("validation")
    made.confidence = calibrated(made, tasks, [*unsupported["far"], *unsupported["near"]])
    return made


def figures_of(generator: Generator, base: Base, tasks: Tasks) -> dict[str, Any]:
    """Of every seed and of the one that ships; the spread is that of the seeds."""
    unsupported = strange("test")
    paths = [figures_path(name) for name in SEEDS]
    own, *others = [
        json.loads(path.read_text("utf-8"))
        for path in paths
        if path == paths[0] or path.exists()  # that of the one that ships must be there
    ]
    runs = [own, *others]
    headline = [run["headline"]["arms"] for run in runs]
    confidence = ways.confidence_report(generator, tasks, unsupported["far"], unsupported["near"])
    return {
        "steps": own["run"]["steps"],
        "splits": over_seeds([by_split(run) for run in runs]),
        **{
            arm: over_seeds(
                [{s: told["exact_match"] for s, told in h[arm].items()} for h in headline]
            )
            for arm in OTHERS
        },
        "headline": {
            name: own["headline"][name] for name in ("matched_minus_wrong", "matched_minus_junk")
        },
        "of_other_seeds": [
            {
                "confidence": run["confidence"],
                **{n: run["headline"][n] for n in ("matched_minus_wrong", "matched_minus_junk")},
            }
            for run in others
        ],
        "confidence": {k: round(v, 4) for k, v in asdict(confidence).items()},
    }


def over_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Mean and single figures of every split."""
    return {
        split: {
            "mean": round(mean(one[split] for one in seeds), 4),
            "seeds": [round(one[split], 4) for one in seeds],
        }
        for split in seeds[0]
    }


def missed(figures: Mapping[str, Any]) -> list[str]:
    """The bars that the figures do not reach."""
    found = [split for split, least in BARS.items() if figures["splits"][split]["mean"] < least]
    found += [
        f"{arm}: {split}"
        for arm, most in MOST.items()
        for split, told in figures[arm].items()
        if split.startswith("held-out") and told["mean"] >= most
    ]
    return found + [
        name for name, least in CONFIDENCE.items() if figures["confidence"][name] < least
    ]


def publish(work: Path, short_of: Sequence[str]) -> dict[str, Any]:
    """Write the package's folder; returns its figures.

    Raises:
        SystemExit: a bar is missed that is not in `short_of`, or the folder is too large.
    """
    tasks = tasks_of(Run(SEEDS[0]), work)
    generator = remade(load_generator(work / "runs" / SEEDS[0] / "hypernetwork"), tasks)
    figures = figures_of(generator, Base.load("starter"), tasks)
    low = missed(figures)
    strangers = [name for name in low if name not in short_of]
    if strangers:
        raise SystemExit(f"missed: {', '.join(strangers)}; --short-of ships it all the same")
    figures["short_of"] = low
    save_generator(generator, PACKAGE, figures)
    size = sum(path.stat().st_size for path in PACKAGE.iterdir())
    if size > LARGEST:
        raise SystemExit(f"{PACKAGE} has {size} bytes, more than {LARGEST}")
    print(f"{PACKAGE}: {size / 1e6:.2f} MB, sha256 {generator.digest}")
    return figures


def main() -> None:
    """Publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--short-of", action="append", default=[], help="a bar that may be missed")
    given = parser.parse_args()
    print(json.dumps(publish(given.work, given.short_of), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
