"""Where a hypernetwork's training stands, in memory and on disk, so that resuming is the same run.

The network, its best weights so far, AdamW's moments. Knows networks; the file itself is
`state_file`'s business.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from detour.state_file import Identity, moments_of, read_state, restore_moments, under, write_state


@dataclass
class State:
    """Where a training stands."""

    step: int = 0
    best: dict[str, Tensor] = field(default_factory=lambda: {})
    best_loss: float = math.inf
    best_step: int = 0

    def keep(self, loss: float, network: nn.Module) -> None:
        """Keep the weights if they are the best so far."""
        if loss < self.best_loss:
            self.best_loss, self.best_step = loss, self.step
            self.best = {n: t.detach().clone() for n, t in network.state_dict().items()}


def save_state(
    folder: Path, run: Identity, network: nn.Module, optimiser: torch.optim.AdamW, state: State
) -> None:
    """Write everything atomically.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors = {f"now.{n}": t for n, t in network.state_dict().items()}
    tensors |= {f"best.{n}": t for n, t in state.best.items()}
    tensors |= moments_of(optimiser, network.parameters())
    told = {
        "step": state.step,
        "best_step": state.best_step,
        "best_loss": None if math.isinf(state.best_loss) else state.best_loss,
    }
    write_state(folder, run, told, tensors)


def load_state(
    folder: Path, run: Identity, network: nn.Module, optimiser: torch.optim.AdamW
) -> State | None:
    """Restore network and moments in place; None where nothing was saved.

    Raises:
        TrainingError: damaged, or of other settings, base or tasks.
    """
    found = read_state(folder, run)
    if found is None:
        return None
    told, tensors = found
    network.load_state_dict(under("now.", tensors))
    step = int(told["step"])
    restore_moments(optimiser, network.parameters(), tensors, step)
    best_loss = math.inf if told["best_loss"] is None else float(told["best_loss"])
    return State(step, under("best.", tensors), best_loss, told["best_step"])
