"""The state of an interrupted training run, on disk, so that resuming gives the same adapter.

Factors, the best factors so far, AdamW's moments, and what was counted: tokens, seconds, a ledger.
Batches depend on seed and step alone, so no random state is kept. Knows factors; the file itself
is `state_file`'s business.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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

    def values(self) -> Snapshot:
        """All of it by name, as it stands, not copied."""
        ...

    def snapshot(self) -> Snapshot:
        """A copy of `values`."""
        ...

    def restore(self, taken: Snapshot) -> None:
        """The inverse of `snapshot`."""
        ...


@dataclass
class State:
    """Where a run stands.

    Attributes:
        step: how many steps were taken.
        best: the weights with the lowest validation loss.
        best_loss: that loss.
        first_loss: the one before the first step.
        best_step: after which step; 0: nothing was better than the start.
        told: the last step after which all was done that is due: validated, and told.
        smoothed: the training loss as it is told; None where nobody listens.
        tokens: learned from, over all stretches of the run.
        earlier: seconds of the stretches before this one.
        ledger: what was kept of the run's account, see `Ledger`.
        fit: what of a step was in memory at once, see `Fit`.
    """

    step: int
    best: Snapshot
    best_loss: float
    first_loss: float
    best_step: int = 0
    told: int = 0
    smoothed: float | None = None
    tokens: int = 0
    earlier: float = 0.0
    ledger: Mapping[str, Any] = field(default_factory=dict[str, Any])
    fit: Mapping[str, Any] = field(default_factory=dict[str, Any])


def save_state(
    folder: Path,
    run: Identity,
    factors: Weights,
    optimiser: torch.optim.AdamW,
    state: State,
    seconds: float,
) -> Path:
    """Write the state atomically.

    Args:
        folder: where it lies.
        run: identifies settings, base and data.
        factors: as they are now.
        optimiser: with its moments.
        state: everything else.
        seconds: of this stretch and those before it.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors = {f"now.{name}": tensor for name, tensor in factors.values().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
    tensors |= moments_of(optimiser, factors.parameters())
    told = {
        "step": state.step,
        "best_loss": state.best_loss,
        "first_loss": state.first_loss,
        "best_step": state.best_step,
        "told": state.told,
        "smoothed": state.smoothed,
        "tokens": state.tokens,
        "seconds": seconds,
        "ledger": dict(state.ledger),
        "fit": dict(state.fit),
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
    return State(
        step,
        under("best.", tensors),
        told["best_loss"],
        told["first_loss"],
        told["best_step"],
        told["told"],
        told["smoothed"],
        told["tokens"],
        told["seconds"],
        told["ledger"],
        told.get("fit", {}),
    )
