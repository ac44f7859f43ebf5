import copy

import pytest
import torch
from torch.nn import functional
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from detour.decoding.attention import torch_attention
from detour.model import attention as module
from detour.model.attention import attention, learning_attention
from detour.model.loss import completion_loss, hidden_states


def textbook(query, key, value, mask, scale):
    """By torch, with keys repeated for every head."""
    per_group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(per_group, 1), value.repeat_interleave(per_group, 1)
    return functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)


@pytest.mark.parametrize("together", [1, 2**20])
@pytest.mark.parametrize("masks", ["none", "one for all", "one a row", "one a head"])
@pytest.mark.parametrize(
    ("rows", "heads", "groups", "tokens", "width", "value_width"),
    [(1, 2, 2, 5, 8, 8), (3, 6, 2, 7, 8, 4), (4, 8, 1, 33, 16, 16)],
)
def test_outputs_and_gradients_are_those_of_the_textbook(
    rows, heads, groups, tokens, width, value_width, masks, together, monkeypatch
):
    monkeypatch.setattr(module, "_TOGETHER", together)
    torch.manual_seed(0)
    query = torch.randn(rows, heads, tokens, width, requires_grad=True)
    key = torch.randn(rows, groups, tokens, width, requires_grad=True)
    value = torch.randn(rows, groups, tokens, value_width, requires_grad=True)
    lead = {"one for all": (1, 1), "one a row": (rows, 1), "one a head": (rows, heads)}.get(masks)
    mask = None
    if lead is not None:
        mask = (torch.rand(*lead, tokens, tokens) < 0.5) | torch.eye(tokens).bool()
    upstream = torch.randn(rows, heads, tokens, value_width)
    expected = textbook(query, key, value, mask, 0.3)
    found = attention(query, key, value, mask, 0.3)
    torch.testing.assert_close(found, expected, atol=2e-6, rtol=1e-5)
    for ours, theirs in zip(
        torch.autograd.grad(found, (query, key, value), upstream),
        torch.autograd.grad(expected, (query, key, value), upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_a_token_that_may_look_at_nothing_stays_finite():
    query, key, value = (torch.randn(1, 1, 3, 4, requires_grad=True) for _ in range(3))
    mask = torch.ones(1, 1, 3, 3, dtype=torch.bool).tril(-1)
    found = attention(query, key, value, mask, 0.5)
    found.sum().backward()
    torch.testing.assert_close(found[0, 0, 0], value[0, 0].mean(0))
    assert all(torch.isfinite(t.grad).all() for t in (query, key, value))
    # what it looked for changed nothing, so no gradient goes there
    assert query.grad[0, 0, 0].abs().max() == 0


def test_one_long_row_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(module, "_LONGEST", 19)
    count = calls_of(monkeypatch)
    ids = torch.randint(0, 64, (2, 20))
    hidden_states(llama(), ids)
    assert count == [0]
    hidden_states(llama(), ids[:, :19])
    assert count == [3]


def test_attention_is_as_before_after_an_error_and_in_copies_made_meanwhile():
    model = llama()
    with learning_attention(model):
        assert model.config._attn_implementation == "detour_learning"
        copied = copy.deepcopy(model)
    torch_attention(copied)
    assert copied.config._attn_implementation == "sdpa"
    with pytest.raises(IndexError):  # inside of it: no such token
        hidden_states(model, torch.tensor([[64]]))
    assert model.config._attn_implementation == "sdpa"


def llama(dtype=torch.bfloat16):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def gpt2():
    torch.manual_seed(0)
    return (
        GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=64, n_layer=2, n_head=4)).bfloat16().eval()
    )


def gemma2():
    config = Gemma2Config(
        vocab_size=64, hidden_size=64, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=16, sliding_window=4,
    )  # fmt: skip
    return Gemma2ForCausalLM(config).bfloat16()


def calls_of(monkeypatch):
    """How often our attention ran."""
    count = [0]
    plain = module.attention

    def counted(*arguments):
        count[0] += 1
        return plain(*arguments)

    monkeypatch.setattr(module, "attention", counted)
    return count


def gradient(model, ids, mask, monkeypatch, quick):
    """The loss's gradient to the embeddings' weights, and its value."""
    with monkeypatch.context() as patch:
        if not quick:
            patch.setattr("detour.model.loss.learning_attention", lambda _: NoChange())
        weight = model.get_input_embeddings().weight
        weight.grad = None
        targets = torch.where(mask.bool(), ids, -100)
        loss = completion_loss(hidden_states(model, ids, mask), model.lm_head, targets)
        loss.backward()
        return float(loss.detach()), weight.grad.float().clone()


class NoChange:
    def __enter__(self):
        return None

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("make", [llama, gpt2])
@pytest.mark.parametrize("padded", [True, False])
def test_a_model_in_half_precision_learns_the_same_with_it(make, padded, monkeypatch):
    model = make()
    ids = torch.randint(0, 64, (4, 20))
    mask = torch.ones_like(ids)
    if padded:
        mask[1, :6] = 0
        mask[2, 13:] = 0
    count = calls_of(monkeypatch)
    expected_loss, expected = gradient(model, ids, mask, monkeypatch, quick=False)
    assert count == [0]
    loss, found = gradient(model, ids, mask, monkeypatch, quick=True)
    assert count[0] == model.config.num_hidden_layers
    assert loss == pytest.approx(expected_loss, rel=5e-3)
    assert float((found - expected).norm() / expected.norm()) < 0.03
    assert model.config._attn_implementation == "sdpa"


def test_without_gradients_in_fp32_or_with_attention_of_their_own_models_stay_as_they_are(
    monkeypatch,
):
    count = calls_of(monkeypatch)
    ids = torch.randint(0, 64, (2, 9))
    with torch.no_grad():
        hidden_states(llama(), ids)
    hidden_states(llama(torch.float32), ids)
    hidden_states(gemma2(), ids)  # softcaps: transformers chooses `eager` for it
    recomputed = llama().train()
    recomputed.activation_checkpointing_enable()
    with learning_attention(recomputed):
        assert recomputed.config._attn_implementation == "sdpa"
    assert count == [0]
