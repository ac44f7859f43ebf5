"""Blueprints of models that nobody could load here."""

import pytest
import transformers as hf

from detour.model.blueprint import Blueprint

LLAMAS = {
    "7B": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
           "num_attention_heads": 32},
    "30B": {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 60,
            "num_attention_heads": 52},
    "70B": {"hidden_size": 8192, "intermediate_size": 28672, "num_hidden_layers": 80,
            "num_attention_heads": 64, "num_key_value_heads": 8},
}  # fmt: skip


@pytest.fixture(scope="session")
def llamas() -> dict[str, Blueprint]:
    """The sizes that Llama and Llama 2 were published in."""
    return {
        name: Blueprint.of_config(hf.LlamaConfig(vocab_size=32000, **sizes), name)
        for name, sizes in LLAMAS.items()
    }
