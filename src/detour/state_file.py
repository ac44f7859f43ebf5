"""The state of an interrupted run on disk: one safetensors file that knows which run it is of.

What is in it, and how it becomes a state again, is the business of whoever trains. Knows tensors,
optimisers' moments and files; knows no model and no data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from detour.errors import TrainingError
from detour.files import make_file_atomically
from detour.language.catalogue import text

Identity: TypeAlias = Mapping[str, str]
"""What must be equal for a state to fit, by names such as `settings` and `base`: the values or
digests of them."""
FILE = "state.safetensors"
DEALING = frozenset({"seed", "validation_share"})
"""Settings that deal the rows to what is learned and what is held back."""
_MOMENTS = ("exp_avg", "exp_avg_sq")


def write_state(
    folder: Path, run: Identity, told: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> Path:
    """Write the state atomically, from where the tensors lie: on a CPU nothing is copied.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    path = folder / FILE
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    known = {"state": json.dumps({**told, "run": dict(run)})}
    make_file_atomically(path, lambda temporary: save_file(plain, temporary, known))
    return path


def read_state(folder: Path, run: Identity) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """What was told and the tensors; None where there is no state.

    Raises:
        TrainingError: the state is damaged, or belongs to other settings, base or data, which it
            names.
    """
    told = read_told(folder, run)
    if told is None:
        return None
    path = folder / FILE
    try:
        with safe_open(path, "pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as cause:
        raise _damaged(path, cause) from cause
    return told, tensors


def read_told(folder: Path, run: Identity) -> dict[str, Any] | None:
    """What was told, without the tensors; None where there is no state.

    Raises:
        TrainingError: as `read_state`.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, "pt") as stream:
            told: dict[str, Any] = json.loads(stream.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as cause:
        raise _damaged(path, cause) from cause
    before = told["run"] if isinstance(told["run"], dict) else {}
    if before != run:
        changed = [part for part in {**run, **before} if before.get(part) != run.get(part)]
        if DEALING & set(changed):  # then other rows are learned, though none need have changed
            changed = [part for part in changed if part != "data"]
        raise TrainingError(
            text("{path} belongs to another run", path=path),
            expected=text("the same base, data and settings"),
            found=text("changed: {parts}", parts=", ".join(changed)),
            hint=text("leave out --resume, or choose another output folder"),
        )
    return told


def _damaged(path: Path, cause: Exception) -> TrainingError:
    return TrainingError(
        text("{path} is damaged", path=path), found=str(cause),
        hint=text("remove it and start anew"),
    )  # fmt: skip


def forget_state(folder: Path) -> None:
    """Remove the state, if there is one: its run is over, and nothing goes on from there."""
    (folder / FILE).unlink(missing_ok=True)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin so, without that beginning."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}


def moments_of(
    optimiser: torch.optim.AdamW, parameters: Iterable[torch.nn.Parameter]
) -> dict[str, Tensor]:
    """AdamW's moments by the parameters' numbers."""
    return {
        f"adam.{number}.{moment}": optimiser.state[parameter][moment]
        for number, parameter in enumerate(parameters)
        for moment in _MOMENTS
        if moment in optimiser.state[parameter]
    }


def restore_moments(
    optimiser: torch.optim.AdamW,
    parameters: Iterable[torch.nn.Parameter],
    tensors: Mapping[str, Tensor],
    step: int,
) -> None:
    """The inverse of `moments_of`, after `step` steps; moments go where their parameters are."""
    for number, parameter in enumerate(parameters):
        moments = under(f"adam.{number}.", tensors)
        if moments:
            optimiser.state[parameter] = {
                "step": torch.tensor(float(step)),
                **{name: moment.to(parameter.device) for name, moment in moments.items()},
            }
