"""Adapters that a hypernetwork is held against: one for each task, and one for all of them.

What lies in the folder is read, if it was made with the settings and rows that are asked for; what
is missing is trained and kept there, so that the next call finds it. Knows task folders, bases and
adapters' folders; knows no hypernetwork at work.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import ConfigError, DataError
from detour.hypernetwork.tasks import Task, Tasks
from detour.language.catalogue import joined, text
from detour.model.base import Base
from detour.model.examples import Example
from detour.training.learned import learned_by
from detour.training.loop import train
from detour.training.many import AT_ONCE, how_made, train_many

Teller = Callable[[str], None]


def task_adapters(
    base: Base,
    tasks: Sequence[Task],
    folder: Path | None,
    *,
    targets: Sequence[str] | str,
    rank: int,
    alpha: float,
    steps: int,
    seed: int = 0,
    teller: Teller | None = None,
) -> dict[str, Adapter]:
    """Each task's own adapter, by the tasks' names; `folder/NAME` where they are kept.

    They are trained together on the tasks' training rows, from the same start.

    Raises:
        AdapterFormatError: what lies there cannot be read.
        WrongBase: it was made for another base.
        SlotError: it does not fit this one.
        ConfigError: it was made with other settings, another seed or other rows.
        DataError: no task.
    """
    if not tasks:
        raise DataError(text("there is no task to make an adapter of"))
    wanted = how_made(targets, rank, alpha, steps)
    found = {
        task.name: _kept(base, folder / task.name, wanted, seed, task.train)
        for task in tasks
        if folder is not None and (folder / task.name).is_dir()
    }
    missing = {task.name: task.train for task in tasks if task.name not in found}
    if not missing:
        return found
    if teller:
        told = text(
            "{count} of {all} tasks have no adapter yet; training them together, {steps} steps",
            count=len(missing), all=len(tasks), steps=steps,
        )  # fmt: skip
        teller(str(told))
    names = list(missing)
    for start in range(0, len(names), AT_ONCE):  # kept as they come: an interrupted run goes on
        chunk = {name: missing[name] for name in names[start : start + AT_ONCE]}
        made = train_many(
            base, chunk, targets=targets, rank=rank, alpha=alpha, steps=steps, seed=seed
        )
        for name, adapter in made.items():
            if folder is not None:
                adapter.save(folder / name)
            found[name] = adapter
    return {task.name: found[task.name] for task in tasks}


def one_for_all(
    base: Base,
    tasks: Tasks,
    folder: Path | None,
    *,
    described: bool,
    targets: Sequence[str] | str,
    rank: int,
    alpha: float,
    steps: int,
    batch_size: int,
    learning_rate: float = 2e-3,
    seed: int = 0,
    teller: Teller | None = None,
) -> Adapter:
    """One adapter on the rows of all training tasks; `described`: told a description with each.

    Give it the steps and the batch of the hypernetwork, and both have seen as many rows.

    Raises:
        As `task_adapters`, and TrainingError where the training made nothing better.
    """
    rows = [
        row
        for task in tasks.of("train")
        for row in (with_descriptions(task) if described else task.train)
    ]
    if folder is not None and folder.is_dir():
        wanted = {
            "targets": targets if isinstance(targets, str) else list(targets), "rank": rank,
            "alpha": alpha, "steps": steps, "batch_size": batch_size,
            "learning_rate": learning_rate,
        }  # fmt: skip
        return _kept(base, folder, wanted, seed, rows)
    if teller:
        said = text("training one adapter on {count} rows of all tasks, {steps} steps",
                    count=len(rows), steps=steps)  # fmt: skip
        teller(str(said))
    made = train(
        base, rows, rank=rank, alpha=alpha, targets=targets, steps=steps, batch_size=batch_size,
        learning_rate=learning_rate, seed=seed, name="all-tasks",
    )  # fmt: skip
    if folder is not None:
        made.save(folder)
    return made


def with_descriptions(task: Task) -> list[Example]:
    """Every training row with one of the task's descriptions in the system turn."""
    told = task.of_set()
    return [
        replace(
            row,
            messages=(
                {"role": "system", "content": told[place % len(told)].text},
                *(message for message in row.messages if message["role"] != "system"),
            ),
        )
        for place, row in enumerate(task.train)
    ]


def mean_of(adapters: Sequence[Adapter]) -> Chain:
    """The mean of their updates, as a chain; exact, of the rank of all together."""
    parts = [1 / len(adapters) * Chain.of(adapter) for adapter in adapters]
    return sum(parts[1:], parts[0])


def _kept(
    base: Base, folder: Path, wanted: Mapping[str, Any], seed: int, rows: Sequence[Example]
) -> Adapter:
    """The adapter in the folder, known to be what would be made now."""
    (term,) = base.bind(Chain.of(Adapter.load(folder))).terms
    card = term.adapter.card
    every = {**wanted, "seed": seed}
    told = {**card.config, "seed": card.seeds[0] if len(card.seeds) == 1 else None}
    other = [name for name, value in every.items() if told.get(name) != value]
    expected = [f"{name} {every[name]}" for name in other]
    found = [f"{name} {told.get(name, '?')}" for name in other]
    if not learned_by(term.adapter, rows):
        expected.append(text("trained on these {count} rows", count=len(rows)))
        found.append(text("trained on others"))
    if expected:
        raise ConfigError(
            text("{path} holds an adapter that was made otherwise", path=folder),
            expected=joined(", ", expected),
            found=joined(", ", found),
            hint=text("name another folder, or delete this one to have it trained anew"),
        )
    return term.adapter
