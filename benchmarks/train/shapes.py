"""What is trained: models of real shapes with random weights, and rows of ids."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

RANK, ALPHA, BATCH, RATE = 8, 16.0, 8, 1e-4
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
SHORTEST, LONGEST = 20, 256  # tokens of a row, evenly spread
ANSWER = 0.4  # share of a row that is supervised


@dataclass(frozen=True)
class Shape:
    """Layers, vocabulary, and how many rows make one measurement."""

    name: str
    layers: int
    vocabulary: int
    rows: int

    def model(self, dtype: torch.dtype) -> PreTrainedModel:
        """Random weights, the same each time."""
        torch.manual_seed(0)
        common = {
            "vocab_size": self.vocabulary, "num_hidden_layers": self.layers,
            "max_position_embeddings": 4096, "bos_token_id": None, "eos_token_id": 1,
            "pad_token_id": 0,
        }  # fmt: skip
        torch.set_default_dtype(dtype)  # never twice as large in fp32 first
        try:
            if self.name == "tiny":
                config = LlamaConfig(
                    hidden_size=256, intermediate_size=688, num_attention_heads=8,
                    num_key_value_heads=8, **common,
                )  # fmt: skip
                return LlamaForCausalLM(config)
            config = Qwen3Config(
                hidden_size=1024, intermediate_size=3072, num_attention_heads=16,
                num_key_value_heads=8, head_dim=128, tie_word_embeddings=True, **common,
            )  # fmt: skip
            return Qwen3ForCausalLM(config)
        finally:
            torch.set_default_dtype(torch.float32)

    def data(self, seed: int = 0) -> list[tuple[list[int], int]]:
        """Rows as ids, each with the number of those that are not supervised."""
        rng = random.Random(seed)
        found: list[tuple[list[int], int]] = []
        for _ in range(self.rows):
            length = rng.randint(SHORTEST, LONGEST)
            ids = [rng.randrange(2, self.vocabulary) for _ in range(length)]
            found.append((ids, length - round(ANSWER * length)))
        return found


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 6, 4096, 64),
        Shape("real", 4, 32_000, 16),  # layers of Qwen3-0.6B, cut in number
        Shape("0.6b", 28, 151_936, 8),  # all of Qwen3-0.6B
    )
}
