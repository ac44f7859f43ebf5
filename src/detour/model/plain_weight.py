"""A layer's weight as numbers to reckon with, however it is kept.

Knows torch's and bitsandbytes' layers; knows no adapters.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


def plain_weight(module: nn.Module) -> Float[Tensor, "out *in"]:
    """The weight in fp32 on the CPU, outputs first; an embedding's is (ids, width).

    What a slot on the layer holds at the moment plays no part.
    """
    kind = type(module).__name__
    if kind == "Linear8bitLt":
        weight = _from_8_bits(module)
    elif kind in ("Linear4bit", "LinearNF4", "LinearFP4"):
        weight = _from_4_bits(module)
    else:
        weight = module.get_parameter("weight").detach()
    turned = weight.mT if isinstance(module, Conv1D) else weight
    return turned.float().cpu()


def _from_8_bits(module: Any) -> Float[Tensor, "out in"]:  # noqa: ANN401 - bitsandbytes' layer
    """Codes times the scale of their row; they move from the weight to a state on first use."""
    from bitsandbytes.functional import int8_vectorwise_dequant

    codes = module.state.CB if module.state.CB is not None else module.weight.data
    scales = module.state.SCB if module.state.SCB is not None else module.weight.SCB
    return int8_vectorwise_dequant(codes, scales)


def _from_4_bits(module: Any) -> Float[Tensor, "out in"]:  # noqa: ANN401 - bitsandbytes' layer
    """The layer's own product with the identity, its bias left out.

    On a CPU the weight is repacked on first use, in a form that only that product reads.
    """
    from bitsandbytes import matmul_4bit

    weight = module.weight
    kind = module.compute_dtype or torch.float32
    eye = torch.eye(module.in_features, device=weight.device, dtype=kind)
    with torch.no_grad():
        return matmul_4bit(eye, weight, quant_state=weight.quant_state, bias=None).mT
