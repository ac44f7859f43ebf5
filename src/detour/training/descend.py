"""The loop of every training here: steps, validations, the best weights, checkpoints, progress.

What a step computes is the caller's business. Knows parameters and numbers; knows no rows, no
tokens and no model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from detour.interrupt import whole_steps
from detour.state_file import Identity
from detour.training.checkpoint import State, Weights, load_state, save_state
from detour.training.config import Plan, TrainConfig, rate_at

SAVE_EVERY = 60.0  # seconds between checkpoints
TIMES = "times"  # a group's rate as a multiple of the plan's


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
    """What one step computed."""

    total: Tensor
    """What is differentiated."""
    loss: Tensor
    """What is told: nats a token, or whatever the task's loss is."""
    tokens: int


@dataclass(frozen=True)
class Run:
    """How a training is watched, saved and resumed."""

    identity: Identity
    watcher: Watcher | None = None
    checkpoints: Path | None = None
    resume: bool = False
    patience: int = 0
    """Validations in a row without a better loss that end it; 0: it goes to its last step."""


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
    judge: Callable[[], float],
    run: Run,
) -> State:
    """Train `weights` in place; the state holds the best of them by `judge`, and how it went.

    Raises:
        TrainingError: a checkpoint that is damaged or of another run.
        KeyboardInterrupt passes through after the state was saved.
    """
    optimiser = optimiser_of(weights, plan, config)
    folder = run.checkpoints
    resumed: State | None = None
    if run.resume and folder:
        resumed = load_state(folder, run.identity, weights, optimiser)
    told = _Teller(plan.steps, run.watcher)
    with whole_steps() as between_steps:
        if resumed is None:
            first = judge()
            resumed = State(0, weights.snapshot(), first, first)
        state = resumed
        due = _validation_steps(plan.steps, config.validations)
        saved = time.monotonic()
        try:
            while state.step < plan.steps and not _tired(state, due, run.patience):
                for group in optimiser.param_groups:
                    group["lr"] = rate_at(state.step, plan, config.warmup) * group[TIMES]
                step = step_of(state.step)
                step.total.backward()
                torch.nn.utils.clip_grad_norm_(weights.parameters(), config.clip)
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
                state.step += 1
                measured = None
                if state.step in due:
                    measured = judge()
                    if measured < state.best_loss:
                        state.best, state.best_loss = weights.snapshot(), measured
                        state.best_step = state.step
                told(state.step, step, measured, optimiser.param_groups[0]["lr"])
                if folder and time.monotonic() - saved > SAVE_EVERY:
                    save_state(folder, run.identity, weights, optimiser, state)
                    saved = time.monotonic()
                between_steps()
        except KeyboardInterrupt:
            if folder:
                save_state(folder, run.identity, weights, optimiser, state)
            raise
    return state


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


class _Teller:
    """Turns steps into progress: smoothed loss, tokens per second, time left."""

    def __init__(self, steps: int, watcher: Watcher | None) -> None:
        self.steps = steps
        self.watcher = watcher
        self.began = time.monotonic()
        self.tokens = 0
        self.done = 0
        self.smoothed: float | None = None

    def __call__(self, number: int, step: Step, validation: float | None, rate: float) -> None:
        if self.watcher is None:
            return
        now = float(step.loss.detach())
        self.smoothed = now if self.smoothed is None else 0.9 * self.smoothed + 0.1 * now
        self.tokens += step.tokens
        self.done += 1
        took = max(time.monotonic() - self.began, 1e-9)
        left = took / self.done * (self.steps - number)
        self.watcher(
            Progress(number, self.steps, self.smoothed, validation, self.tokens / took, left, rate)
        )
