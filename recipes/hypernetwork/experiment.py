"""Every run behind the tables of docs/hypernetworks.md: trained, judged, written down, resumable.

    python -m recipes.hypernetwork.experiment work/hypernetwork            all that is missing
    python -m recipes.hypernetwork.experiment work/hypernetwork spans-0    one run

A run leaves a folder under `runs/` with the hypernetwork and `figures.json`; a run that has its
figures is skipped, one that was interrupted goes on. Baselines that need no hypernetwork lie under
`baselines/`. Knows the recipe's tasks and the package; decides nothing about what ships.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from detour.adapter.adapter import Adapter
from detour.evaluate import hypernet as ways
from detour.evaluate.hypernet import Item, Table
from detour.files import write_text_atomically
from detour.hypernetwork.build import build
from detour.hypernetwork.config import EncoderName, HeadName, NetworkConfig, SuperviseConfig
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.optimise import Progress
from detour.hypernetwork.saved import load_generator, save_generator
from detour.hypernetwork.tasks import Task, Tasks, read_tasks
from detour.model.base import Base
from detour.model.examples import Example
from detour.training.loop import train
from detour.training.many import train_many
from recipes.hypernetwork import tasks as drafts

HERE = Path(__file__).parent
STEPS, SHORT = 5000, 2000  # of the hypernetwork that ships; of those that are compared
ORACLE_STEPS = 300
TARGETS = ["q_proj", "v_proj"]


@dataclass(frozen=True)
class Run:
    """One hypernetwork."""

    name: str
    seed: int = 0
    head: HeadName = "L"
    encoder: EncoderName = "spans"
    by: str = "sft"
    share: float = 1.0
    """Of the combinations that train; single attributes and styles always do."""
    phrases: int | None = None
    """At most so many of each notion."""
    steps: int = STEPS
    items: int = 100
    """Rows of each task, under each set of descriptions."""


def runs() -> list[Run]:
    """In the order in which they are worth having."""
    found = [Run(f"spans-{seed}", seed) for seed in range(3)]
    few = Run("", steps=SHORT, items=20)
    heads: tuple[HeadName, ...] = ("L", "M", "S", "Z")
    encoders: tuple[EncoderName, ...] = ("tokens", "mean")
    found += [replace(few, name=f"head-{head}", head=head) for head in heads]
    found += [replace(few, name=f"encoder-{kind}", encoder=kind) for kind in encoders]
    found += [replace(few, name=f"recon-{seed}", seed=seed, by="recon") for seed in range(3)]
    found += [replace(few, name=f"tasks-{share}", share=share) for share in (0.25, 0.5)]
    found += [replace(few, name=f"phrases-{count}", phrases=count) for count in (5, 15, 30)]
    return found


def strange(part: str) -> dict[str, list[str]]:
    """Sentences that nothing knows, `far` and `near`, of both languages."""
    told: dict[str, Any] = yaml.safe_load((HERE / "strange.yaml").read_text("utf-8"))
    return {
        kind: [line for language in told.values() for line in language[kind][part]]
        for kind in ("far", "near")
    }


def tasks_of(run: Run, work: Path) -> Tasks:
    """The task folders of a run, written where they are missing; combinations left out by share."""
    folder = work / ("tasks" if run.phrases is None else f"tasks-{run.phrases}-phrases")
    if not (folder / "written").exists():
        drafts.Tasks(phrases=run.phrases).write(folder)
        (folder / "written").touch()
    found = read_tasks(folder)
    pairs = [t.name[3:] for t in found.of("train") if len(t.primitives) > 1]
    kept = set(sorted(dict.fromkeys(pairs), key=drafts.stable)[: round(run.share * len(pairs) / 2)])

    def stays(task: Task) -> bool:
        return task.split != "train" or len(task.primitives) == 1 or task.name[3:] in kept

    return Tasks(tuple(task for task in found.every if stays(task)))


def oracles(base: Base, tasks: Sequence[Task], work: Path) -> dict[str, Adapter]:
    """Each task's own adapter, trained together, kept on the disk."""
    folder = work / "oracles"
    missing = [task for task in tasks if not (folder / task.name).is_dir()]
    if missing:
        print(f"oracles of {len(missing)} tasks", flush=True)
        made = train_many(
            base, {task.name: task.train for task in missing}, targets=TARGETS, steps=ORACLE_STEPS
        )
        for name, adapter in made.items():
            adapter.save(folder / name)
    return {task.name: Adapter.load(folder / task.name) for task in tasks}


def trained(run: Run, base: Base, tasks: Tasks, work: Path) -> Generator:
    """The run's hypernetwork, trained unless it lies there."""
    folder = work / "runs" / run.name / "hypernetwork"
    if folder.is_dir():
        return load_generator(folder)
    config = NetworkConfig(
        head=run.head, encoder=run.encoder, targets=tuple(TARGETS), rank=4, alpha=8.0,
        queries=4, dropout=0.05, task_width=96, place_width=32, hidden=256,
    )  # fmt: skip
    training = SuperviseConfig.model_validate({"steps": run.steps, "seed": run.seed})
    adapters = None
    if run.by == "recon":
        wanted = [task for task in tasks.every if task.split != "test"]
        adapters = oracles(base, wanted, work)
    unsupported = strange("validation")
    built = build(
        base, tasks, config, training, adapters=adapters,
        unsupported=[*unsupported["far"], *unsupported["near"]], watcher=_told, teller=print,
        checkpoints=work / "runs" / run.name / "state", resume=True,
    )  # fmt: skip
    told = {"best_loss": built.best_loss, "best_step": built.best_step, **built.figures}
    save_generator(built.generator, folder, told)
    return load_generator(folder)


