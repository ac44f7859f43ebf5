"""Every run behind the tables of docs/hypernetworks.md: trained, judged, written down, resumable.

    python -m recipes.hypernetwork.experiment work/hypernetwork            all that is missing
    python -m recipes.hypernetwork.experiment work/hypernetwork spans-0    one run

A run leaves a folder under `runs/` with the hypernetwork, and `figures/NAME.json` beside this file;
a run that has its figures is skipped, one that was interrupted goes on. Knows the recipe's tasks
and the package; decides nothing about what ships.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from detour.adapter.adapter import Adapter
from detour.evaluate import hypernet as ways
from detour.evaluate.baselines import mean_of, one_for_all, task_adapters
from detour.evaluate.hypernet import Arm, Item, Table
from detour.files import write_text_atomically
from detour.hypernetwork.build import Prepared, build, prepare
from detour.hypernetwork.config import EncoderName, HeadName, NetworkConfig, SuperviseConfig
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.optimise import Progress
from detour.hypernetwork.saved import load_generator, save_generator
from detour.hypernetwork.tasks import Task, Tasks, read_tasks
from detour.model.base import Base
from detour.model.examples import Example
from recipes.hypernetwork import tasks as drafts

HERE = Path(__file__).parent
FIGURES = HERE / "figures"
STEPS, SHORT = 5000, 1000  # of the hypernetwork that ships; of those that are compared
ORACLE_STEPS = 300
UNKNOWN = ("pun", "sportscaster", "city.landmark", "animal.diet")  # held out by `without`
TARGETS = ["q_proj", "v_proj"]
RANK = 4


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
    without: tuple[str, ...] = ()
    """Primitives that no training task may have; what has one is judged as held out."""
    describing: bool = False
    """The prompt says the task too, in training and where it is judged."""
    steps: int = STEPS
    items: int = 100
    """Rows of each task, under each set of descriptions."""


def runs() -> list[Run]:
    """In the order in which they are worth having."""
    found = [Run(f"spans-{seed}", seed) for seed in range(3)]
    few = Run("", steps=SHORT, items=10)
    heads: tuple[HeadName, ...] = ("L", "M", "S", "Z")
    encoders: tuple[EncoderName, ...] = ("tokens", "mean")
    for seed in range(3):
        again = replace(few, seed=seed)
        found += [replace(again, name=f"head-{head}-{seed}", head=head) for head in heads]
        found += [replace(again, name=f"recon-{seed}", by="recon")]
        found += [replace(again, name=f"describing-{seed}", describing=True)]
        found += [replace(again, name=f"encoder-{kind}-{seed}", encoder=kind) for kind in encoders]
        found += [replace(again, name=f"tasks-{s}-{seed}", share=s) for s in (0.25, 0.5)]
        found += [replace(again, name=f"phrases-{n}-{seed}", phrases=n) for n in (5, 15)]
        found += [replace(again, name=f"primitives-{seed}", without=UNKNOWN)]
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

    kept_tasks = Tasks(tuple(task for task in found.every if stays(task)))
    if run.without:
        return held_out(kept_tasks, run.without)
    return self_describing(kept_tasks) if run.describing else kept_tasks


def self_describing(tasks: Tasks) -> Tasks:
    """Every row to learn says its task, in a wording that trains, in the system turn."""

    def said(task: Task) -> tuple[Example, ...]:
        if task.split == "test":
            return task.train
        texts = [description.text for description in task.of_set()]
        rng = random.Random(f"self-describing/{task.name}")
        return tuple(
            replace(row, messages=tuple(ways.described(row.messages, rng.choice(texts))))
            for row in task.train
        )

    return Tasks(tuple(replace(task, train=said(task)) for task in tasks.every))


def held_out(tasks: Tasks, primitives: Sequence[str]) -> Tasks:
    """Only what has one of them is judged as held out; nothing else of it is left."""
    without = frozenset(primitives)
    found: list[Task] = []
    for task in tasks.every:
        if without.isdisjoint(task.primitives):
            found += [task] if task.split != "test" else []
        elif task.split == "train":
            found.append(replace(task, split="test"))
    return Tasks(tuple(found))


def oracles(base: Base, tasks: Sequence[Task], work: Path) -> dict[str, Adapter]:
    """Each task's own adapter, trained together, kept on the disk."""
    return task_adapters(
        base, tasks, work / "oracles", targets=TARGETS, rank=RANK, alpha=2.0 * RANK,
        steps=ORACLE_STEPS, teller=print,
    )  # fmt: skip


