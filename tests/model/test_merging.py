"""A merged model says what the base says under the chain, on every causal architecture."""

import json
import re
from pathlib import Path

import pytest
import torch
from tests.architectures import ARCHITECTURES
from torch import Tensor, nn

from detour import starter
from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.unbound import Unbound
from detour.adapter.update import Update
from detour.errors import (
    AdapterWeightsError,
    BaseError,
    ChainError,
    ConfigError,
    SlotError,
    StorageError,
)
from detour.model import merging
from detour.model.base import Base
from detour.model.merging import merge
from detour.slots.kinds import Kind

CAUSAL = [n for n, one in ARCHITECTURES.items() if type(one.model()).__name__.endswith(
    ("ForCausalLM", "LMHeadModel"))]  # fmt: skip
IDS = torch.arange(4, 24).reshape(2, 10)


def everything(base: Base, seed: int = 0) -> Adapter:
    """A change of every layer, bias, norm and expert that the model has."""
    generator = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) * 0.05

    updates: dict[str, Update] = {}
    for name, kind in base.slots.kinds.items():
        out, wide = base.slots.module_shape(name)
        has_bias = getattr(base.slots.module(name), "bias", None) is not None
        updates[name] = Update(
            some(2, wide), some(out, 2), 0.5, some(out), some(out) if has_bias else None,
            kind is Kind.EMBEDDING,
        )  # fmt: skip
    for name, parameter in base.model.named_parameters():
        layer = name.rpartition(".")[0]
        if layer not in base.slots.kinds and parameter.ndim == 1:
            updates[f"{name}[:]"] = Update(torch.ones(1, 1), some(len(parameter), 1))
        if parameter.ndim == 3:
            turned = getattr(base.model.get_submodule(layer), "is_transposed", False)
            first, second = parameter.shape[1:]
            out, wide = (second, first) if turned else (first, second)
            for expert in range(len(parameter)):
                updates[f"{name}[{expert}]"] = Update(some(2, wide), some(out, 2))
    return Adapter(updates, "everything")


@pytest.mark.filterwarnings("ignore")  # transformers warns of random models' settings
@pytest.mark.parametrize("name", CAUSAL)
def test_the_written_model_has_the_chains_logits(name, tmp_path):
    base = Base.from_model(ARCHITECTURES[name].model())  # type: ignore[arg-type]
    before = base.sha256()
    chain = 0.7 * everything(base) + everything(base, 1)
    difference = merge(base, chain, tmp_path / "merged", readme="about it")
    wanted = base.logits(IDS % base.engine.vocabulary, chain)
    merged = Base.load(str(tmp_path / "merged"))
    found = merged.logits(IDS % base.engine.vocabulary)
    assert float((wanted - found).abs().max()) <= 1e-4 * max(1.0, float(wanted.abs().max()))
    assert not torch.allclose(wanted, base.logits(IDS % base.engine.vocabulary), atol=1e-3)
    assert 0 <= difference <= 1e-4 * max(1.0, float(wanted.abs().max()))
    assert base.sha256() == before
    assert (tmp_path / "merged" / "README.md").read_text() == "about it"


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


def test_weights_are_added_to_in_fp32_and_rounded_once(base, random_adapter, tmp_path):
    """In bf16 a small change would be lost beside a large weight, and every sum rounded."""
    layer = base.slots.linear_names()[0]
    out, wide = base.slots.shapes[layer]
    parts = [
        Adapter({layer: Update(torch.full((1, wide), 2e-4), torch.ones(out, 1))}, f"part {n}")
        for n in range(64)
    ]
    merge(base, Chain.of(*parts), tmp_path / "exact")
    own = base.model.get_submodule(layer).weight
    weights = Base.load(str(tmp_path / "exact")).model.get_submodule(layer).weight
    assert torch.allclose(weights, own + 64 * 2e-4, atol=1e-7)
    difference = merge(base, Chain.of(*parts), tmp_path / "half", torch.bfloat16)
    assert difference > 0
    config = json.loads((tmp_path / "half" / "config.json").read_text())
    assert config["dtype"] == "bfloat16"
    half = Base.load(str(tmp_path / "half"), dtype="bfloat16").model.get_submodule(layer).weight
    assert torch.equal(half, (own + 64 * 2e-4).to(torch.bfloat16))


@pytest.mark.parametrize("changed", ["head", "table", "both alike", "neither"])
def test_a_tied_head_stays_tied_only_where_both_change_alike(changed, make_model, tmp_path):
    base = Base.from_model(make_model("qwen3"))
    rows, wide = base.model.get_input_embeddings().weight.shape
    one = torch.zeros(1, rows)
    one[0, 7] = 1.0
    change = torch.randn(1, wide, generator=torch.Generator().manual_seed(0))
    updates = {
        "lm_head": Update(change, one.mT.contiguous()),
        "model.embed_tokens": Update(one, change.mT.contiguous(), lookup=True),
        "model.layers.0.self_attn.q_proj": Update(torch.ones(1, wide), torch.ones(32, 1)),
    }
    kept = {"head": {"lm_head"}, "table": {"model.embed_tokens"}, "neither": set[str](),
            "both alike": {"lm_head", "model.embed_tokens"}}[changed]  # fmt: skip
    adapter = Adapter({n: u for n, u in updates.items() if "proj" in n or n in kept}, "tied")
    merge(base, adapter, tmp_path / "merged")
    merged = Base.load(str(tmp_path / "merged"))
    tied = merged.model.get_output_embeddings().weight is merged.model.get_input_embeddings().weight
    assert tied is (changed in ("both alike", "neither"))
    assert torch.allclose(merged.logits(IDS), base.logits(IDS, adapter), atol=1e-4)


