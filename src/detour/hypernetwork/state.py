"""The state of a hypernetwork's training on disk, so that resuming gives the same weights.

One safetensors file: the network, its best weights so far, AdamW's moments. Knows tensors and
files; knows no base and no task.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from detour.errors import TrainingError
from detour.files import write_bytes_atomically
from detour.language.catalogue import text

FILE = "state.safetensors"


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
    folder: Path, run: str, network: nn.Module, optimiser: torch.optim.AdamW, state: State
) -> None:
    """Write everything atomically.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    tensors = {f"now.{n}": t.detach().cpu() for n, t in network.state_dict().items()}
    tensors |= {f"best.{n}": t.cpu() for n, t in state.best.items()}
    for number, parameter in enumerate(network.parameters()):
        for name, value in optimiser.state.get(parameter, {}).items():
            tensors[f"adam.{number}.{name}"] = value.detach().cpu()
    told = {
        "run": run, "step": state.step, "best_step": state.best_step,
        "best_loss": None if math.isinf(state.best_loss) else state.best_loss,
    }  # fmt: skip
    copied = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
    write_bytes_atomically(folder / FILE, save(copied, {"state": json.dumps(told)}))


def load_state(
    folder: Path, run: str, network: nn.Module, optimiser: torch.optim.AdamW
) -> State | None:
    """Restore network and moments in place; None where nothing was saved.

    Raises:
        TrainingError: damaged, or of other settings, base or tasks.
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
    network.load_state_dict(_under("now.", tensors))
    for number, parameter in enumerate(network.parameters()):
        moments = _under(f"adam.{number}.", tensors)
        if moments:
            optimiser.state[parameter] = dict(moments)
    best_loss = math.inf if told["best_loss"] is None else told["best_loss"]
    return State(told["step"], _under("best.", tensors), best_loss, told["best_step"])


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
