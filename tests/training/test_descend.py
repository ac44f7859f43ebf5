"""The loop of every training, on a point that rolls towards another: no model is needed."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detour.errors import StorageError, TrainingError
from detour.interrupt import AtOnce
from detour.state_file import FILE, read_state, read_told
from detour.training import descend as loop
from detour.training.checkpoint import State
from detour.training.config import Plan, make_config
from detour.training.descend import Progress, Run, Step, descend

CONFIG = make_config({"validations": 3})
PLAN = Plan(0.1, 12, ())
IDENTITY = {"run": "this"}


class Point:
    """Two numbers that learn."""

    def __init__(self) -> None:
        self.place = nn.Parameter(torch.tensor([4.0, -2.0]))

    def parameters(self) -> Iterator[nn.Parameter]:
        yield self.place

    def ups(self) -> Iterator[nn.Parameter]:
        return iter(())

    def values(self) -> dict[str, Tensor]:
        return {"place": self.place.detach()}

    def snapshot(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.values().items()}

    def restore(self, taken: dict[str, Tensor]) -> None:
        with torch.no_grad():
            self.place.copy_(taken["place"])


class Task:
    """Squared distance from 0; what goes wrong, and when, is the test's."""

    def __init__(self, spoil: dict[int, float] | None = None) -> None:
        self.point = Point()
        self.spoil = spoil or {}
        self.steps = 0
        self.judged = 0
        self.between: Callable[[int], None] = lambda _: None
        """Called between two batches of a validation, with the validation's number."""

    def step(self, number: int) -> Step:
        self.steps += 1
        loss = self.point.place.square().sum() * self.spoil.get(number, 1.0)
        return Step(loss, loss.detach(), 5)

    def judge(self, pause: Callable[[], None]) -> float:
        self.judged += 1
        self.between(self.judged)
        pause()
        return float(self.point.place.detach().square().sum())

    def descend(self, **more: Any) -> State:
        return descend(self.point, PLAN, CONFIG, self.step, self.judge, Run(IDENTITY, **more))


class Watching:
    """Keeps what it is told; stops at a step, as Ctrl-C would."""

    def __init__(self, stop_at: int = 0) -> None:
        self.told: list[Progress] = []
        self.stop_at = stop_at

    def __call__(self, progress: Progress) -> None:
        self.told.append(progress)
        if progress.step == self.stop_at:
            raise KeyboardInterrupt


class Pages:
    """A ledger that counts how far it was kept."""

    def __init__(self) -> None:
        self.begun: dict[str, Any] = {}

    def kept(self, seconds: float) -> dict[str, Any]:
        return {"seconds": seconds, "before": self.begun.get("seconds", 0.0)}

    def go_on(self, kept: dict[str, Any]) -> None:
        self.begun = dict(kept)


# ---- a loss that is no number --------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_loss_that_is_no_number_ends_the_run_at_its_step(wrong: float, tmp_path: Path) -> None:
    task = Task({2: wrong})
    with pytest.raises(TrainingError, match="no number any more, at step 3") as caught:
        task.descend(checkpoints=tmp_path)
    assert task.steps == 3
    assert "--learning-rate" in caught.value.hint
    assert bool(task.point.place.isfinite().all())  # the step was not taken
    assert not (tmp_path / FILE).exists()  # nothing that could be gone on with


def test_what_was_best_before_it_is_kept_and_that_is_said() -> None:
    task, told = Task({6: math.nan}), list[str]()
    state = task.descend(teller=told.append)
    assert (state.step, state.best_step, task.steps) == (6, 4, 7)
    assert any("no number any more, at step 7" in line and "step 4" in line for line in told)
    assert math.isfinite(state.best_loss)


