"""The state of an interrupted training run, on disk, so that resuming gives the same adapter.

Factors, the best factors so far, AdamW's moments. Batches depend on seed and step alone, so no
random state is kept. Knows factors; the file itself is `state_file`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from detour.state_file import (
    Identity,
    moments_of,
    read_state,
    restore_moments,
    under,
    write_state,
)
from detour.training.factors import Snapshot


class Weights(Protocol):
    """What is saved: parameters that can be copied and put back."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """All of them, in a fixed order."""
        ...

    def ups(self) -> Iterator[nn.Parameter]:
        """Those that learn at LoRA+'s rate."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy, by name."""
        ...

    def restore(self, taken: Snapshot) -> None:
        """The inverse of `snapshot`."""
        ...


@dataclass
class State:
    """Where a run stands."""

    step: int
    best: Snapshot
    best_loss: float
    first_loss: float
    best_step: int = 0


def save_state(
    folder: Path, run: Identity, factors: Weights, optimiser: torch.optim.AdamW, state: State
) -> Path:
    """Write the state atomically. `run` identifies settings, base and data.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors = {f"now.{name}": tensor for name, tensor in factors.snapshot().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    tensors |= moments_of(optimiser, factors.parameters())
    told = {
        "step": state.step,
        "best_loss": state.best_loss,
        "first_loss": state.first_loss,
        "best_step": state.best_step,
    }
    return write_state(folder, run, told, tensors)


def load_state(
    folder: Path, run: Identity, factors: Weights, optimiser: torch.optim.AdamW
) -> State | None:
    """Restore factors and moments in place; None where there is no checkpoint.

    Raises:
        TrainingError: the checkpoint is damaged, or belongs to other settings, base or data.
    """
    found = read_state(folder, run)
    if found is None:
        return None
    told, tensors = found
    factors.restore(under("now.", tensors))
    step = int(told["step"])
    restore_moments(optimiser, factors.parameters(), tensors, step)
    best = under("best.", tensors)
    return State(step, best, told["best_loss"], told["first_loss"], told["best_step"])
