"""What generated adapters are good for besides answering: a start for training, links of chains.

    python -m recipes.hypernetwork.beyond work/hypernetwork

*Warm start*: held-out tasks are learned from their own rows, once from nothing and once from the
adapter that was generated from a sentence; told is after how many steps the second is as good as
the first is in the end, by the loss on rows that neither has seen. *Chains*: held-out combinations,
steered by one sentence, by two generated adapters, by a trained and a generated one, and by two
trained ones. Writes `beyond.json`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.nn.functional import cross_entropy

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import TrainingError
from detour.evaluate import hypernet as ways
from detour.evaluate.hypernet import Arm, Asked, Item, Table
from detour.files import write_text_atomically
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.saved import load_generator, packaged
from detour.hypernetwork.tasks import Task, Tasks
from detour.measure.statistics import by_cluster
from detour.model.base import Base
from detour.model.loss import IGNORED
from detour.model.rows import encode, padded
from detour.training.config import make_config
from detour.training.loop import Progress, train_with
from recipes.hypernetwork.experiment import TARGETS, Run, oracles, tasks_of

STEPS, EVERY = 60, 3  # of a warm start and of its rival; steps between looks at the loss
TASKS = 10  # held-out tasks that are learned
ROWS = 20  # of each task, where chains answer
SET = "new frames"
Links = Mapping[tuple[str, str], Sequence[Adapter | None]]  # language and primitive to adapters


def sentence_of(task: Task) -> str:
    """The first sentence about the task in frames that judge."""
    return task.of_set(SET)[0].text


def curve(base: Base, task: Task, start: Adapter | None, **settings: Any) -> list[float]:  # noqa: ANN401 - settings of a training
    """The loss on the task's test rows, at first and after every `EVERY` steps."""
    found: list[float] = []

    def watch(progress: Progress) -> None:
        if progress.validation is not None:
            found.append(progress.validation)

    config = make_config({"steps": STEPS, "validations": STEPS // EVERY, **settings})
    first = loss_on(base, task, start)
    with suppress(TrainingError):  # a start that nothing made better is what is asked for here
        train_with(base, task.train, config, validation=task.test, start=start, watcher=watch)
    return [first, *found]


def loss_on(base: Base, task: Task, chain: Adapter | None) -> float:
    """Nats a token on the task's test rows."""
    assert base.tokenizer is not None
    batch = padded(encode(base.tokenizer, task.test, base.longest), base.pad_id)
    logits = base.logits(batch.ids, chain, batch.mask)
    return float(cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED))


def warm_starts(base: Base, generator: Generator, tasks: Sequence[Task]) -> dict[str, Any]:
    """Steps until the warm start is where each rival ends."""
    told: dict[str, Any] = {}
    for task in tasks:
        made = generator.generate([sentence_of(task)])[0].adapter
        shape = {"rank": made.rank, "targets": tuple(TARGETS), "alpha": 2.0 * made.rank}
        told[task.name] = {
            "warm": curve(base, task, made),
            "from nothing, same layers": curve(base, task, None, **shape),
            "from nothing, all layers": curve(base, task, None),
        }
        print(task.name, {arm: round(c[0], 3) for arm, c in told[task.name].items()}, flush=True)
    rivals = [arm for arm in next(iter(told.values())) if arm != "warm"]
    return {
        "steps": STEPS,
        "every": EVERY,
        "tasks": told,
        "steps_to_the_end_of": {
            rival: counted([reached(c["warm"], c[rival][-1]) for c in told.values()])
            for rival in rivals
        },
        "steps_to_where_warm_begins": {
            rival: counted([reached(c[rival], c["warm"][0]) for c in told.values()])
            for rival in rivals
        },
    }


def reached(losses: Sequence[float], level: float) -> int | None:
    """The first step at which a curve is as low as `level`; None where it never is."""
    return next((place * EVERY for place, loss in enumerate(losses) if loss <= level), None)


def counted(steps: Sequence[int | None]) -> dict[str, int]:
    """How often at once, within ten steps, within all, never."""
    there = [step for step in steps if step is not None]
    return {
        "at once": sum(step == 0 for step in there),
        "within 10 steps": sum(step <= 10 for step in there),
        "later": sum(step > 10 for step in there),
        "never": steps.count(None),
    }


def chained(base: Base, half: Base, generator: Generator, tasks: Tasks, work: Path) -> Any:  # noqa: ANN401 - JSON
    """Held-out combinations of an attribute and a style, or of two styles, in four ways."""
    whole = {t.name: t for t in tasks.of("test") if len(t.primitives) == 2}
    single = {
        (task.name[:2], task.primitives[0]): task
        for task in tasks.of("train")
        if len(task.primitives) == 1
    }
    own = oracles(half, list(single.values()), work)
    items = [item for item in ways.items_of(tasks, ROWS, seen=0)
             if item.task.name in whole and item.split.endswith(f": {SET}")]  # fmt: skip
    made = {
        pair: generator.adapters([told.text for told in task.of_set(SET)])
        for pair, task in single.items()
        if task.of_set(SET)
    }

    def arm(first: Links, second: Links) -> Arm:
        """A link a primitive, each primitive's from its own source; another sentence a row."""

        def asked(place: int, item: Item) -> Asked:
            links = [
                of[place % len(of)]
                for name, source in zip(item.task.primitives, (first, second), strict=True)
                for of in [source[item.task.name[:2], name]]
            ]
            terms = [Chain.of(link) for link in links if link is not None]
            return Asked(ways.bare(item), sum(terms[1:], terms[0]) if terms else None)

        return lambda chosen: [asked(place, item) for place, item in enumerate(chosen)]

    trained: Links = {pair: [own[task.name]] for pair, task in single.items()}
    arms: dict[str, Arm] = {
        "one sentence": ways.generated_arm(generator),
        "two generated": arm(made, made),
        "trained + generated": arm(trained, made),
        "generated + trained": arm(made, trained),
        "two trained": arm(trained, trained),
    }
    table = ways.evaluate(base, items, arms, teller=print)
    return {name: by_kind(table, name) for name in arms}


def by_kind(table: Table, arm: str) -> dict[str, Any]:
    """By language, an attribute in a style apart from two styles; bootstrapped over tasks."""
    found: dict[str, tuple[list[float], list[str]]] = {}
    for item, hit in zip(table.items, table.hits[arm], strict=True):
        kind = "attribute, style" if "." in item.task.primitives[0] else "two styles"
        values, clusters = found.setdefault(f"{item.task.name[:2]}: {kind}", ([], []))
        values.append(float(hit))
        clusters.append(item.task.name)
    return {name: by_cluster(*pair).to_json() for name, pair in found.items()}


def main() -> None:
    """Do what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--hypernet", type=Path, default=packaged())
    given = parser.parse_args()
    path = given.work / "beyond.json"
    generator = load_generator(given.hypernet)
    found: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    if found.get("hypernetwork") != generator.digest:  # figures of another one
        found = {"hypernetwork": generator.digest}
    base, half = Base.load("starter"), Base.load("starter", dtype="bfloat16")
    tasks = tasks_of(Run("beyond"), given.work)
    held = [t for t in tasks.of("test") if len(t.primitives) == 2 and t.of_set(SET)]
    chosen = random.Random("beyond").sample(held, min(TASKS, len(held)))
    parts: dict[str, Callable[[], Any]] = {
        "warm_start": lambda: warm_starts(base, generator, chosen),
        "chains": lambda: chained(base, half, generator, tasks, given.work),
    }
    for name, part in parts.items():
        if name not in found:
            found[name] = part()
            write_text_atomically(path, json.dumps(found, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