def test_the_merged_model_answers_alone(base, random_adapter, tmp_path):
    adapter = random_adapter(base.slots.shapes, strength=0.2)
    merge(base, adapter, tmp_path / "merged")
    merged = Base.load(str(tmp_path / "merged"))
    assert merged.ask("Who?", max_new_tokens=8) == base.ask("Who?", adapter, max_new_tokens=8)
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in (tmp_path / "merged").iterdir())


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_are_refused(make_model, tiny_tokenizer, tmp_path):
    folder = tmp_path / "wide"
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(folder)
    packed = Base.load(str(folder), quantize="4bit")
    with pytest.raises(BaseError, match="packed weights take no changes") as caught:
        merge(packed, everything(Base.load(str(folder))), tmp_path / "merged")
    assert "unquantised" in str(caught.value.hint)
    with pytest.raises(BaseError, match="merged in float32"):
        merge(Base.load(str(folder), dtype="bfloat16"), Chain(), tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_what_does_not_say_the_same_is_not_written(base, random_adapter, tmp_path, monkeypatch):
    adapter = random_adapter(base.slots.shapes)
    monkeypatch.setattr(merging, "merged_state", lambda base, _: dict(base.model.state_dict()))
    with pytest.raises(AdapterWeightsError, match="does not say what the base says"):
        merge(base, adapter, tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arrived", [0.0, 0.5, 2.0])
def test_what_arrives_by_halves_is_not_written_in_bfloat16_either(
    base, random_adapter, tmp_path, monkeypatch, arrived
):
    """The chain moves the logits by less than the rounding that bfloat16 is allowed."""
    chain = 0.011 * random_adapter(base.slots.shapes)
    moved = float((base.logits(IDS, chain) - base.logits(IDS)).abs().max())
    assert moved < merging.CLOSE[torch.bfloat16] * float(base.logits(IDS).abs().max())
    whole = merging.merged_state
    monkeypatch.setattr(merging, "merged_state", lambda base, bound: whole(base, arrived * bound))
    with pytest.raises(AdapterWeightsError, match="does not say what the base says") as caught:
        merge(base, chain, tmp_path / "merged", torch.bfloat16)
    assert re.search(r"\d+ % of what the chain moves", str(caught.value.found))
    assert "float32" in str(caught.value.hint)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    merge(base, chain, tmp_path / "merged", torch.bfloat16)


def test_what_rounding_takes_away_is_told(tmp_path):
    """The starter's weights are numbers of bfloat16: most small changes round back to them."""
    base = Base.load("starter")
    chain = 0.02 * Adapter.load(Path(starter.__file__).parent / "adapters" / "formal")
    with pytest.raises(AdapterWeightsError, match="does not say what the base says") as caught:
        merge(base, chain, tmp_path / "merged", torch.bfloat16)
    assert "of what the chain moves" in str(caught.value.found)
    assert merge(base, chain, tmp_path / "merged") < 0.01


def test_a_chain_that_moves_nothing_is_the_base(base, random_adapter, tmp_path):
    adapter = random_adapter(base.slots.shapes)
    merge(base, adapter - adapter, tmp_path / "merged", torch.bfloat16)
    same = Base.load(str(tmp_path / "merged"), dtype="float32").logits(IDS)
    assert float((same - base.logits(IDS)).abs().max()) < 0.1 * float(same.abs().max())


def test_what_cannot_be_merged_is_told(base, random_adapter, tmp_path):
    layer = base.slots.linear_names()[0]
    out, wide = base.slots.shapes[layer]
    bias = Adapter({layer: Update(torch.ones(1, wide), torch.ones(out, 1),
                                  bias_delta=torch.ones(out))}, "bias")  # fmt: skip
    with pytest.raises(SlotError, match="has no bias that could be changed"):
        merge(base, bias, tmp_path / "merged")
    with pytest.raises(ChainError, match="nothing to merge"):
        merge(base, Chain(), tmp_path / "merged")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "config.json").write_text("{}")
    adapter = random_adapter(base.slots.shapes)
    with pytest.raises(ConfigError, match="is there already"):
        merge(base, adapter, tmp_path / "full")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        merge(base, adapter, tmp_path / "file" / "merged")
    assert isinstance(base.model.get_submodule(layer), nn.Linear)


def test_whole_values_are_merged_too(base, tmp_path):
    """DoRA's magnitudes and a saved norm, as PEFT leaves them in an adapter's folder."""
    layer = "model.layers.1.mlp.up_proj"
    out, wide = base.slots.shapes[layer]
    lengths = base.model.get_submodule(layer).weight.norm(dim=1) * 1.1
    norm = base.model.get_parameter("model.norm.weight") * 1.2
    generator = torch.Generator().manual_seed(0)
    update = Update(torch.randn(2, wide, generator=generator) * 0.1,
                    torch.randn(out, 2, generator=generator) * 0.1)  # fmt: skip
    adapter = Adapter(
        {layer: update},
        "dora",
        unbound=Unbound(magnitudes={layer: lengths}, weights={"model.norm.weight": norm}),
    )
    merge(base, 0.5 * adapter, tmp_path / "merged")
    merged = Base.load(str(tmp_path / "merged"))
    assert torch.allclose(merged.logits(IDS), base.logits(IDS, 0.5 * adapter), atol=1e-4)
