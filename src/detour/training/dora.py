"""DoRA: the direction of a weight's rows learns as low-rank factors, their lengths on their own.

W' = m / ‖W + s·BA‖ · (W + s·BA), row by row; at the start m = ‖W‖, and W' = W. The length in the
denominator is taken as a constant in the backward pass, as the paper does to spare memory (Liu et
al. 2024, arXiv:2402.09353, section 4.3). Knows tensors and the layers' weights; knows no data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from detour.adapter.unbound import Unbound
from detour.model.plain_weight import plain_weight
from detour.slots.content import Content, Term
from detour.slots.install import SlotSet
from detour.training.factors import Factors, Size, Snapshot


class Decomposed(Factors):
    """Factors, and the length of every row of the changed weight."""

    moves = True

    def __init__(
        self,
        slots: SlotSet,
        layers: list[str],
        sizes: Mapping[str, Size],
        seed: int,
        device: torch.device,
    ) -> None:
        super().__init__({layer: slots.shapes[layer] for layer in layers}, sizes, seed, device)
        self._device = device
        self._modules = {layer: slots.module(layer) for layer in layers}
        self._biases = {layer: _bias_of(module) for layer, module in self._modules.items()}
        self._squares = {
            layer: weight_of(module, device).float().square().sum(1)
            for layer, module in self._modules.items()
        }
        self.magnitudes = {layer: nn.Parameter(s.sqrt()) for layer, s in self._squares.items()}

    def parameters(self) -> Iterator[nn.Parameter]:
        """All factors, then all lengths."""
        yield from super().parameters()
        yield from self.magnitudes.values()

    def lengths(self, layer: str) -> Float[Tensor, " out"]:
        """‖W + s·BA‖ of every row, without forming BA: three products around the rank."""
        with torch.no_grad():
            down, up = self.pairs[layer]
            # of a packed layer unpacked anew, one layer at a time: all of them would be the model
            weight = weight_of(self._modules[layer], self._device)
            scale = self.scales[layer]
            mixed = (up * (weight @ down.mT.to(weight)).mT.to(up)).sum(0)
            own = (up * ((down @ down.mT) @ up)).sum(0)
            square = self._squares[layer] + 2 * scale * mixed + scale**2 * own
            return square.clamp_min(torch.finfo(torch.float32).tiny).sqrt()

    def contents(self) -> dict[str, Content]:
        """As of now: with g = m / ‖W + s·BA‖, (g − 1) ⊙ Wx beside g ⊙ s·BAx."""
        return {layer: self._content(layer) for layer in self.pairs}

    def _content(self, layer: str) -> Content:
        down, up = self.pairs[layer]
        gain = self.magnitudes[layer] / self.lengths(layer)
        bias = self._biases[layer]
        term = Term(down, up * gain, gate=self.scales[layer])
        return Content((term,), gain - 1, None if bias is None else (1 - gain) * bias)

    def values(self) -> Snapshot:
        """Factors, and `layer.magnitude`."""
        lengths = {f"{n}.magnitude": m.detach() for n, m in self.magnitudes.items()}
        return {**super().values(), **lengths}

    def restore(self, taken: Mapping[str, Tensor]) -> None:
        """The inverse of `snapshot`."""
        super().restore(taken)
        with torch.no_grad():
            for layer, magnitude in self.magnitudes.items():
                magnitude.copy_(taken[f"{layer}.magnitude"])

    def unbound(self, taken: Mapping[str, Tensor]) -> Unbound:
        """The lengths, as PEFT saves them."""
        return Unbound(magnitudes={n: taken[f"{n}.magnitude"].cpu() for n in self.magnitudes})


def weight_of(module: nn.Module, device: torch.device) -> Float[Tensor, "out in"]:
    """The layer's own tensor where it is one of floats; else a copy in fp32."""
    weight: Any = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.is_floating_point() and weight.ndim == 2:
        return weight.detach().mT if isinstance(module, Conv1D) else weight.detach()
    return plain_weight(module).to(device)


def _bias_of(module: nn.Module) -> Tensor | None:
    bias: Any = getattr(module, "bias", None)
    return bias.detach().float() if isinstance(bias, Tensor) else None
