"""Task folders: what a task is called, how people describe it, and its rows.

    TASKS/
      capital-letters/
        task.yaml     descriptions, primitives, metric, split
        train.jsonl   rows to learn: messages, or prompt and completion
        test.jsonl    rows to be judged by

Three things are kept apart, and that they are is asserted here: tasks (training, validation,
test), descriptions (those without `set` train, those of a set only judge) and rows (no prompt of
test.jsonl in train.jsonl). Knows files and texts; knows no tokens, no vectors and no model.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detour.errors import DataError
from detour.language.catalogue import text
from detour.measure.metrics import normalised
from detour.model.examples import Example, read_examples, read_text

Split = Literal["train", "validation", "test"]
FEWEST = 4  # tasks to train on, below which nothing general can be learned
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
HELD_OUT = 0.15  # share of tasks that are held out where no task says to which split it belongs


class Description(BaseModel):
    """One way to describe a task."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    text: str = Field(min_length=1)
    parts: dict[str, str] = Field(default_factory=dict)
    """Primitive → the phrase of the text that names it."""
    language: str = ""
    set: str = ""
    """The set of descriptions that it is judged in; without one it trains."""

    def spans(self) -> list[tuple[int, int]]:
        """Where the parts stand in the text (characters, end excluded), in their order."""
        found = [(self.text.find(part), len(part)) for part in self.parts.values()]
        return [(start, start + length) for start, length in found]


