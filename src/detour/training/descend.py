"""The loop of every training here: steps, validations, the best weights, checkpoints, progress.

What a step computes is the caller's business. Knows parameters and numbers; knows no rows, no
tokens and no model.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from detour.errors import StorageError, TrainingError, is_out_of_memory
from detour.interrupt import AtOnce, BetweenSteps, whole_steps
from detour.language.catalogue import text
from detour.state_file import Identity, forget_state
from detour.team import ALONE, Team
from detour.training.checkpoint import State, Weights, load_state, save_state
from detour.training.config import Plan, TrainConfig, rate_at

SAVE_EVERY = 60.0  # seconds between checkpoints, at least
SAVE_SHARE = 0.05  # of the time, at most: a model of 1 B parameters is a state of 16 GB
T = TypeVar("T")
TIMES = "times"  # a group's rate as a multiple of the plan's

Pause = Callable[[], None]
"""Called between two batches of a validation: raises the Ctrl-C that came meanwhile."""


@dataclass(frozen=True)
class Progress:
    """What a watcher is told. `validation` is set where it was just measured."""

    step: int
    steps: int
    loss: float
    validation: float | None
    tokens_per_second: float
    seconds_left: float
    learning_rate: float = 0.0


Watcher = Callable[[Progress], None]


@dataclass(frozen=True)
class Step:
    """What one step computed; of a team's process its share, and the shares add up."""

    total: Tensor
    """What is differentiated."""
    loss: Tensor
    """What is told: nats a token, or whatever the task's loss is."""
    tokens: int
    """Of the whole batch."""


class Memory(Protocol):
    """What of a step is in memory at once, and may become less."""

    def less(self) -> str | None:
        """Take less at once, and say so; None where nothing is left to do."""
        ...

    def less_judged(self) -> str | None:
        """The same of a validation."""
        ...

    def kept(self) -> Mapping[str, Any]:
        """What is to lie in the state, as JSON."""
        ...


class Ledger(Protocol):
    """An account of a run that goes on where an interrupted one stopped."""

    def kept(self, seconds: float) -> Mapping[str, Any]:
        """What is to lie in the state, as JSON; the run has taken so many seconds by now."""
        ...

    def go_on(self, kept: Mapping[str, Any]) -> None:
        """Begin with what `kept` gave."""
        ...


@dataclass(frozen=True)
class Run:
    """How a training is watched, saved and resumed."""

    identity: Identity
    watcher: Watcher | None = None
    checkpoints: Path | None = None
    resume: bool = False
    patience: int = 0
    """Validations in a row without a better loss that end it; 0: it goes to its last step."""
    teller: Callable[[str], None] | None = None
    """Is told in words where it ends early."""
    ledger: Ledger | None = None
    team: Team = ALONE
    """The processes that train together; the first of them saves."""
    memory: Memory | None = None
    """Asked for less where a step does not fit; without it that is an error at once."""

    @property
    def folder(self) -> Path | None:
        """Where this process saves: only the first one does."""
        return self.checkpoints if self.team.leads else None


