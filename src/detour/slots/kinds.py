"""The kinds of layers that a slot can act on, and what each does with a factor.

Knows torch's layers; knows no contents.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

_CONVOLUTIONS: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}


class Kind(Enum):
    """How a layer reads its input."""

    LINEAR = "linear"
    EMBEDDING = "embedding"
    CONVOLUTION = "convolution"


def kind_of(module: nn.Module) -> Kind | None:
    """The module's kind; None where a slot cannot act.

    `nn.MultiheadAttention` reads its output projection's weight itself, so that one has none; nor
    has an embedding with a forward of its own (learned positions that count for themselves) or a
    convolution in groups or with another padding than zeros.
    """
    if isinstance(module, nn.Linear | Conv1D):
        return None if isinstance(module, NonDynamicallyQuantizableLinear) else Kind.LINEAR
    if isinstance(module, nn.Embedding):
        own = type(module).forward is nn.Embedding.forward or _embed_scale(module) is not None
        return Kind.EMBEDDING if own and module.max_norm is None else None
    if type(module) in _CONVOLUTIONS:
        convolution = cast("nn.Conv2d", module)
        plain = convolution.groups == 1 and convolution.padding_mode == "zeros"
        return Kind.CONVOLUTION if plain else None
    return None


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(out, in), whichever way round the kind of layer keeps its weight."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    if isinstance(module, nn.Linear):
        return module.out_features, module.in_features
    if isinstance(module, nn.Embedding):
        return module.embedding_dim, module.num_embeddings
    convolution = cast("nn.Conv2d", module)
    return convolution.out_channels, convolution.in_channels * math.prod(convolution.kernel_size)


def hidden_of(
    module: nn.Module, x: Tensor, down: Float[Tensor, "rank in"]
) -> Float[Tensor, "*lead rank"]:
    """What `down` makes of the input of an embedding (ids) or a convolution, rank last."""
    if isinstance(module, nn.Embedding):
        scale = _embed_scale(module)
        found = functional.embedding(x, down.mT)
        return found if scale is None else found * scale.to(found.dtype)
    convolution = cast("nn.Conv2d", module)
    kernel = down.reshape(len(down), convolution.in_channels, *convolution.kernel_size)
    convolve = _CONVOLUTIONS[type(module)]
    found = convolve(
        x.to(down.dtype),
        kernel,
        stride=convolution.stride,
        padding=convolution.padding,
        dilation=convolution.dilation,
    )
    return found.movedim(-convolution.weight.ndim + 1, -1)


def _embed_scale(module: nn.Embedding) -> Tensor | None:
    """The number by which an embedding multiplies what it finds, as Gemma 3's."""
    scale = getattr(module, "embed_scale", None)
    if isinstance(scale, Tensor) and scale.numel() == 1:
        return scale
    return torch.tensor(float(scale)) if isinstance(scale, float | int) else None
