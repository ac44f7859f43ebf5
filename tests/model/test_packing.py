"""Rows in one line give what they give side by side, or are left side by side."""

import pytest
import torch
from tests.architectures import ARCHITECTURES
from transformers import (
    GptOssConfig,
    GptOssForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

from detour.model.loss import IGNORED
from detour.model.packing import Forward, packed_states
from detour.model.rows import Batch

PACKS = {
    "Llama", "Mistral", "Qwen2", "Qwen3", "Gemma3", "Phi3", "StarCoder2", "GPT-NeoX", "GPT-2",
    "OPT", "Mixtral", "Qwen3-MoE",
}  # fmt: skip
PADS = {"Gemma2", "Falcon", "CodeGen", "BLOOM"}  # softcap, or attention of their own


def batch(lengths=(9, 5, 2, 9)) -> Batch:
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, 30, mask.shape, generator=generator) * mask
    learned = (torch.rand(mask.shape, generator=generator) < 0.6) & mask.bool()
    targets = ids.roll(-1, 1).masked_fill(~learned, IGNORED)
    return Batch(ids, mask, targets)


def padded_only(model) -> Forward:
    forward = Forward(model)
    forward.packs = False
    return forward


@pytest.mark.parametrize("name", sorted(PACKS))
def test_states_and_gradients_are_those_of_padded_rows(name):
    model = ARCHITECTURES[name].model()
    forward = Forward(model)
    assert forward.packs
    layer = model.get_input_embeddings().weight
    found, expected = forward(batch()), padded_only(model)(batch())
    torch.testing.assert_close(found.hidden, expected.hidden, atol=2e-5, rtol=2e-5)
    assert torch.equal(found.targets, expected.targets)
    assert torch.equal(found.row, expected.row)
    upstream = torch.randn_like(found.hidden)
    (ours,) = torch.autograd.grad(found.hidden, layer, upstream)
    (theirs,) = torch.autograd.grad(expected.hidden, layer, upstream)
    torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("name", sorted(PADS))
def test_models_that_cannot_be_packed_are_padded(name):
    model = ARCHITECTURES[name].model()
    forward = Forward(model)
    assert not forward.packs
    assert forward(batch()).hidden.isfinite().all()


def recurrent():
    return MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=2))


def hybrid():
    return Qwen3NextForCausalLM(
        Qwen3NextConfig(
            vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=4,
            num_attention_heads=2, num_key_value_heads=1, head_dim=8, linear_num_key_heads=2,
            linear_num_value_heads=2, linear_key_head_dim=8, linear_value_head_dim=8,
            num_experts=2, num_experts_per_tok=1, moe_intermediate_size=12,
            shared_expert_intermediate_size=12,
        )
    )  # fmt: skip


@pytest.mark.parametrize("build", [recurrent, hybrid])
def test_layers_with_a_state_are_never_packed(build):
    assert not Forward(build().eval()).packs


def test_bfloat16_is_packed_with_the_attention_for_learning():
    model = ARCHITECTURES["Llama"].model().to(torch.bfloat16)
    assert Forward(model).packs
    found, expected = Forward(model)(batch()), padded_only(model)(batch())
    torch.testing.assert_close(found.hidden, expected.hidden, atol=2e-2, rtol=2e-2)


def counted(monkeypatch) -> list[int]:
    calls = []

    def told(model, ids, lengths, *more, **named):
        calls.append(len(lengths))
        return packed_states(model, ids, lengths, *more, **named)

    monkeypatch.setattr("detour.model.packing.packed_states", told)
    return calls


def test_rows_of_one_length_stay_side_by_side(monkeypatch):
    forward = Forward(ARCHITECTURES["Llama"].model())
    calls = counted(monkeypatch)
    forward(batch((4, 4, 4)))
    assert calls == []
    forward(batch((4, 3, 4)))
    assert calls == [3]


def small(config, **more):
    return config(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, **more,
    )  # fmt: skip


def test_rows_beyond_a_window_are_left_to_the_model(monkeypatch):
    model = MistralForCausalLM(small(MistralConfig, sliding_window=6)).eval()
    forward = Forward(model)
    calls = counted(monkeypatch)
    forward(batch((9, 5)))
    assert calls == []
    forward(batch((6, 5)))
    assert calls == [2]


def test_recomputed_layers_are_not_packed(monkeypatch):
    model = LlamaForCausalLM(small(LlamaConfig)).eval()
    forward = Forward(model)
    calls = counted(monkeypatch)
    model.activation_checkpointing_enable()
    forward(batch())
    assert calls == []
    model.activation_checkpointing_disable()
    forward(batch())
    assert calls == [4]


def test_attention_sinks_are_handed_on():
    model = GptOssForCausalLM(
        small(GptOssConfig, head_dim=8, num_local_experts=2, num_experts_per_tok=1)
    ).eval()
    forward = Forward(model)
    expected = padded_only(model)(batch()).hidden
    torch.testing.assert_close(forward(batch()).hidden, expected, atol=2e-5, rtol=2e-5)
