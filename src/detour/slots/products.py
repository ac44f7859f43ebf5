"""Products of frozen linear layers while nothing learns: by oneDNN, and from packed weights.

On a CPU torch hands fp32 products to MKL, which on some processors is far behind oneDNN: 32 tokens
through (3072, 1024) took 2.9 ms on an AMD EPYC with AVX-512, by oneDNN 1.4 ms, and 1.0 ms from a
weight that oneDNN has laid out for itself; in bf16, one token, 0.20 and 0.09 ms. Laid out, a weight
takes its memory a second time, so there is a limit. Knows linear layers; knows no slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any
from weakref import ref

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

PACKED_BYTES = 2 * 2**30  # what all packed weights of one model may take
FEW = 64  # tokens up to which packed weights are used: decoding, not reading a prompt
SMALL = 2**18  # multiplications below which calling oneDNN takes longer than it saves


@dataclass(frozen=True)
class _Packed:
    """A parameter laid out anew, and what it was like then."""

    parameter: ref[Tensor]
    state: tuple[object, ...]
    sample: Tensor
    weight: Tensor
    size: int

    def stands_for(self, weight: Tensor) -> bool:
        return self.parameter() is weight and self.state == _state(weight)


class Products:
    """The products of one model's linear layers, and the weights that were packed for them.

    A packed weight stands in for a parameter only as long as that is unchanged: `refresh` also
    finds values that were changed behind torch's back. Models that share parameters may share
    their products too, from several threads.
    """

    def __init__(self, limit: int = PACKED_BYTES) -> None:
        self.limit = limit
        self._packed: dict[int, _Packed] = {}
        self._lock = Lock()

    @property
    def packed_bytes(self) -> int:
        """What the packed weights take."""
        return sum(one.size for one in self._packed.values())

    def refresh(self) -> None:
        """Forget the packed weights of parameters that have changed or are gone."""
        with self._lock:
            for key, one in list(self._packed.items()):
                weight = one.parameter()
                same = weight is not None and one.stands_for(weight)
                if weight is None or not same or not torch.equal(_sample(weight), one.sample):
                    del self._packed[key]

    def linear(self, layer: nn.Linear, x: Float[Tensor, "*lead in"]) -> Float[Tensor, "*lead out"]:
        """The layer's output: what torch itself gives, up to the order of its sums."""
        weight = layer.weight
        tokens = x.numel() // max(x.shape[-1], 1)
        if not self._fits(x, weight, tokens):
            return functional.linear(x, weight, layer.bias)
        packed = self._packed_of(weight) if tokens <= FEW else None
        if packed is None and weight.dtype != torch.float32:
            return functional.linear(x, weight, layer.bias)  # that is oneDNN too
        chosen = weight if packed is None else packed
        return onednn_linear(x, chosen, layer.bias)

    def _fits(self, x: Tensor, weight: Tensor, tokens: int) -> bool:
        return (
            x.dtype == weight.dtype
            and onednn_computes(weight.dtype, weight.device)
            and tokens * weight.numel() > SMALL
            and weight.is_contiguous()
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
        )

    def _packed_of(self, weight: Tensor) -> Tensor | None:
        """The parameter's packed form, made now where there is room; None where there is none.

        A weight that is no parameter stands in for one for a while only.
        """
        if not isinstance(weight, nn.Parameter) or weight.is_inference():
            return None
        known = self._packed.get(id(weight))
        if known is not None and known.stands_for(weight):
            return known.weight
        with self._lock:
            known = self._packed.get(id(weight))
            if known is not None and known.stands_for(weight):  # made by another thread meanwhile
                return known.weight
            self._packed.pop(id(weight), None)
            if self.packed_bytes + weight.nbytes > self.limit:
                return None
            laid_out = _onednn()._reorder_linear_weight(weight.detach(), FEW)
            made = _Packed(ref(weight), _state(weight), _sample(weight), laid_out, weight.nbytes)
            self._packed[id(weight)] = made
            return laid_out


def _state(weight: Tensor) -> tuple[object, ...]:
    return weight.data_ptr(), weight._version, weight.dtype, weight.shape


def _sample(weight: Tensor) -> Tensor:
    """Some of its values: a change made through `.data` moves no version."""
    flat = weight.detach().view(-1)
    return flat[:: max(1, len(flat) // 16)].clone()


def onednn_linear(
    x: Float[Tensor, "*lead in"], weight: Float[Tensor, "out in"], bias: Tensor | None = None
) -> Float[Tensor, "*lead out"]:
    """Compute x @ weightᵀ + bias by oneDNN, without a gradient; the weight may be a packed one."""
    return _onednn()._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def onednn_computes(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch on this processor can do that."""
    wanted = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not all(hasattr(_onednn(), name) for name in wanted):
        return False
    if dtype == torch.bfloat16:
        return bool(_onednn()._is_mkldnn_bf16_supported())
    return dtype == torch.float32


def _onednn() -> Any:  # noqa: ANN401  (operators that torch makes when they are asked for)
    return torch.ops.mkldnn
