"""From a place's features to the factors of its update: the heads L, M, S and Z.

L, M and S as in Text-to-LoRA (Charakorn et al. 2025, arXiv 2506.06105, section 3); Z generates only
the diagonal between learned factors (Zhyper, arXiv 2510.19733). At the start every `up` is zero, so
that step 0 is the base, and gradients flow: L has `down` from its bias and a zero `up`; M and S use
one head for both factors, from whose `up` its value at the start is taken off. `down` is
(…, rank, in) and `up` (…, rank, out), as slots want them. Knows tensors only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detour.hypernetwork.places import Group

Trunk = Callable[[Tensor, Tensor | None], Tensor]
Factors = tuple[Float[Tensor, "tasks layers rank in"], Float[Tensor, "tasks layers rank out"]]


class Head(nn.Module, ABC):
    """The factors of one group's layers, for many tasks at once."""

    def __init__(self, group: Group, rank: int) -> None:
        super().__init__()
        self.group = group
        self.rank = rank

    @abstractmethod
    def forward(self, trunk: Trunk, mixed: Float[Tensor, "tasks layers width"]) -> Factors:
        """`mixed` is what the trunk's first half made of description and place; `trunk` finishes
        it, after an embedding of what is wanted was added.
        """


def _uniform(*shape: int, width: int) -> Tensor:
    """How a LoRA's A begins: uniform within 1/√in, as PEFT and torch.nn.Linear."""
    return (torch.rand(*shape) * 2 - 1) / math.sqrt(width)


class LargeHead(Head):
    """L: r · (in + out) numbers at once."""

    def __init__(self, group: Group, rank: int, hidden: int) -> None:
        super().__init__(group, rank)
        self.linear = nn.Linear(hidden, rank * (group.width + group.out))
        split = rank * group.width
        with torch.no_grad():
            self.linear.weight.zero_()
            std = 0.3 / math.sqrt(group.width * hidden)
            self.linear.weight[:split].normal_(std=std)
            self.linear.bias.zero_()
            self.linear.bias[:split] = _uniform(split, width=group.width)

    def forward(self, trunk: Trunk, mixed: Float[Tensor, "tasks layers width"]) -> Factors:
        """See `Head`."""
        made = self.linear(trunk(mixed, None))
        down, up = made.split((self.rank * self.group.width, self.rank * self.group.out), -1)
        return down.unflatten(-1, (self.rank, -1)), up.unflatten(-1, (self.rank, -1))


class MediumHead(Head):
    """M: r · max(in, out) numbers, once for A and once for B, told apart by an embedding."""

    def __init__(self, group: Group, rank: int, hidden: int, width: int) -> None:
        super().__init__(group, rank)
        longest = max(group.width, group.out)
        self.linear = nn.Linear(hidden, rank * longest)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.copy_(_uniform(rank * longest, width=group.width) / math.sqrt(2))
        self.register_buffer("start", self.linear.bias.detach().clone())
        self.start: Tensor
        self.which = nn.Parameter(torch.randn(2, width))

    def forward(self, trunk: Trunk, mixed: Float[Tensor, "tasks layers width"]) -> Factors:
        """See `Head`."""
        which = nn.functional.normalize(self.which, dim=-1)
        made = self.linear(trunk(mixed[:, :, None], which))  # (tasks, layers, 2, rank · longest)
        down = made[:, :, 0].unflatten(-1, (self.rank, -1))
        up = (made[:, :, 1] - self.start).unflatten(-1, (self.rank, -1))
        return down[..., : self.group.width], up[..., : self.group.out]


class SmallHead(Head):
    """S: max(in, out) numbers, once for each row of A and of B, told apart by embeddings."""

    def __init__(self, group: Group, rank: int, hidden: int, width: int) -> None:
        super().__init__(group, rank)
        longest = max(group.width, group.out)
        self.linear = nn.Linear(hidden, longest)
        with torch.no_grad():
            self.linear.weight.zero_()
            begun = _uniform(longest, width=group.width) / math.sqrt(2 * rank)
            self.linear.bias.copy_(begun)
        self.register_buffer("start", self.linear.bias.detach().clone())
        self.start: Tensor
        self.which = nn.Parameter(torch.randn(2, 1, width))
        self.row = nn.Parameter(torch.randn(1, rank, width))

    def forward(self, trunk: Trunk, mixed: Float[Tensor, "tasks layers width"]) -> Factors:
        """See `Head`."""
        which = nn.functional.normalize(self.which, dim=-1)
        row = nn.functional.normalize(self.row, dim=-1)
        made = self.linear(trunk(mixed[:, :, None, None], which + row))
        down = made[:, :, 0, :, : self.group.width]  # of (tasks, layers, 2, rank, longest)
        up = (made[:, :, 1] - self.start)[..., : self.group.out]
        return down, up


class DiagonalHead(Head):
    """Z: the rank's diagonal; the factors themselves are learned, a pair for every layer."""

    def __init__(self, group: Group, rank: int, hidden: int) -> None:
        super().__init__(group, rank)
        self.linear = nn.Linear(hidden, rank)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)
        layers = len(group.layers)
        self.down = nn.Parameter(_uniform(layers, rank, group.width, width=group.width))
        self.up = nn.Parameter(_uniform(layers, rank, group.out, width=group.out))

    def forward(self, trunk: Trunk, mixed: Float[Tensor, "tasks layers width"]) -> Factors:
        """See `Head`."""
        diagonal = self.linear(trunk(mixed, None))  # (tasks, layers, rank)
        down = self.down.expand(len(mixed), *self.down.shape)
        return down, diagonal[..., None] * self.up


def head_of(name: str, group: Group, rank: int, hidden: int, width: int) -> Head:
    """The head of that letter for a group of layers."""
    if name == "L":
        return LargeHead(group, rank, hidden)
    if name == "M":
        return MediumHead(group, rank, hidden, width)
    if name == "S":
        return SmallHead(group, rank, hidden, width)
    return DiagonalHead(group, rank, hidden)