def optimiser_of(weights: Weights, plan: Plan, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW with the settings of every training here."""
    ups = {id(parameter) for parameter in weights.ups()} if config.up_rate != 1 else set[int]()
    groups = [
        {"params": [p for p in weights.parameters() if (id(p) in ups) is faster], TIMES: times}
        for faster, times in ((False, 1.0), (True, config.up_rate))
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        plan.learning_rate, (0.9, 0.99), weight_decay=config.weight_decay,
    )  # fmt: skip


def descend(
    weights: Weights,
    plan: Plan,
    config: TrainConfig,
    step_of: Callable[[int], Step],
    judge: Callable[[Pause], float],
    run: Run,
) -> State:
    """Train `weights` in place; the state holds the best of them by `judge`, and how it went.

    The last state is saved too: what comes after the training may fail.

    Raises:
        TrainingError: nothing got better, a loss that is no number before anything did, or a
            checkpoint that is damaged or of another run.
        KeyboardInterrupt passes through after the state was saved, and a second one without.
    """
    optimiser = optimiser_of(weights, plan, config)
    due = _validation_steps(plan.steps, config.validations)
    with whole_steps() as asked:
        between_steps, pause = _agreed(asked, run.team, weights)
        judged = partial(_judged, judge, pause, run)
        resumed = _resumed(weights, optimiser, run) or _begun(weights, judged())
        state = resumed
        pace = _Pace(plan, config, state, run)
        keeper = _Keeper(weights, optimiser, state, run, pace)

        def finish_step() -> None:
            measured = None
            if state.step in due:
                measured = judged()
                if measured < state.best_loss:
                    state.best = {}  # never two of them at once: it may be a whole model
                    state.best, state.best_loss = weights.snapshot(), measured
                    state.best_step = state.step
            state.told = state.step
            pace.tell(measured)

        diverged = False
        try:
            if state.told < state.step:  # a validation was interrupted
                finish_step()
            while state.step < plan.steps and not _tired(state, due, run.patience):
                for group in optimiser.param_groups:
                    group["lr"] = rate_at(state.step, plan, config.warmup) * group[TIMES]
                step = _differentiated(step_of, state.step, optimiser, run)
                diverged = not _taken(step, weights, optimiser, config, run.team)
                if diverged:
                    break
                state.step += 1
                pace.add(step)
                finish_step()
                keeper.now_and_then()
                between_steps()
        except AtOnce:  # inside a step: that is no state
            raise
        except RuntimeError as cause:
            if is_out_of_memory(cause):  # the step was not taken: the weights are those before it
                keeper.save()
            raise
        except KeyboardInterrupt:
            keeper.save()
            run.team.wait()  # who leaves first has the others ended
            raise
        _check_better(state, diverged, run)
        keeper.at_the_end()
    _say_how_it_ended(state, plan, diverged, run)
    return state


def _agreed(asked: BetweenSteps, team: Team, weights: Weights) -> tuple[Pause, Pause]:
    """What is called between two steps, and between two batches of a validation.

    A team leaves together, and only between two steps: inside of one the others would wait for ever
    for who is gone.
    """
    if team.size == 1:
        return asked, asked
    team.align(weights.parameters())
    device = next(iter(weights.parameters())).device

    def between_steps() -> None:
        if team.any(asked.asked, device):
            raise KeyboardInterrupt

    return between_steps, lambda: None


def _resumed(weights: Weights, optimiser: torch.optim.AdamW, run: Run) -> State | None:
    if not run.resume or not run.checkpoints:
        return None
    state = load_state(run.checkpoints, run.identity, weights, optimiser)
    at = state.step if state else -1
    differs = run.team.from_leader(lambda: at) != at
    if run.team.any(differs, next(iter(weights.parameters())).device):
        raise TrainingError(
            text("the processes find different states to go on from"),
            expected=text("one folder that all of them see"), found=str(run.checkpoints),
        )  # fmt: skip
    if state and state.ledger and run.ledger:
        run.ledger.go_on(state.ledger)
    return state


def _begun(weights: Weights, first: float) -> State:
    if not math.isfinite(first):
        raise TrainingError(
            text("the loss is no number before the first step"),
            found=str(first),
            hint=text("another --dtype, such as float32, or other rows"),
        )
    return State(0, weights.snapshot(), first, first)


def _differentiated(
    step_of: Callable[[int], Step], number: int, optimiser: torch.optim.AdamW, run: Run
) -> Step:
    """A step with its gradients; where memory runs out it begins anew with less at once."""

    def attempt() -> Step:
        step = step_of(number)
        step.total.backward()
        return step

    def begin_anew() -> str | None:
        optimiser.zero_grad(set_to_none=True)
        return run.memory.less() if run.memory else None

    return _within_memory(attempt, begin_anew, run)


def _judged(judge: Callable[[Pause], float], pause: Pause, run: Run) -> float:
    """A validation, the same number for all of a team, with less at once where it did not fit."""

    def less() -> str | None:
        return run.memory.less_judged() if run.memory else None

    measured = _within_memory(partial(judge, pause), less, run)
    return run.team.from_leader(lambda: measured)


def _within_memory(attempt: Callable[[], T], less: Callable[[], str | None], run: Run) -> T:
    """What an attempt gives; where memory runs out, again after `less` has found a way and said it.

    What a failed attempt holds, and its traceback, is gone before the next one.
    """
    while True:
        try:
            return attempt()
        except RuntimeError as cause:
            told = less() if is_out_of_memory(cause) else None
            if told is None:
                raise
        torch.cuda.empty_cache()
        if run.teller:
            run.teller(told)


def _taken(
    step: Step, weights: Weights, optimiser: torch.optim.AdamW, config: TrainConfig, team: Team
) -> bool:
    """Move the weights; where loss or gradient is no number, they stay, and this is false."""
    if team.size > 1:
        parameters = list(weights.parameters())
        for parameter in parameters:  # every process sends as many numbers
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        team.sum([*(p.grad for p in parameters if p.grad is not None), step.loss])
    norm = torch.nn.utils.clip_grad_norm_(weights.parameters(), config.clip)
    finite = bool(norm.isfinite()) and bool(step.loss.detach().isfinite())
    if finite:
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return finite


def _check_better(state: State, diverged: bool, run: Run) -> None:
    """A training that made nothing better is an error; nothing goes on from its state."""
    if state.best_step > 0:
        return
    if run.folder:
        forget_state(run.folder)
    if diverged:
        raise TrainingError(
            text("the loss is no number any more, at step {step}", step=state.step + 1),
            hint=text("a lower --learning-rate"),
        )
    raise TrainingError(
        text("the training changed nothing for the better"),
        expected=text(
            "a validation loss below {first_loss:.4f}, where it began", first_loss=state.first_loss
        ),
        found=text("{best_loss:.4f} at best", best_loss=state.best_loss),
        hint=text("another learning rate, more steps, or rows that the base does not know yet"),
    )


def _say_how_it_ended(state: State, plan: Plan, diverged: bool, run: Run) -> None:
    if run.teller is None or state.step == plan.steps:
        return
    if diverged:
        run.teller(
            text("the loss is no number any more, at step {step}: the training ends there, and "
                 "step {best}, the best before it, is kept; try a lower --learning-rate",
                 step=state.step + 1, best=state.best_step)
        )  # fmt: skip
        return
    run.teller(
        text("stopped after step {step} of {steps}: {count} validations without a better loss",
             step=state.step, steps=plan.steps, count=run.patience)
    )  # fmt: skip


def _validation_steps(steps: int, times: int) -> set[int]:
    """Evenly spread, the last step always among them."""
    return {max(1, round(steps * (number + 1) / times)) for number in range(times)}


def _tired(state: State, due: set[int], patience: int) -> bool:
    """Whether so many validations in a row found nothing better, after some that did.

    High rates may make everything worse at first: 60 short texts were learned only after half of
    the steps.
    """
    waited = sum(state.best_step < step <= state.step for step in due)
    return 0 < patience <= waited and state.best_step > 0


class _Pace:
    """Turns steps into progress: smoothed loss, tokens per second, time left."""

    def __init__(self, plan: Plan, config: TrainConfig, state: State, run: Run) -> None:
        self._plan = plan
        self._warmup = config.warmup
        self._state = state
        self._watcher = run.watcher
        self._began = time.monotonic() - state.earlier

    @property
    def seconds(self) -> float:
        """Of this stretch and those before it."""
        return time.monotonic() - self._began

    def add(self, step: Step) -> None:
        """A step was taken. Its loss is looked at only where somebody listens."""
        self._state.tokens += step.tokens
        if self._watcher:
            now, before = float(step.loss.detach()), self._state.smoothed
            self._state.smoothed = now if before is None else 0.9 * before + 0.1 * now

    def tell(self, validation: float | None) -> None:
        """Tell the last step."""
        if self._watcher is None:
            return
        number, steps, took = self._state.step, self._plan.steps, max(self.seconds, 1e-9)
        loss = math.nan if self._state.smoothed is None else self._state.smoothed
        rate = rate_at(number - 1, self._plan, self._warmup)
        left = took / number * (steps - number)
        speed = self._state.tokens / took
        self._watcher(Progress(number, steps, loss, validation, speed, left, rate))


class _Keeper:
    """Saves the state: now and then, when interrupted, and at the end."""

    def __init__(
        self,
        weights: Weights,
        optimiser: torch.optim.AdamW,
        state: State,
        run: Run,
        pace: _Pace,
    ) -> None:
        self._weights = weights
        self._optimiser = optimiser
        self._state = state
        self._run = run
        self._pace = pace
        self._last = time.monotonic()
        self._took = 0.0
        self._kept = state.step if run.resume else -1

    def now_and_then(self) -> None:
        """Save where the last time is long enough ago, by the clock and by what it took."""
        if time.monotonic() - self._last > max(SAVE_EVERY, self._took / SAVE_SHARE):
            self._try_to_save()

    def at_the_end(self) -> None:
        """Save what is not saved yet."""
        if self._kept != self._state.step:
            self._try_to_save()

    def _try_to_save(self) -> None:
        """A disk that is full does not end a training: what is learned is worth more."""
        try:
            self.save()
        except StorageError as fault:
            self._last = time.monotonic()
            if self._run.teller:
                self._run.teller(text("the state is not saved: {fault}", fault=fault.line))

    def save(self) -> None:
        """Write the state, where there is a folder for it."""
        run, seconds = self._run, self._pace.seconds
        if run.folder is None:
            return
        began = time.monotonic()
        if run.ledger:
            self._state.ledger = run.ledger.kept(seconds)
        if run.memory:
            self._state.fit = run.memory.kept()
        save_state(run.folder, run.identity, self._weights, self._optimiser, self._state, seconds)
        self._last, self._kept = time.monotonic(), self._state.step
        self._took = self._last - began
