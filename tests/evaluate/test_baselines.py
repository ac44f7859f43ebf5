"""Adapters a hypernetwork is held against: read, trained where missing, kept."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.hypernetwork.tiny_tasks import PAIRS, PHRASES, told_of, write_task
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.errors import ConfigError, DataError, SlotError
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


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"steps": 3}, "steps"),
        ({"rank": 1}, "rank"),
        ({"alpha": 8.0}, "alpha"),
        ({"targets": ["v_proj"]}, "targets"),
        ({"seed": 1}, "seed"),
    ],
)
def test_what_was_made_otherwise_is_not_taken(
    base: Base, tasks: Tasks, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    """An adapter of other steps or rows would be measured under this run's name."""
    given = {**SIZE, "described": False, "batch_size": 4, "steps": 8}
    one_for_all(base, tasks, tmp_path / "all", **given)
    with pytest.raises(ConfigError, match="all holds an adapter that was made otherwise") as caught:
        one_for_all(base, tasks, tmp_path / "all", **{**given, **change})
    assert told in caught.value.expected
    assert "another folder" in str(caught.value.hint)
    some = tasks.of("train")[:2]
    task_adapters(base, some, tmp_path / "own", **SIZE)
    with pytest.raises(ConfigError, match="was made otherwise") as caught:
        task_adapters(base, some, tmp_path / "own", **{**SIZE, **change})
    assert told in caught.value.expected
    assert len(task_adapters(base, some, tmp_path / "own", **SIZE)) == 2


def test_what_learned_other_rows_is_not_taken(base: Base, tasks: Tasks, tmp_path: Path) -> None:
    some = list(tasks.of("train")[:2])
    task_adapters(base, some, tmp_path / "own", **SIZE)
    some[1] = replace(some[1], train=some[1].train[1:])
    with pytest.raises(ConfigError, match=f"{some[1].name} holds an adapter") as caught:
        task_adapters(base, some, tmp_path / "own", **SIZE)
    assert "rows" in caught.value.expected
    given = {**SIZE, "batch_size": 4, "steps": 8}
    one_for_all(base, tasks, tmp_path / "all", described=False, **given)
    with pytest.raises(ConfigError, match="was made otherwise"):
        one_for_all(base, tasks, tmp_path / "all", described=True, **given)


def test_what_says_nothing_of_its_making_is_not_taken(
    base: Base, tasks: Tasks, tmp_path: Path
) -> None:
    some = tasks.of("train")[:1]
    made = task_adapters(base, some, None, **SIZE)[some[0].name]
    made.with_(card=made.card.with_(config={}, seeds=())).save(tmp_path / "own" / some[0].name)
    with pytest.raises(ConfigError, match="was made otherwise") as caught:
        task_adapters(base, some, tmp_path / "own", **SIZE)
    assert "steps" in caught.value.expected


def test_rows_are_told_what_to_do(tasks: Tasks) -> None:
    task = tasks.of("train")[0]
    rows = with_descriptions(task)
    said = {row.messages[0]["content"] for row in rows}
    assert said <= {d.text for d in task.of_set()}
    assert len(said) > 1
    assert [row.messages[1:] for row in rows] == [row.messages for row in task.train]