def test_a_gradient_that_is_no_number_does_the_same() -> None:
    task = Task()

    def step(number: int) -> Step:
        loss = (task.point.place.square().sum() * 0).sqrt()  # 0, and its gradient is 0 / 0
        return Step(loss, loss.detach(), 1)

    with pytest.raises(TrainingError, match="at step 1"):
        descend(task.point, PLAN, CONFIG, step, task.judge, Run(IDENTITY))


def test_a_base_whose_loss_is_no_number_is_told_before_the_first_step() -> None:
    task = Task()
    with pytest.raises(TrainingError, match="before the first step") as caught:
        descend(task.point, PLAN, CONFIG, task.step, lambda _: math.nan, Run(IDENTITY))
    assert task.steps == 0
    assert "--dtype" in caught.value.hint


# ---- Ctrl-C --------------------------------------------------------------------------------------


def test_a_validation_is_left_between_two_batches_and_taken_up_again(tmp_path: Path) -> None:
    whole, heard = Task(), Watching()
    state = whole.descend(watcher=heard)
    task, first = Task(), Watching()
    task.between = lambda number: signal.raise_signal(signal.SIGINT) if number == 3 else None
    with pytest.raises(KeyboardInterrupt):
        task.descend(checkpoints=tmp_path, watcher=first)
    assert task.steps == 8
    assert [told.step for told in first.told] == list(range(1, 8))  # step 8 is not judged yet
    again, rest = Task(), Watching()
    resumed = again.descend(checkpoints=tmp_path, resume=True, watcher=rest)
    assert [told.step for told in rest.told] == list(range(8, 13))
    assert (resumed.best_loss, resumed.best_step) == (state.best_loss, state.best_step)
    assert torch.equal(resumed.best["place"], state.best["place"])
    assert [told.loss for told in (*first.told, *rest.told)] == [t.loss for t in heard.told]
    assert [t.validation for t in (*first.told, *rest.told)] == [t.validation for t in heard.told]


def test_a_second_ctrl_c_acts_at_once_and_saves_nothing(tmp_path: Path) -> None:
    task = Task()
    genuine = task.step

    def step(number: int) -> Step:
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return genuine(number)

    with pytest.raises(AtOnce):
        descend(task.point, PLAN, CONFIG, step, task.judge, Run(IDENTITY, checkpoints=tmp_path))
    assert task.steps == 5
    assert not (tmp_path / FILE).exists()  # half a step is no state


# ---- what lies on the disk -----------------------------------------------------------------------


def test_the_last_state_is_saved_and_going_on_from_it_trains_nothing(tmp_path: Path) -> None:
    state = Task().descend(checkpoints=tmp_path)
    again = Task()
    resumed = again.descend(checkpoints=tmp_path, resume=True)
    assert again.steps == again.judged == 0
    assert torch.equal(resumed.best["place"], state.best["place"])


