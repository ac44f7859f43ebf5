"""What a fine-tuned model is beyond its base, as an adapter."""

from __future__ import annotations

import pytest
import torch
from tests.architectures import ARCHITECTURES

from detour.errors import BaseError, ConfigError
from detour.model.base import Base
from detour.model.extracting import extract
from detour.slots.kinds import Kind

FAMILIES = ("Llama", "GPT-2", "Phi3", "Gemma2", "Qwen2")


def pair(family: str, everything: bool = False) -> tuple[Base, Base]:
    """A base, and a copy whose linear layers (or all weights) were moved."""
    base = Base.from_model(ARCHITECTURES[family].model())
    tuned = ARCHITECTURES[family].model()
    torch.manual_seed(1)
    linear = set(base.slots.linear_names())
    for name, parameter in tuned.named_parameters():
        if everything or name.rpartition(".")[0] in linear:
            parameter.data += 0.02 * torch.randn_like(parameter)
    return base, Base.from_model(tuned)


IDS = torch.tensor([[1, 5, 3, 7, 2, 9]])


@pytest.mark.parametrize("family", FAMILIES)
def test_at_full_rank_it_is_the_fine_tuned_model(family):
    base, tuned = pair(family)
    found = extract(base, tuned, 999)
    assert found.error < 1e-5
    assert found.left_out == {}
    torch.testing.assert_close(
        base.logits(IDS, found.adapter), tuned.logits(IDS), atol=2e-4, rtol=2e-4
    )
    assert found.adapter.base == base.fingerprint


def test_a_lower_rank_is_the_nearest_and_says_how_near():
    base, tuned = pair("Llama")
    found = extract(base, tuned, 3)
    lost = total = 0.0
    for layer, update in found.adapter.updates.items():
        change = tuned.slots.module(layer).weight - base.slots.module(layer).weight
        sizes = torch.linalg.svdvals(change.detach())
        lost += float(sizes[3:].square().sum())
        total += float(sizes.square().sum())
        assert update.rank == 3
    assert found.error == pytest.approx((lost / total) ** 0.5, rel=1e-4)
    assert found.adapter.updates.keys() == set(base.slots.named("all-linear"))


def test_what_no_linear_layer_holds_is_left_out_and_told():
    base, tuned = pair("Llama", everything=True)
    found = extract(base, tuned, 4)
    assert any("norm" in name for name in found.left_out)
    assert any("embed" in name for name in found.left_out)
    assert all(by > 0 for by in found.left_out.values())
    assert all(base.slots.kinds[name] is Kind.LINEAR for name in found.adapter.updates)


def test_layers_that_did_not_change_are_not_in_it():
    base = Base.from_model(ARCHITECTURES["Llama"].model())
    model = ARCHITECTURES["Llama"].model()
    model.model.layers[1].mlp.up_proj.weight.data += 0.1
    found = extract(base, Base.from_model(model), 2)
    assert list(found.adapter.updates) == ["model.layers.1.mlp.up_proj"]
    assert found.error < 1e-4  # it was of rank 1


def test_two_equal_models_are_refused():
    base, same = (Base.from_model(ARCHITECTURES["Llama"].model()) for _ in range(2))
    with pytest.raises(ConfigError, match="do not differ"):
        extract(base, same, 2)


def test_models_of_other_shapes_are_refused():
    base, other = (Base.from_model(ARCHITECTURES[name].model()) for name in ("Llama", "Qwen2"))
    with pytest.raises(BaseError, match="same parameters"):
        extract(base, other, 2)


def test_ranks_below_one_are_refused():
    base, tuned = pair("Llama")
    with pytest.raises(ConfigError, match="rank"):
        extract(base, tuned, 0)