class Preparations:
    """The last reading of the descriptions: runs one after another often share it."""

    def __init__(self) -> None:
        self._key: Run | None = None
        self._made: Prepared | None = None

    def of(self, run: Run, tasks: Tasks, config: NetworkConfig) -> Prepared:
        """Of the run's descriptions, encoder and seed; nothing else of it matters."""
        key = Run("", run.seed, encoder=run.encoder, share=run.share, phrases=run.phrases,
                  without=run.without)  # fmt: skip
        if self._made is None or self._key != key:
            self._made, self._key = prepare(tasks, config, run.seed, print), key
        return self._made


def trained(
    run: Run, base: Base, tasks: Tasks, work: Path, preparations: Preparations
) -> Generator:
    """The run's hypernetwork, trained unless it lies there."""
    folder = work / "runs" / run.name / "hypernetwork"
    if folder.is_dir():
        return load_generator(folder)
    config = NetworkConfig(
        head=run.head, encoder=run.encoder, targets=tuple(TARGETS), rank=RANK, alpha=2.0 * RANK,
        queries=4, dropout=0.05, task_width=96, place_width=32, hidden=256,
        spelling=4096 if run.encoder == "spans" else 0,
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
        prepared=preparations.of(run, tasks, config),
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
    matched: dict[str, Arm] = {"generated": ways.generated_arm(generator)}
    if run.describing:
        matched = {name: ways.prompt_arm(base, arm) for name, arm in matched.items()}
    table = ways.evaluate(base, items, matched, teller=print, milliseconds=took)
    framed = [item for item in items if item.split.endswith(": new frames")]
    others: dict[str, Arm] = {
        "wrong": ways.generated_arm(generator, ways.wrong_text(framed)),
        "junk": ways.generated_arm(generator, ways.junk_text),
        "vague": ways.generated_arm(generator, vague_text),
    }
    if run.describing:  # the prompt stays right: does it matter what the adapter was made from?
        others = {name: ways.prompt_arm(base, arm) for name, arm in others.items()}
        others |= {"prompt alone": ways.prompt_arm(base), "hidden": ways.generated_arm(generator)}
    arms = {**matched, **others}
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


def by_split(figures: Mapping[str, Any]) -> dict[str, float]:
    """Exact match of every split of the generated adapters, those of `pooled` among them."""
    return {split: share for split, (share, _) in pooled(figures["arms"]["generated"]).items()}


def pooled(splits: Mapping[str, Mapping[str, float]]) -> dict[str, tuple[float, float]]:
    """Exact match and rows of every split; seen tasks of one and of two primitives together too."""
    found = {split: (told["exact_match"], told["n"]) for split, told in splits.items()}
    parts: dict[str, list[tuple[float, float]]] = {}
    for split, told in splits.items():
        if split.startswith("seen tasks of"):
            name = "seen tasks" + split[len("seen tasks of 1") :]
            parts.setdefault(name, []).append((told["exact_match"], told["n"]))
    for name, pairs in parts.items():
        count = sum(n for _, n in pairs)
        found[name] = (sum(share * n for share, n in pairs) / count, count)
    return found


def figures_path(name: str) -> Path:
    """Where the figures of a run lie."""
    return FIGURES / f"{name}.json"


def write_figures(path: Path, figures: Mapping[str, Any]) -> None:
    """Four digits a figure, a line an arm, so that what changes can be read in a diff."""
    path.parent.mkdir(exist_ok=True)
    write_text_atomically(path, _lines(json.loads(json.dumps(figures), parse_float=_four)) + "\n")


def _four(told: str) -> float:
    return round(float(told), 4)


def _lines(told: Any, depth: int = 0) -> str:  # noqa: ANN401 - JSON
    """JSON in which objects without objects inside are one line."""
    if not isinstance(told, dict) or not any(isinstance(v, dict) for v in told.values()):
        return json.dumps(told, ensure_ascii=False)
    inner = ",\n".join(
        f"{' ' * (depth + 1)}{json.dumps(name, ensure_ascii=False)}: {_lines(v, depth + 1)}"
        for name, v in told.items()
    )
    return f"{{\n{inner}\n{' ' * depth}}}"


def vague_text(_: int, item: Item) -> str:
    """A description that says as little as people sometimes do: what is named, or that a style is
    wanted, not which.
    """
    said = VAGUE[item.description.language or "en"]
    return said["both" if len(item.task.primitives) > 1 else "one"]


VAGUE = {
    "en": {
        "one": "Answer in the way that is wanted here.",
        "both": "Tell me what I want to know, in the right style.",
    },
    "de": {
        "one": "Antworte so, wie es hier gewünscht ist.",
        "both": "Sag mir, was ich wissen will, im richtigen Stil.",
    },
}


def baselines(base: Base, half: Base, tasks: Tasks, work: Path, items: Sequence[Item]) -> Table:
    """What needs no hypernetwork: prompts, examples, adapters of tasks, one adapter for all.

    The adapters of all tasks see as many rows as a hypernetwork of the comparison does.
    """
    judged = {item.task.name: item.task for item in items}
    own = oracles(half, [*tasks.of("train"), *tasks.of("validation"), *tasks.of("test")], work)
    learned = {task.name: own[task.name] for task in tasks.of("train")}
    prompt = ways.prompt_arm(base)
    together = {
        described: one_for_all(
            half,
            tasks,
            work / f"all-tasks{'-described' * described}",
            described=described,
            targets=TARGETS,
            rank=2 * RANK,
            alpha=4.0 * RANK,
            steps=SHORT,
            batch_size=48,
            teller=print,
        )
        for described in (False, True)
    }
    arms = {
        "base": ways.base_arm,
        "prompt": prompt,
        "few-shot": ways.few_shot_arm(base),
        "oracle": ways.adapter_arm({name: own[name] for name in judged}),
        "mean": ways.one_for_all_arm(mean_of(list(learned.values()))),
        "all tasks": ways.one_for_all_arm(together[False]),
        "all tasks, described": ways.one_for_all_arm(together[True], prompt),
    }
    folder = work / "runs" / "spans-0" / "hypernetwork"
    if folder.is_dir():
        arms["nearest"] = ways.nearest_arm(learned, tasks, load_generator(folder))
    return ways.evaluate(base, items, arms, teller=print)


def main() -> None:
    """Do what is missing, or the runs that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("names", nargs="*")
    parser.add_argument(
        "--dtype",
        default="bfloat16",
        choices=["bfloat16", "float32"],
        help="of the frozen base while it trains; which is faster depends on the CPU",
    )
    given = parser.parse_args()
    half, whole = Base.load("starter", dtype=given.dtype), Base.load("starter")
    preparations = Preparations()
    for run in runs():
        path = figures_path(run.name)
        if path.exists() or (given.names and run.name not in given.names):
            continue
        began = time.monotonic()
        # half as long on such a CPU; what ships is trained with the products that fp32 has
        is_rough = run.steps == SHORT and given.dtype == "bfloat16"
        torch.set_float32_matmul_precision("medium" if is_rough else "highest")
        tasks = tasks_of(run, given.work)
        generator = trained(run, half, tasks, given.work, preparations)
        figures = judged(run, generator, whole, tasks)
        write_figures(path, {**figures, "dtype": given.dtype})
        print(f"{run.name}: {time.monotonic() - began:.0f} s", flush=True)
    path = figures_path("baselines")
    if not path.exists() and (not given.names or "baselines" in given.names):
        tasks = tasks_of(Run("all"), given.work)
        table = baselines(whole, half, tasks, given.work, ways.items_of(tasks, 20))
        write_figures(path, table.to_json())


if __name__ == "__main__":
    main()
