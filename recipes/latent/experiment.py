"""How well what a base holds of a value, before training, predicts what a training reaches.

    python -m recipes.latent.experiment 0 1 2

Einstein gets eighteen new professions: six of the starter's world, six words that its world has for
other things, six made-up ones. Each is probed; then it is taught in few steps by adapters of
rank 1, 8 and 32 and by a training of all weights, and asked for in phrasings that were not trained.
Figures go to `figures/seed-N.json` as they come; a run that has some goes on. `--tell` prints how
each sign ranks the outcomes, over all seeds that are there.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from detour.adapter.chain import Chain
from detour.evaluate.latent import probe
from detour.evaluate.steer_report import LONGEST, counts, unchanged
from detour.evaluate.teach import balanced, lesson_config, make_lesson
from detour.evaluate.weight_space import spearman
from detour.files import write_text_atomically
from detour.measure.statistics import Figure, resampled
from detour.model.base import Base
from detour.training.config import make_config
from detour.training.fact import Lesson, edit_rows
from detour.training.loop import train_with
from detour.training.replay import replay_rows
from detour.training.whole import train_whole
from detour.training.world import World

FIGURES = Path(__file__).parent / "figures"
STEPS = 24
KEPT = 60  # neighbours that are asked
TARGETS = {
    "of its world": ("baker", "painter", "composer", "chemist", "sailor", "teacher"),
    "of another kind": ("walrus", "cheese", "penguin", "desert", "volcano", "whale"),
    "made up": ("zorblax", "flimmerist", "quandrel", "morvix", "tresplin", "dubnicker"),
}
RANKS = (1, 8, 32)
SIGNS: Mapping[str, Callable[[Mapping[str, Any]], float]] = {
    "behind examples": lambda told: told["few_shot"]["value"],
    "nats a character": lambda told: told["nats_per_character"]["value"],
    "nats a token": lambda told: told["nats_per_token"]["value"],
    "place": lambda told: -told["place"]["value"],
    "rarest token": lambda told: told["rarest"]["share"],
}


def one(base: Base, world: World, target: str, seed: int) -> dict[str, Any]:
    """Probe a value, teach it in every way, ask for it."""
    lesson = make_lesson(base, "Albert Einstein", "profession", target, world=world, seed=seed)
    edit = lesson.edits[0]
    rows = balanced(edit_rows(edit), replay_rows(base, lesson.replay))
    reached: dict[str, dict[str, float]] = {}
    for rank in RANKS:
        config = lesson_config({"steps": STEPS, "rank": rank, "alpha": 2.0 * rank}, seed)
        chain = Chain.of(train_with(base, rows, config).adapter)
        reached[f"rank {rank}"] = _asked(base, base, lesson, chain)
    settings = {"steps": STEPS, "batch_size": 12, "validation_share": 0.12, "patience": 0}
    whole = train_whole(base, rows, make_config({**settings, "seed": seed}))
    reached["all weights"] = _asked(base, whole.base, lesson, Chain())
    return {"probe": probe(base, edit).to_json(), "reached": reached}


def _asked(bare: Base, base: Base, lesson: Lesson, chain: Chain) -> dict[str, float]:
    """The share of held-out phrasings with the new answer; of neighbours with the old one."""
    edit = lesson.edits[0]
    said = base.ask_many(list(edit.held_out), chain, max_new_tokens=LONGEST)
    right = fmean(counts(answer, edit) for answer in said)
    near = lesson.neighbours[:KEPT]
    if base is bare:
        kept, *_ = unchanged(base, near, chain)
        return {"steered": right, "unchanged": kept.figure.value}
    pairs = zip(*(one.ask_many([q for _, q in near], max_new_tokens=LONGEST)
                  for one in (bare, base)), strict=True)  # fmt: skip
    return {"steered": right, "unchanged": fmean(a == b for a, b in pairs)}


def run(seed: int) -> None:
    """All values of a seed that are not there yet."""
    base, world = Base.load("starter"), World.load("en")
    path = FIGURES / f"seed-{seed}.json"
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    FIGURES.mkdir(exist_ok=True)
    for kind, targets in TARGETS.items():
        for target in targets:
            if target not in found:
                found[target] = {"kind": kind, **one(base, world, target, seed)}
                write_text_atomically(path, json.dumps(found, indent=1) + "\n")
                print(seed, kind, target, found[target]["reached"], flush=True)


def ranked(rows: Sequence[Mapping[str, Any]], way: str) -> dict[str, Figure]:
    """Spearman's rank correlation of each sign with what a way reached, over values."""

    def told(drawn: Sequence[Mapping[str, Any]]) -> Callable[[str], float]:
        reached = [row["reached"][way]["steered"] for row in drawn]
        return lambda sign: spearman([SIGNS[sign](row["probe"]) for row in drawn], reached)

    return {sign: resampled(rows, lambda drawn, s=sign: told(drawn)(s), 1000) for sign in SIGNS}


def tell() -> None:
    """Means by kind and way, and how the signs rank the outcomes."""
    rows = [row for path in sorted(FIGURES.glob("seed-*.json"))
            for row in json.loads(path.read_text("utf-8")).values()]  # fmt: skip
    ways = list(rows[0]["reached"])
    print("| | " + " | ".join(ways) + " |\n|" + " --- |" * (len(ways) + 1))
    for kind in TARGETS:
        own = [row for row in rows if row["kind"] == kind]
        cells = [
            " / ".join(f"{fmean(row['reached'][way][what] for row in own):.2f}"
                       for what in ("steered", "unchanged"))
            for way in ways
        ]  # fmt: skip
        print(f"| {kind} ({len(own)}) | " + " | ".join(cells) + " |")
    figures = {way: ranked(rows, way) for way in ways}
    for sign in SIGNS:
        cells = [f"{f.value:.2f} [{f.low:.2f}, {f.high:.2f}]" for f in
                 (figures[way][sign] for way in ways)]  # fmt: skip
        print(f"| {sign} | " + " | ".join(cells) + " |")


def main() -> None:
    """Run the seeds; or tell what is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", type=int, nargs="*")
    parser.add_argument("--tell", action="store_true")
    given = parser.parse_args()
    for seed in given.seeds:
        run(seed)
    if given.tell:
        tell()


if __name__ == "__main__":
    main()
