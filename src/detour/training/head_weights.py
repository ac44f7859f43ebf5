"""What a training with a head moves: low-rank factors, and the head's own values.

Knows headed bases and numbers; knows no loop and no loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, pstdev

import torch
from torch import Tensor, nn

from detour.data.records import Labelled, Valued
from detour.model.headed import HeadedBase
from detour.training.config import TrainConfig
from detour.training.factors import Snapshot
from detour.training.kinds import factors_of

HeadRow = Labelled | Valued
_NEW = "new."


class HeadWeights:
    """Low-rank factors, and the head's own parameters, which are the model's."""

    def __init__(self, base: HeadedBase, config: TrainConfig) -> None:
        wanted = base.inner_layers() if config.targets == "all-linear" else None
        layers = wanted or base.slots.named(config.targets)
        self.factors = factors_of(base.slots, layers, config, base.device)
        self.new = base.new_parameters()
        self._before = {name: tensor.detach().clone() for name, tensor in self.new.items()}
        for parameter in self.new.values():
            parameter.requires_grad_(True)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Factors first."""
        yield from self.factors.parameters()
        yield from self.new.values()

    def ups(self) -> Iterator[nn.Parameter]:
        """Those of the factors."""
        return self.factors.ups()

    def values(self) -> Snapshot:
        """All of it, as it stands."""
        whole = {f"{_NEW}{name}": tensor.detach() for name, tensor in self.new.items()}
        return {**self.factors.values(), **whole}

    def snapshot(self) -> Snapshot:
        """A copy of all of it."""
        return {name: tensor.clone() for name, tensor in self.values().items()}

    def restore(self, taken: Snapshot) -> None:
        """The inverse of `snapshot`."""
        self.factors.restore(taken)
        self._set({name: taken[f"{_NEW}{name}"] for name in self.new})

    def whole(self, taken: Snapshot) -> dict[str, Tensor]:
        """The head's values of a snapshot."""
        return {name: taken[f"{_NEW}{name}"].cpu() for name in self.new}

    def put_back(self) -> None:
        """The model is as it was before the training."""
        self._set(self._before)
        for parameter in self.new.values():
            parameter.requires_grad_(False)
            parameter.grad = None

    def _set(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.new[name].copy_(value)


@dataclass(frozen=True)
class Scale:
    """Numbers are learned with mean 0 and deviation 1; the head then gives them as they were."""

    middle: float = 0.0
    spread: float = 1.0

    @staticmethod
    def of(rows: Sequence[HeadRow], base: HeadedBase) -> Scale:
        """By the training rows; a head without a bias cannot shift, so there the mean stays."""
        values = [row.value for row in rows if isinstance(row, Valued)]
        if not values:
            return Scale()
        if getattr(base.projection, "bias", None) is None:
            return Scale(0.0, math.sqrt(fmean(v * v for v in values)) or 1.0)
        return Scale(fmean(values), pstdev(values) or 1.0)

    def unfolded(self, whole: Mapping[str, Tensor], base: HeadedBase) -> dict[str, Tensor]:
        """The head's values with mean and deviation put into its last layer."""
        if self == Scale():
            return dict(whole)
        last = {id(parameter) for parameter in base.projection.parameters()}
        found: dict[str, Tensor] = {}
        for name, tensor in whole.items():
            if id(base.model.get_parameter(name)) not in last:
                found[name] = tensor
            elif tensor.ndim == 1:
                found[name] = tensor * self.spread + self.middle
            else:
                found[name] = tensor * self.spread
        return found
