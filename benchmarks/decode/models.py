"""The models and adapters that decoding is measured on: random weights of real shapes."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from detour.adapter.adapter import Adapter
from detour.model.base import Base

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@dataclass(frozen=True)
class Shape:
    """A model's shape, its dtype, and the rank of its adapters."""

    name: str
    dtype: torch.dtype
    rank: int
    vocabulary: int

    def model(self) -> PreTrainedModel:
        """Random weights, the same each time."""
        torch.manual_seed(0)
        common = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
        if self.name == "tiny":
            config = LlamaConfig(
                vocab_size=self.vocabulary, hidden_size=256, intermediate_size=688,
                num_hidden_layers=6, num_attention_heads=8, num_key_value_heads=8,
                max_position_embeddings=512, **common,
            )  # fmt: skip
            return LlamaForCausalLM(config).to(self.dtype).eval()
        config = Qwen3Config(
            vocab_size=self.vocabulary, hidden_size=1024, intermediate_size=3072,
            num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8, head_dim=128,
            max_position_embeddings=512, tie_word_embeddings=True, **common,
        )  # fmt: skip
        torch.set_default_dtype(self.dtype)  # never 2.4 GB in fp32 first
        try:
            return Qwen3ForCausalLM(config).eval()
        finally:
            torch.set_default_dtype(torch.float32)


TINY = Shape("tiny", torch.float32, 8, 4096)
SMALL = Shape("0.6b", torch.bfloat16, 16, 151_936)  # Qwen3-0.6B's
SHAPES = {shape.name: shape for shape in (TINY, SMALL)}


@dataclass(frozen=True)
class Bench:
    """The same adapters in PEFT and in Detour, each on a model of its own."""

    shape: Shape
    peft: PeftModel
    base: Base
    names: list[str]
    adapters: list[Adapter]
    folder: Path


def made(shape: Shape, count: int) -> Bench:
    """`count` random adapters on all linear layers, saved by PEFT and loaded by both."""
    config = LoraConfig(r=shape.rank, lora_alpha=2 * shape.rank, target_modules=TARGETS)
    names = [f"a{number}" for number in range(count)]
    peft = get_peft_model(shape.model(), config, adapter_name=names[0])
    for name in names[1:]:
        peft.add_adapter(name, copy.deepcopy(config))
    torch.manual_seed(1)
    for key, parameter in peft.named_parameters():
        if "lora_B" in key:
            parameter.data.normal_(std=0.02)
    folder = Path(tempfile.mkdtemp(prefix="decode-"))
    peft.save_pretrained(folder)
    adapters = [Adapter.load(folder / name) for name in names]
    return Bench(shape, peft.eval(), Base.from_model(shape.model()), names, adapters, folder)
