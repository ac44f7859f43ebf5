"""The processes that train together: who they are, and sums over all of them.

Started by `accelerate launch` or `torchrun`, which tell each process its rank and where to meet.
Everything is drawn alike in every process; each takes its share of the rows, gradients are summed,
and so the result is that of one process with the same batch. Knows torch.distributed; knows no
models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, distributed

from detour.errors import ConfigError
from detour.language.catalogue import text

T = TypeVar("T")
_SIZE, _RANK, _LOCAL = "WORLD_SIZE", "RANK", "LOCAL_RANK"
_BESIDE = "LOCAL_WORLD_SIZE"
_MEETING = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Team:
    """One process among `size`; alone by default, when everything here does nothing."""

    rank: int = 0
    size: int = 1
    beside: int = 1
    """Processes of it on this machine, this one among them."""

    @property
    def leads(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def share(self, count: int) -> list[int]:
        """The places, of so many, that are this process's.

        Raises:
            ConfigError: there is not one for each process.
        """
        if count < self.size:
            raise ConfigError(
                text("there are more processes than rows in a step"),
                expected=text("a batch of at least {size} rows", size=self.size),
                found=str(count),
            )
        return self.places(count)

    def places(self, count: int) -> list[int]:
        """As `share`, of no matter how many; nothing for who comes too late."""
        return list(range(self.rank, count, self.size))

    def largest(self, count: int) -> int:
        """How many `places` a process has at most."""
        return -(-count // self.size)

    def check_alone(self, what: str) -> None:
        """Raises ConfigError where several processes came for what runs in one."""
        if self.size > 1:
            raise ConfigError(
                text("{what} runs in one process", what=what),
                found=str(self.size),
                hint=text("start it without accelerate launch or torchrun"),
            )

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each by its sum over all processes; they travel as one vector."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        distributed.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.detach().copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the leading one's values."""
        if self.size > 1:
            for tensor in tensors:
                distributed.broadcast(tensor.detach(), 0)

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            distributed.barrier()

    def total(self, value: float, device: torch.device) -> float:
        """The sum of a number over all processes."""
        if self.size == 1:
            return value
        found = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.all_reduce(found)
        return float(found)

    def any(self, asked: bool, device: torch.device) -> bool:
        """Whether any process says so; every process hears the same."""
        return self.total(float(asked), device) > 0

    def from_leader(self, work: Callable[[], T]) -> T:
        """What the leading process makes, given to all; it must be picklable."""
        if self.size == 1:
            return work()
        made: list[Any] = [work() if self.leads else None]
        distributed.broadcast_object_list(made)
        return cast(T, made[0])


ALONE = Team()


def launched() -> Team:
    """What a launcher says of this process, before anybody is met.

    Raises:
        ConfigError: a launcher's variables that make no sense.
    """
    return Team(_number(_RANK, 0), max(_number(_SIZE, 1), 1))


@contextmanager
def assembled(on_gpu: bool = False) -> Generator[Team]:
    """The team that a launcher started this process for; alone without one.

    With `on_gpu` each process takes a GPU of its own, and they talk by NCCL instead of Gloo.

    Raises:
        ConfigError: a launcher's variables that make no sense.
    """
    size = _number(_SIZE, 1)
    if size == 1:
        yield ALONE
        return
    missing = [name for name in (_RANK, *_MEETING) if not os.environ.get(name)]
    if size < 1 or missing:
        raise ConfigError(
            text("{name} of the launcher stands alone or makes no sense", name=_SIZE),
            expected=text("what accelerate launch or torchrun sets"),
            found=f"{_SIZE}={size}" + (f", no {', '.join(missing)}" if missing else ""),
            hint=text("unset it to train in one process"),
        )
    if on_gpu:
        torch.cuda.set_device(_number(_LOCAL, 0))
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        beside = min(_number(_BESIDE, size), size)
        yield Team(distributed.get_rank(), size, beside)
    finally:
        distributed.destroy_process_group()


def _number(name: str, default: int) -> int:
    told = os.environ.get(name, "")
    try:
        return int(told) if told else default
    except ValueError as cause:
        raise ConfigError(
            text("{name} of the launcher is no number", name=name),
            expected=text("what accelerate launch or torchrun sets"),
            found=told,
        ) from cause
