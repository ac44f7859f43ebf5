"""A base in 8 or 4 bits, by bitsandbytes: less memory, other rounding, the same slots.

The weights stay frozen and packed; what a chain adds is computed in fp32 beside them. Knows
transformers' and bitsandbytes' settings; knows no adapters.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import nn

from detour.errors import BaseError
from detour.extras import require
from detour.language.catalogue import text

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig, PreTrainedConfig

BITS = ("8bit", "4bit")
_BLOCK = 64  # values that share a scale in 4 bits: bitsandbytes packs whole blocks of a row


def packing(
    bits: str | None, config: PreTrainedConfig, dtype: torch.dtype, name: str
) -> dict[str, BitsAndBytesConfig]:
    """What transformers' loader wants besides: settings, or nothing for files that are packed.

    Raises:
        BaseError: files that are packed already, and another packing asked for; as `quantisation`.
        MissingExtra: bitsandbytes or accelerate is not installed.
    """
    # its kernels for CPUs come from a hub; without them it computes by torch, and warns of it
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    for module in ("bitsandbytes", "accelerate"):
        require(module, "scale")
    if bits is None:
        return {}
    if method_of(config):
        raise BaseError(
            text("{name} is packed already", name=name),
            expected=text("plain weights"),
            found=method_of(config),
            hint=text("load it without --quantize"),
        )
    return {"quantization_config": quantisation(bits, config, dtype, name)}


def quantisation(
    bits: str, config: PreTrainedConfig, dtype: torch.dtype, name: str
) -> BitsAndBytesConfig:
    """The settings under which transformers loads the base: LLM.int8() or NF4.

    Raises:
        BaseError: another number of bits, or layers too narrow for 4 bits.
    """
    if bits not in BITS:
        raise BaseError(
            text("unknown quantisation {bits!r}", bits=bits),
            expected=text("{one} or {other}", one=BITS[0], other=BITS[1]),
        )
    from transformers import BitsAndBytesConfig

    if bits == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    width = getattr(config.get_text_config(), "hidden_size", _BLOCK)
    if width % _BLOCK:
        raise BaseError(
            text("{name} is too narrow for 4 bits", name=name),
            expected=text("a width that {block} divides", block=_BLOCK),
            found=str(width),
            hint="--quantize 8bit",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
    )


def keep_gradients(model: nn.Module) -> None:
    """Keep 4-bit layers from packing themselves anew for AVX-512 at their first forward.

    bitsandbytes' product for that packing has no backward: without a bias the gradient would end
    there silently, with one in a RuntimeError.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.__dict__["support_avx512bf16_for_cpu"] = False


def method_of(config: PreTrainedConfig) -> str:
    """How the model's weights are quantised: "bitsandbytes", another method's name, or ""."""
    settings = getattr(config, "quantization_config", None)
    if not settings:
        return ""
    told = settings if isinstance(settings, dict) else settings.to_dict()
    method = told.get("quant_method", "unknown")
    return str(getattr(method, "value", method))