def test_a_run_that_made_nothing_better_leaves_no_state(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", -1.0)
    losses = iter(range(1, 9))
    task = Task()
    with pytest.raises(TrainingError, match="changed nothing for the better"):
        descend(task.point, PLAN, CONFIG, task.step, lambda _: float(next(losses)),
                Run(IDENTITY, checkpoints=tmp_path))  # fmt: skip
    assert task.steps == 12
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize(("took", "saves"), [(0.0, 12), (1.0, 1), (0.06, 6)])
def test_saving_takes_a_small_share_of_the_time(
    took: float, saves: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps of a second; a save may take a twentieth of the time between two."""
    clock, saved = [0.0], list[int]()
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.5)
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def save(*given: Any) -> None:
        clock[0] += took
        saved.append(given[-2].step)

    monkeypatch.setattr(loop, "save_state", save)
    task = Task()
    genuine = task.step

    def step(number: int) -> Step:
        clock[0] += 1.0
        return genuine(number)

    descend(task.point, PLAN, CONFIG, step, task.judge, Run(IDENTITY, checkpoints=tmp_path))
    assert saved[-1] == 12
    periodic = saved[:-1] if took else saved
    assert len(periodic) == saves, saved


def test_a_resumed_run_goes_on_counting(tmp_path: Path) -> None:
    first, ledger = Watching(7), Pages()
    with pytest.raises(KeyboardInterrupt):
        Task().descend(checkpoints=tmp_path, watcher=first, ledger=ledger)
    found = read_state(tmp_path, IDENTITY)
    assert found is not None
    told = found[0]
    assert (told["step"], told["tokens"]) == (7, 35)
    assert told["seconds"] > 0
    rest, again = Watching(), Pages()
    state = Task().descend(checkpoints=tmp_path, resume=True, watcher=rest, ledger=again)
    assert again.begun["seconds"] == pytest.approx(told["seconds"], abs=0.1)
    assert state.tokens == 60
    assert state.earlier == told["seconds"]
    straight = Watching()
    Task().descend(watcher=straight)
    assert [p.loss for p in (*first.told, *rest.told)] == [p.loss for p in straight.told]


# ---- a memory that is full -----------------------------------------------------------------------


class Room:
    """Memory that becomes less so often."""

    def __init__(self, often: int) -> None:
        self.left = often
        self.begun: dict[str, Any] = {}

    def less(self) -> str | None:
        if not self.left:
            return None
        self.left -= 1
        return f"{self.left} left"

    def less_judged(self) -> str | None:
        return self.less()

    def kept(self) -> dict[str, Any]:
        return {"left": self.left}


def full_at(task: Task, step: int, times: int) -> Callable[[int], Step]:
    failures = iter(range(times))

    def tried(number: int) -> Step:
        found = task.step(number)
        if number == step and next(failures, None) is not None:
            found.total.backward()  # part of the gradient is there already
            raise torch.OutOfMemoryError("CUDA out of memory")
        return found

    return tried


def test_a_step_that_did_not_fit_begins_anew_and_counts_once() -> None:
    plain = Task().descend()
    task, told = Task(), list[str]()
    state = descend(task.point, PLAN, CONFIG, full_at(task, 3, 2), task.judge,
                    Run(IDENTITY, teller=told.append, memory=Room(5)))  # fmt: skip
    assert told == ["4 left", "3 left"]
    assert task.steps == PLAN.steps + 2
    assert state.best_loss == plain.best_loss
    assert state.tokens == plain.tokens


def test_where_nothing_can_become_less_it_is_an_error() -> None:
    for memory in (None, Room(1)):
        task = Task()
        with pytest.raises(torch.OutOfMemoryError):
            descend(task.point, PLAN, CONFIG, full_at(task, 3, 2), task.judge,
                    Run(IDENTITY, memory=memory))  # fmt: skip


def test_what_a_run_had_become_lies_in_its_state(tmp_path: Path) -> None:
    task = Task()
    descend(task.point, PLAN, CONFIG, full_at(task, 3, 2), task.judge,
            Run(IDENTITY, checkpoints=tmp_path, memory=Room(5)))  # fmt: skip
    told = read_told(tmp_path, IDENTITY)
    assert told is not None
    assert told["fit"] == {"left": 3}


def test_a_validation_that_did_not_fit_is_taken_again() -> None:
    task, told = Task(), list[str]()
    failures = iter(range(2))

    def judge(pause: Callable[[], None]) -> float:
        if next(failures, None) is not None:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate")
        return task.judge(pause)

    descend(task.point, PLAN, CONFIG, task.step, judge,
            Run(IDENTITY, teller=told.append, memory=Room(5)))  # fmt: skip
    assert told == ["4 left", "3 left"]
    assert task.judged == 4


def test_a_full_disk_does_not_end_a_training(tmp_path: Path, monkeypatch) -> None:
    def full(*_: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(loop, "save_state", full)
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    task, told = Task(), list[str]()
    state = task.descend(checkpoints=tmp_path, teller=told.append)
    assert state.step == PLAN.steps
    assert told[-1] == "the state is not saved: the disk is full"
