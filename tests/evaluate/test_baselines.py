"""Adapters a hypernetwork is held against: read, trained where missing, kept."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hypernetwork.tiny_tasks import PAIRS, PHRASES, told_of, write_task
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.errors import DataError, SlotError
from detour.evaluate.baselines import one_for_all, task_adapters, with_descriptions
from detour.hypernetwork.tasks import Tasks, read_tasks
from detour.model.base import Base

SIZE = {"targets": ["q_proj"], "rank": 2, "alpha": 4.0, "steps": 2}


@pytest.fixture
def base(
    make_model: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> Base:
    return Base.from_model(make_model("llama"), tiny_tokenizer)


@pytest.fixture
def tasks(tmp_path: Path) -> Tasks:
    for name in PHRASES:
        write_task(tmp_path / "tasks", name, told_of((name,), "train", marked=True))
    for pair, split in zip(PAIRS, ("train", "train", "validation", "test"), strict=True):
        write_task(tmp_path / "tasks", "-".join(pair), told_of(pair, split, marked=True))
    return read_tasks(tmp_path / "tasks")


def test_only_what_is_missing_is_trained(base: Base, tasks: Tasks, tmp_path: Path) -> None:
    told: list[str] = []
    first = task_adapters(base, tasks.of("train")[:2], tmp_path / "own", teller=told.append, **SIZE)
    every = task_adapters(base, tasks.every, tmp_path / "own", teller=told.append, **SIZE)
    assert [line.split(" tasks")[0] for line in told] == ["2 of 2", "6 of 8"]
    assert list(every) == [task.name for task in tasks.every]
    for name, adapter in first.items():
        assert adapter.digest() == every[name].digest()
    assert all((tmp_path / "own" / task.name).is_dir() for task in tasks.every)
    kept = task_adapters(base, tasks.every, None, **SIZE)  # trained, and kept nowhere
    assert set(kept) == set(every)


def test_what_does_not_fit_is_refused(base: Base, tasks: Tasks, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no task"):
        task_adapters(base, [], None, **SIZE)
    with pytest.raises(SlotError):
        task_adapters(base, tasks.every, None, **{**SIZE, "targets": ["nothing"]})


def test_one_adapter_for_all(base: Base, tasks: Tasks, tmp_path: Path) -> None:
    given = {**SIZE, "described": False, "batch_size": 4, "steps": 8}
    made = one_for_all(base, tasks, tmp_path / "all", **given)
    again = one_for_all(base, tasks, tmp_path / "all", **given)
    assert made.digest() == again.digest()


def test_rows_are_told_what_to_do(tasks: Tasks) -> None:
    task = tasks.of("train")[0]
    rows = with_descriptions(task)
    said = {row.messages[0]["content"] for row in rows}
    assert said <= {d.text for d in task.of_set()}
    assert len(said) > 1
    assert [row.messages[1:] for row in rows] == [row.messages for row in task.train]