def _told(progress: Progress) -> None:
    if progress.step % 100 == 0 or progress.validation is not None:
        print(
            f"{progress.step}/{progress.steps} loss {progress.loss:.3f} "
            f"naming {progress.named:.3f} size {progress.size:.2f} "
            f"validation {progress.validation} {progress.seconds_left:.0f} s left",
            flush=True,
        )


def judged(run: Run, generator: Generator, base: Base, tasks: Tasks) -> dict[str, Any]:
    """All figures of one hypernetwork."""
    items = ways.items_of(tasks, run.items)
    texts = [item.description.text for item in items]
    took = ways.milliseconds_per_adapter(generator, texts)
    matched = {"generated": ways.generated_arm(generator)}
    table = ways.evaluate(base, items, matched, teller=print, milliseconds=took)
    framed = [item for item in items if item.split.endswith(": new frames")]
    arms = {
        **matched,
        "wrong": ways.generated_arm(generator, ways.wrong_text(framed)),
        "junk": ways.generated_arm(generator, ways.junk_text),
    }
    headline = ways.evaluate(base, framed, arms, teller=print)
    told = strange("test")
    confidence = ways.confidence_report(generator, tasks, told["far"], told["near"])
    return {
        "run": asdict(run),
        **table.to_json(),
        "headline": headline.to_json(),
        "confidence": asdict(confidence),
        "by_task": by_task(table),
    }


def by_task(table: Table) -> dict[str, dict[str, float]]:
    """Exact match of every task under every set of descriptions."""
    found: dict[str, dict[str, list[bool]]] = {}
    for item, hit in zip(table.items, table.hits["generated"], strict=True):
        found.setdefault(item.task.name, {}).setdefault(item.split, []).append(hit)
    return {
        name: {split: round(sum(hits) / len(hits), 4) for split, hits in splits.items()}
        for name, splits in found.items()
    }


def baselines(base: Base, tasks: Tasks, work: Path, items: Sequence[Item]) -> Table:
    """What needs no hypernetwork: prompts, examples, adapters of tasks, one adapter for all."""
    own = oracles(base, list({item.task.name: item.task for item in items}.values()), work)
    rows = [row for task in tasks.of("train") for row in task.train]
    together = _multi_task(base, rows, work / "multi-task")
    described = _multi_task(base, _with_descriptions(tasks), work / "multi-task-described")
    arms = {
        "base": ways.base_arm,
        "prompt": ways.prompt_arm,
        "few-shot": ways.few_shot_arm(base),
        "oracle": ways.adapter_arm(own),
        "multi-task": ways.one_for_all_arm(together),
        "multi-task, described": ways.one_for_all_arm(described, described=True),
    }
    return ways.evaluate(base, items, arms, teller=print)


def _multi_task(base: Base, rows: Sequence[Example], folder: Path) -> Adapter:
    """One adapter on the rows of all tasks, with as many rows seen as a hypernetwork sees."""
    if not folder.is_dir():
        adapter = train(
            base, rows, rank=8, alpha=16, targets=TARGETS, steps=SHORT, batch_size=48,
            learning_rate=2e-3, name=folder.name,
        )  # fmt: skip
        adapter.save(folder)
    return Adapter.load(folder)


def _with_descriptions(tasks: Tasks) -> list[Example]:
    """Every row with one of its task's descriptions in the system turn."""
    rows: list[Example] = []
    for task in tasks.of("train"):
        told = task.of_set()
        for place, row in enumerate(task.train):
            system = {"role": "system", "content": told[place % len(told)].text}
            rows.append(replace(row, messages=(system, *row.messages)))
    return rows


def main() -> None:
    """Do what is missing, or the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    given = parser.parse_args()
    half, whole = Base.load("starter", dtype="bfloat16"), Base.load("starter")
    # the fused attention's backward in bfloat16 takes a third of a step on a CPU, this a twentieth
    half.model.set_attn_implementation("eager")
    for run in runs():
        path = given.work / "runs" / run.name / "figures.json"
        if path.exists() or (given.names and run.name not in given.names):
            continue
        began = time.monotonic()
        tasks = tasks_of(run, given.work)
        generator = trained(run, half, tasks, given.work)
        figures = judged(run, generator, whole, tasks)
        write_text_atomically(path, json.dumps(figures, indent=1, ensure_ascii=False))
        print(f"{run.name}: {time.monotonic() - began:.0f} s", flush=True)
    path = given.work / "baselines.json"
    if not path.exists() and (not given.names or "baselines" in given.names):
        tasks = tasks_of(Run("all"), given.work)
        table = baselines(whole, tasks, given.work, ways.items_of(tasks, 20))
        write_text_atomically(path, json.dumps(table.to_json(), indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
