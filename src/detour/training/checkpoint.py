"""The state of an interrupted training run, on disk, so that resuming gives the same adapter.

One safetensors file: factors, the best factors so far, AdamW's moments. Batches depend on seed and
step alone, so no random state is kept. Knows tensors and files; knows no model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from detour.errors import TrainingError
from detour.files import write_bytes_atomically
from detour.language.catalogue import text
from detour.training.factors import Factors, Snapshot

FILE = "state.safetensors"


@dataclass
class State:
    """Where a run stands."""

    step: int
    best: Snapshot
    best_loss: float
    first_loss: float
    best_step: int = 0


def save_state(
    folder: Path, run: str, factors: Factors, optimiser: torch.optim.AdamW, state: State
) -> Path:
    """Write the state atomically. `run` identifies settings, base and data.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in factors.snapshot().items():
        tensors[f"now.{name}"] = tensor
    for name, tensor in state.best.items():
        tensors[f"best.{name}"] = tensor
    for number, parameter in enumerate(factors.parameters()):
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimiser.state[parameter]:
                tensors[f"adam.{number}.{moment}"] = optimiser.state[parameter][moment]
    told = {
        "run": run,
        "step": state.step,
        "best_loss": state.best_loss,
        "first_loss": state.first_loss,
        "best_step": state.best_step,
    }
    path = folder / FILE
    write_bytes_atomically(path, save(tensors, {"state": json.dumps(told)}))
    return path


def load_state(
    folder: Path, run: str, factors: Factors, optimiser: torch.optim.AdamW
) -> State | None:
    """Restore factors and moments in place; None where there is no checkpoint.

    Raises:
        TrainingError: the checkpoint is damaged, or belongs to other settings, base or data.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as stream:
            told = json.loads(stream.metadata()["state"])
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as cause:
        raise TrainingError(
            text("{path} is damaged", path=path),
            found=str(cause),
            hint=text("remove it and start anew"),
        ) from cause
    if told["run"] != run:
        raise TrainingError(
            text("{path} belongs to another run", path=path),
            expected=text("the same base, data and settings"),
            hint=text("leave out --resume, or choose another output folder"),
        )
    factors.restore(_under("now.", tensors))
    step = int(told["step"])
    for number, parameter in enumerate(factors.parameters()):
        moments = _under(f"adam.{number}.", tensors)
        if moments:
            optimiser.state[parameter] = {
                "step": torch.tensor(float(step)),
                **{name: moment.to(parameter.device) for name, moment in moments.items()},
            }
    best = _under("best.", tensors)
    return State(step, best, told["best_loss"], told["first_loss"], told["best_step"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> Snapshot:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
