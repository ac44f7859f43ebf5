"""The loop that both objectives share: steps, rates, clipping by groups, validation, checkpoints.

What a step minimises and what validation measures are handed in. What is drawn depends on seed and
step alone, so that a resumed run is the same run. Knows networks and state; knows no tasks, no base
and no adapters.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detour.errors import TrainingError
from detour.hypernetwork.config import SuperviseConfig
from detour.hypernetwork.network import Generated, Hypernetwork
from detour.hypernetwork.state import State, load_state, save_state
from detour.interrupt import AtOnce, whole_steps
from detour.language.catalogue import text
from detour.state_file import FILE, Identity
from detour.team import ALONE, Team

SAVE_EVERY = 60.0  # seconds between checkpoints


@dataclass(frozen=True)
class Progress:
    """What a watcher is told; `validation` where it was just taken."""

    step: int
    steps: int
    loss: float
    """Supervised: nats a token. Reconstruction: relative squared error."""
    named: float
    """Nats a primitive."""
    size: float
    """‖ΔW‖ of the generated updates, mean over layers and rows."""
    validation: float | None
    seconds_left: float


Watcher = Callable[[Progress], None]


@dataclass(frozen=True, eq=False)
class Step:
    """One step's losses, and what was generated for it."""

    loss: Tensor
    named: Tensor
    generated: Generated
    fraction: float = 1.0
    """Share of the batch's rows that are this process's; the losses add up to the batch's."""


@dataclass(frozen=True)
class Run:
    """How a training is watched, saved and resumed."""

    identity: Identity = field(default_factory=lambda: {})
    """What must be equal for a checkpoint to fit."""
    watcher: Watcher | None = None
    checkpoints: Path | None = None
    resume: bool = False
    team: Team = ALONE
    """The processes that train together; the first of them saves and is watched."""
    teller: Callable[[str], None] | None = None
    """Told what goes on before the first step."""

    @property
    def goes_on(self) -> bool:
        """Whether an interrupted one is there to be resumed."""
        return self.resume and self.checkpoints is not None and (self.checkpoints / FILE).exists()


def optimise(
    network: Hypernetwork,
    config: SuperviseConfig,
    step_of: Callable[[int, random.Random], Step],
    judge: Callable[[], float],
    run: Run,
) -> State:
    """Train `network` in place; it ends with the weights that `judge` found best.

    `step_of` is given the number of the step, from 0, and random numbers of its own.

    Raises:
        TrainingError: a checkpoint of another run, or a loss that is no number any more.
            KeyboardInterrupt passes between two steps, after a save; a second one at once, without.
    """
    optimiser = torch.optim.AdamW(
        _decayed(network, config.weight_decay), config.learning_rate, (0.9, 0.99)
    )
    state = State()
    if run.resume and run.checkpoints:
        state = load_state(run.checkpoints, run.identity, network, optimiser) or state
    run.team.align(network.parameters())
    due = {round(config.steps * (n + 1) / config.validations) for n in range(config.validations)}
    began = saved = time.monotonic()
    first = state.step
    watcher = run.watcher if run.team.leads else None
    checkpoints = run.checkpoints if run.team.leads else None
    stopped = False
    with whole_steps() as between_steps:
        try:
            while state.step < config.steps:
                step = _take(network, optimiser, config, state.step, step_of, run.team)
                state.step += 1
                validation = None
                if state.step in due:
                    validation = _validated(network, judge)
                    state.keep(validation, network)
                if watcher:
                    took = (time.monotonic() - began) / (state.step - first)
                    left = took * (config.steps - state.step)
                    watcher(_progress(step, state, config, validation, left))
                if checkpoints and time.monotonic() - saved > SAVE_EVERY:
                    save_state(checkpoints, run.identity, network, optimiser, state)
                    saved = time.monotonic()
                # one that comes after the others were asked waits until they are asked again
                stopped = run.team.any(between_steps.asked, network.device)
                if stopped:
                    raise KeyboardInterrupt
        except AtOnce:  # inside a step: that is no state
            raise
        except KeyboardInterrupt:
            if checkpoints:
                save_state(checkpoints, run.identity, network, optimiser, state)
            if stopped:  # so all are here; who leaves first has the others ended
                run.team.wait()
            raise
    if state.best:
        network.load_state_dict(state.best)
    network.eval()
    return state


def _decayed(network: Hypernetwork, decay: float) -> list[dict[str, Any]]:
    """Matrices decay; biases, norms and embeddings do not, as they are where a head begins."""
    matrices = {id(m.weight) for m in network.modules() if isinstance(m, nn.Linear)}
    parameters = list(network.parameters())
    return [
        {"params": [p for p in parameters if id(p) in matrices], "weight_decay": decay},
        {"params": [p for p in parameters if id(p) not in matrices], "weight_decay": 0.0},
    ]


def _take(
    network: Hypernetwork,
    optimiser: torch.optim.AdamW,
    config: SuperviseConfig,
    number: int,
    step_of: Callable[[int, random.Random], Step],
    team: Team,
) -> Step:
    """One step: what it minimises, its gradient clipped by groups, the weights moved."""
    for group in optimiser.param_groups:
        group["lr"] = rate_at(number, config)
    rng = random.Random(f"{config.seed}/{number}")
    torch.manual_seed(rng.randrange(2**31) + team.rank)  # dropout
    network.train()
    step = step_of(number, rng)
    total = step.loss + config.identify * step.named
    if config.penalty:
        total = total + config.penalty * step.fraction * _mean_square(step.generated)
    total.backward()
    whole = total.detach().clone()
    if team.size > 1:
        for parameter in network.parameters():  # every process sends as many numbers
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        team.sum([*gradients, whole, step.loss, step.named])
    if not whole.isfinite():
        raise TrainingError(
            text("the loss is no number any more, at step {step}", step=number + 1),
            found=str(float(whole)),
            hint=text("a lower --learning-rate"),
        )
    for parameters in network.groups().values():
        torch.nn.utils.clip_grad_norm_(parameters, config.clip)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return step


@torch.no_grad()
def _validated(network: Hypernetwork, judge: Callable[[], float]) -> float:
    network.eval()
    return judge()


def _progress(
    step: Step, state: State, config: SuperviseConfig, validation: float | None, left: float
) -> Progress:
    loss, named = float(step.loss.detach()), float(step.named.detach())
    size = generated_size(step.generated)
    return Progress(state.step, config.steps, loss, named, size, validation, left)


def rate_at(step: int, config: SuperviseConfig) -> float:
    """Rises linearly, then falls as a cosine to 2 % of the highest rate."""
    rising = max(1, round(config.warmup * config.steps))
    if step < rising:
        return config.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, config.steps - rising)
    return config.learning_rate * (0.02 + 0.98 * (1 + math.cos(math.pi * done)) / 2)


def _mean_square(generated: Generated) -> Tensor:
    return torch.stack(
        [factor.square().mean() for pair in generated.factors.values() for factor in pair]
    ).mean()


@torch.no_grad()
def generated_size(generated: Generated) -> float:
    """Mean over rows and layers of ‖ΔW‖, by r × r Gram matrices."""
    sizes = [
        ((down @ down.mT) * (up @ up.mT)).sum((1, 2)).clamp(min=0).sqrt().mean()
        for down, up in generated.factors.values()
    ]
    return float(torch.stack(sizes).mean()) * generated.scale