class TaskFile(BaseModel):
    """The contents of a `task.yaml`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    descriptions: tuple[Description | str, ...] = Field(min_length=1)
    primitives: tuple[str, ...] = ()
    """What the task is made of, in names shared with other tasks."""
    metric: Literal["exact_match", "contains"] = "exact_match"
    split: Split | None = None
    weight: float = Field(1.0, gt=0)
    """How often it is drawn, against other tasks."""
    licence: str = ""
    source: str = ""


@dataclass(frozen=True, eq=False)
class Task:
    """One task as it was read."""

    name: str
    descriptions: tuple[Description, ...]
    train: tuple[Example, ...]
    test: tuple[Example, ...]
    primitives: tuple[str, ...] = ()
    metric: str = "exact_match"
    split: Split = "train"
    weight: float = 1.0

    def of_set(self, name: str = "") -> list[Description]:
        """The descriptions of one set; without a name, those that train."""
        return [d for d in self.descriptions if d.set == name]


@dataclass(frozen=True, eq=False)
class Tasks:
    """All tasks of a folder, split."""

    every: tuple[Task, ...]

    def of(self, split: Split) -> list[Task]:
        """The tasks of one split."""
        return [task for task in self.every if task.split == split]

    @property
    def primitives(self) -> tuple[str, ...]:
        """All names that tasks are made of, sorted."""
        return tuple(sorted({name for task in self.every for name in task.primitives}))

    @property
    def sets(self) -> tuple[str, ...]:
        """All sets of descriptions that judge, sorted."""
        return tuple(sorted({d.set for t in self.every for d in t.descriptions if d.set}))


def read_tasks(folder: Path, seed: int = 0) -> Tasks:
    """All tasks below a folder.

    Where no `task.yaml` names its split, a share of the tasks is held out by `seed`: half of them
    for validation, half for test.

    Raises:
        DataError: no task; a file that is missing or broken, with its path and line; an empty
            description; too few tasks; descriptions or rows that both train and judge.
    """
    if not folder.is_dir():
        raise DataError(
            text("{path} is no folder", path=folder),
            expected=text("a folder with one folder a task"),
        )
    places = sorted(path.parent for path in folder.glob("*/task.yaml"))
    stray = sorted(
        path.name for path in folder.iterdir()
        if path.is_dir() and path not in places and not path.name.startswith(".")
    )  # fmt: skip
    if stray or not places:
        raise DataError(
            text("{path} has folders without a task.yaml", path=folder)
            if stray
            else text("{path} holds no task", path=folder),
            expected=text("task.yaml, train.jsonl and test.jsonl in a folder of their own"),
            found=", ".join(stray[:5]) or text("none"),
        )
    tasks = [read_task(place) for place in places]
    if all(task[1] is None for task in tasks):
        tasks = _split(tasks, seed)
    split = Tasks(tuple(replace(task, split=chosen or "train") for task, chosen in tasks))
    check(split)
    return split


def read_task(folder: Path) -> tuple[Task, Split | None]:
    """One task, and the split that its file names.

    Raises:
        DataError: see `read_tasks`.
    """
    path = folder / "task.yaml"
    told = _read_yaml(path)
    try:
        given = TaskFile.model_validate(told)
    except ValidationError as cause:
        raise _invalid(path, cause) from cause
    described = tuple(
        Description(text=d) if isinstance(d, str) else d for d in given.descriptions if d
    )
    if len(described) < len(given.descriptions) or not all(d.text.strip() for d in described):
        raise DataError(
            text("{path} has an empty description", path=path),
            expected=text("a sentence that says what to do"),
        )
    for description in described:
        _check_parts(path, description, given.primitives)
    train = read_examples(folder / "train.jsonl")
    test = read_examples(folder / "test.jsonl")
    task = Task(
        folder.name, described, tuple(train), tuple(test), given.primitives or (folder.name,),
        given.metric,
        weight=given.weight,
    )  # fmt: skip
    _check_rows(task, folder)
    return task, given.split


def _read_yaml(path: Path) -> Any:  # noqa: ANN401 - checked by TaskFile
    raw = read_text(path, text("a task in YAML"))
    try:
        return yaml.load(raw, _LOADER)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise DataError(
            text("{place} is not YAML", place=place),
            expected=text("a task in YAML"),
            found=str(getattr(cause, "problem", cause)),
        ) from cause


def _invalid(path: Path, cause: ValidationError) -> DataError:
    first = cause.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or path.name
    return DataError(
        text("{path}: {key} cannot be used", path=path, key=key),
        expected=str(first["msg"]),
        found=repr(first["input"])[:80],
    )


def _check_parts(path: Path, description: Description, primitives: Sequence[str]) -> None:
    strange = [name for name in description.parts if name not in primitives]
    missing = [part for part in description.parts.values() if not _stands(part, description.text)]
    if strange or missing:
        raise DataError(
            text("{path}: the parts of a description do not fit it", path=path),
            expected=text("primitives of the task, and phrases that stand in the text"),
            found=", ".join(map(repr, strange or missing)),
            hint=repr(description.text)[:80],
        )


def _stands(part: str, told: str) -> bool:
    """Whether a phrase stands in a text, and not inside of words."""
    start = told.find(part)
    if start < 0 or not part.strip():
        return False
    before, after = told[:start][-1:], told[start + len(part) :][:1]
    inside = (before.isalnum() and part[0].isalnum()) or (after.isalnum() and part[-1].isalnum())
    return not inside


def _check_rows(task: Task, folder: Path) -> None:
    learned = {normalised(row.prompt) for row in task.train}
    both = [row for row in task.test if normalised(row.prompt) in learned]
    if both:
        raise DataError(
            text("{source} is a row of train.jsonl too", source=both[0].source),
            expected=text("rows to judge by that are never learned"),
            found=text("{count} such rows in {folder}", count=len(both), folder=folder.name),
        )


def _split(
    tasks: Sequence[tuple[Task, Split | None]], seed: int
) -> list[tuple[Task, Split | None]]:
    order = list(range(len(tasks)))
    random.Random(seed).shuffle(order)
    held = max(1, round(len(tasks) * HELD_OUT / 2))
    splits: dict[int, Split] = dict.fromkeys(order[:held], "validation")
    splits |= dict.fromkeys(order[held : 2 * held], "test")
    return [(task, splits.get(place, "train")) for place, (task, _) in enumerate(tasks)]


def check(tasks: Tasks) -> None:
    """That what trains and what judges are disjoint, and that there is enough of it.

    Raises:
        DataError: names the first description, phrase or task that is at fault; of what is learned,
            too, no sentence may describe two tasks.
    """
    counts = {split: len(tasks.of(split)) for split in ("train", "validation", "test")}
    if counts["train"] < FEWEST:
        raise DataError(
            text("too few tasks to train on"),
            expected=text("at least {count}, described in several ways each", count=FEWEST),
            found=str(counts["train"]),
            hint=text("a hypernetwork learns from the differences between many tasks"),
        )
    if not counts["validation"]:
        raise DataError(
            text("no task is left for validation"),
            expected=text("split: validation in some task.yaml"),
            hint=text("the best weights are chosen on tasks that are never reported"),
        )
    trained: dict[str, str] = {}
    for task in tasks.every:
        if task.split == "train" and not task.of_set():
            raise DataError(
                text("the task {name} has no description to train on", name=task.name),
                expected=text("at least one without a set"),
            )
        if task.split != "test":
            for description in (*task.of_set(), *task.of_set("validation")):
                other = trained.setdefault(normalised(description.text), task.name)
                if other != task.name:
                    raise DataError(
                        text("one sentence describes the tasks {one} and {other}", one=other,
                             other=task.name),
                        expected=text("descriptions that say which task is meant"),
                        found=repr(description.text)[:80],
                        hint=text("say more in each of them, or make one task of both"),
                    )  # fmt: skip
    _check_combinations(tasks)
    _check_judged(tasks.every, trained)
    _check_phrases(tasks.every)


def _check_combinations(tasks: Tasks) -> None:
    """A task that judges must not be made of the same as one that trains, in the same language."""
    trained = {_made_of(task): task.name for task in tasks.of("train") if len(task.primitives) > 1}
    for task in (*tasks.of("validation"), *tasks.of("test")):
        other = trained.get(_made_of(task))
        if other is not None:
            raise DataError(
                text("{name} is made of the same as {other}, which trains", name=task.name,
                     other=other),
                expected=text("combinations that train, or judge, not both"),
                found=" + ".join(task.primitives),
            )  # fmt: skip


def _made_of(task: Task) -> tuple[frozenset[str], str]:
    language = next((d.language for d in task.descriptions), "")
    return frozenset(task.primitives), language


def _check_judged(tasks: Iterable[Task], trained: dict[str, str]) -> None:
    for task in tasks:
        judged = (
            d
            for d in task.descriptions
            if d.set not in ("", "validation") or (task.split == "test" and not d.set)
        )
        for description in judged:
            other = trained.get(normalised(description.text))
            if other is not None:
                raise DataError(
                    text("a description of {name} both trains and judges", name=task.name),
                    expected=text("descriptions that occur on one side only"),
                    found=repr(description.text)[:80],
                    hint=text("it trains the task {name}", name=other),
                )


def _check_phrases(tasks: Sequence[Task]) -> None:
    """A phrase of a set that holds phrases out (all of its parts are new) must not train."""
    trained = {
        (primitive, normalised(phrase))
        for task in tasks
        for description in task.of_set()
        for primitive, phrase in description.parts.items()
    }
    for task in tasks:
        for description in task.descriptions:
            if not description.set.startswith("new words"):
                continue
            for primitive, phrase in description.parts.items():
                if (primitive, normalised(phrase)) in trained:
                    raise DataError(
                        text("a phrase of {name} both trains and judges", name=task.name),
                        expected=text("a set named new words… has phrases of its own only"),
                        found=repr(phrase)[:80],
                    )
