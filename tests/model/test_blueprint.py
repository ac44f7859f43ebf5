"""Architectures without weights: the same modules, names and counts as the real models."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers as hf
from tests.architectures import ARCHITECTURES, VOCABULARY

from detour.errors import BaseError
from detour.model import loading
from detour.model.base import Base
from detour.model.blueprint import Blueprint
from detour.slots.install import install

CAUSAL = [
    name
    for name, one in ARCHITECTURES.items()
    if type(one.model()).__name__.endswith(("ForCausalLM", "LMHeadModel"))
]


@pytest.mark.parametrize("name", CAUSAL)
def test_counts_and_shapes_are_those_of_the_model_that_is_really_built(name):
    model = ARCHITECTURES[name].model()
    blueprint = Blueprint.of_config(model.config, name)
    assert blueprint.parameters == sum(p.numel() for p in model.parameters())
    assert blueprint.slots.shapes == install(model).shapes
    assert all(p.is_meta for p in blueprint.model.parameters())


def test_most_architectures_are_looked_at():
    assert len(CAUSAL) >= 15


def test_tied_embeddings_count_once(make_model):
    tied, apart = (make_model("llama", tie_word_embeddings=tie).config for tie in (True, False))
    fewer, more = (Blueprint.of_config(config, "tiny").parameters for config in (tied, apart))
    assert more - fewer == tied.vocab_size * tied.hidden_size


def test_a_config_json_is_enough(tmp_path, tiny_folder):
    (tmp_path / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    blueprint = Blueprint.of(str(tmp_path))
    real = Base.load(str(tiny_folder))
    assert blueprint.parameters == sum(p.numel() for p in real.model.parameters())
    assert (blueprint.width, blueprint.positions, blueprint.name) == (32, 128, str(tmp_path))


def test_seventy_billion_parameters_take_no_memory():
    config = hf.LlamaConfig(
        hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, num_attention_heads=64,
        num_key_value_heads=8, vocab_size=32000,
    )  # fmt: skip
    assert Blueprint.of_config(config, "70B").parameters == 68_976_648_192  # as Llama 2's card has


def test_of_the_hub_no_weights_are_fetched(tmp_path, tiny_folder, monkeypatch):
    (tmp_path / "config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    asked: list[tuple[str, str | None]] = []

    def download(identity: str, revision: str | None, allow_patterns: list[str]) -> Path:
        assert not any("safetensors" in pattern for pattern in allow_patterns)
        asked.append((identity, revision))
        return tmp_path

    monkeypatch.setattr(loading, "snapshot_download", download)
    assert Blueprint.of("some/model@main").parameters > 0
    loading.load_tokenizer("some/model")
    assert asked == [("some/model", "main"), ("some/model", None)]


def test_what_is_no_causal_model_is_refused(tmp_path):
    with pytest.raises(BaseError, match="is not a model folder"):
        Blueprint.of(str(tmp_path))
    sizes = {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 2}
    encoder = hf.BertConfig(vocab_size=VOCABULARY, intermediate_size=24, **sizes)
    encoder.architectures = ["BertForMaskedLM"]
    encoder.save_pretrained(tmp_path)
    with pytest.raises(BaseError, match="encoder"):
        Blueprint.of(str(tmp_path))
    with pytest.raises(BaseError, match="no base called"):
        Blueprint.of("nowhere")


def test_a_configuration_that_builds_nothing_is_an_error():
    broken = hf.LlamaConfig(hidden_size=16, num_attention_heads=4, num_hidden_layers=-1)
    vision = hf.ViTConfig()
    for config in (vision, broken):
        if config is broken:
            config.hidden_act = "no such function"
            config.num_hidden_layers = 1
        with pytest.raises(BaseError, match="no model can be built"):
            Blueprint.of_config(config, "odd")
