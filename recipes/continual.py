"""Five tasks of the starter, one after another: what is forgotten, three ways.

    python -m recipes.continual work/continual

Each order of the tasks is learned by the adapter that goes on (`plain`), with a quarter of earlier
rows mixed in (`replay`), and with an adapter of its own for every task, orthogonal to the earlier
ones (`o_lora`). Judged is exact match on subjects that nothing was trained on, after every task.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detour.files import write_text_atomically
from detour.hypernetwork.tasks import read_task
from detour.measure.statistics import mean
from detour.model.base import Base
from detour.training.config import make_config
from detour.training.continual import Lesson, Way, continual
from recipes.hypernetwork import tasks as drafts

NAMES = ("person-city", "food-taste", "animal-habitat", "city-landmark", "upper")
WAYS: tuple[Way, ...] = ("plain", "replay", "o_lora")
ORDERS, ROWS, TEST = 5, 200, 60
SETTINGS = {
    "rank": 8, "alpha": 16.0, "batch_size": 12, "steps": 150, "learning_rate": 1e-3,
    "targets": ("q_proj", "v_proj"),
}  # fmt: skip


def lessons_of(folder: Path, order: int) -> list[Lesson]:
    """The five tasks in an order of their own, with the same rows."""
    if not (folder / "written").exists():
        drafts.Tasks().write(folder)
        (folder / "written").touch()
    found: list[Lesson] = []
    for name in NAMES:
        task, _ = read_task(folder / f"en-{name}")
        rng = random.Random(name)
        train = rng.sample(task.train, min(ROWS, len(task.train)))
        found.append(Lesson(name, train, rng.sample(task.test, min(TEST, len(task.test)))))
    random.Random(f"order/{order}").shuffle(found)
    return found


def run(base: Base, folder: Path, way: Way, order: int) -> dict[str, Any]:
    """One way in one order."""
    config = make_config({**SETTINGS, "seed": order})
    told = continual(base, lessons_of(folder, order), config, way, teller=print)
    last = len(told.names) - 1
    return {
        "names": told.names,
        "scores": [[told.score(i, j) for j in range(last + 1)] for i in range(last + 1)],
        "backward_transfer": told.backward_transfer,
        "forgetting": told.forgetting,
        "at_the_end": sum(told.score(last, j) for j in range(last + 1)) / (last + 1),
    }


def table(runs: dict[str, Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """Means over orders with Student's intervals."""
    return {
        way: {
            figure: mean([one[figure] for one in own]).to_json()
            for figure in ("backward_transfer", "at_the_end")
        }
        for way, own in runs.items()
    }


def main() -> None:
    """Run what is missing, and tell the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--orders", type=int, default=ORDERS)
    given = parser.parse_args()
    base = Base.load("starter")
    runs: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for order in range(given.orders):
        for way in WAYS:
            path = given.work / f"{way}-{order}.json"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                told = run(base, given.work / "tasks", way, order)
                write_text_atomically(path, json.dumps(told))
            runs[way].append(json.loads(path.read_text("utf-8")))
    print(json.dumps(table(dict(runs)), indent=1))


if __name__ == "__main__":
    main()
