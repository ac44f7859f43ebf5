"""The structured start, seen in the attention of a model that has learned nothing."""

import pytest
import torch
from recipes.starter.start import prepare
from transformers import LlamaConfig, LlamaForCausalLM

REPEATED, LENGTH = slice(50, 150), 200


def fresh(**changes) -> LlamaForCausalLM:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=2000, hidden_size=256, intermediate_size=704, num_hidden_layers=3,
        num_attention_heads=8, num_key_value_heads=8, max_position_embeddings=512,
        tie_word_embeddings=True, attn_implementation="eager",
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        **{"attention_bias": True, **changes},
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def attentions(model: LlamaForCausalLM) -> list[torch.Tensor]:
    """Of random tokens, half of which come a second time: each (rows, heads, tokens, tokens)."""
    ids = torch.randint(0, 2000, (2, LENGTH), generator=torch.Generator().manual_seed(2))
    ids = torch.cat([ids, ids[:, REPEATED]], 1)
    with torch.no_grad():
        return model(ids, output_attentions=True).attentions


def back(attention: torch.Tensor, head: int, distance: int) -> float:
    return attention[:, head].diagonal(-distance, 1, 2).mean().item()


def continued(attention: torch.Tensor, head: int) -> float:
    """The attention of the repeated tokens on what followed them the first time."""
    asking = torch.arange(LENGTH + 3, LENGTH + 99)
    followed = asking - LENGTH + REPEATED.start + 1
    return attention[:, head, asking, followed].mean().item()


def test_heads_look_back_and_find_what_followed():
    model = fresh()
    first, second, _ = attentions(model)
    assert max(back(first, head, head + 1) for head in range(6)) < 0.05
    assert max(continued(second, head) for head in range(6)) < 0.05
    prepare(model, 1)
    first, second, _ = attentions(model)
    assert min(back(first, head, head + 1) for head in range(6)) > 0.85
    assert continued(second, 0) > 0.3
    assert min(continued(second, head) for head in range(1, 6)) > 0.45  # more tokens agree


def test_longer_matches_are_told_apart():
    """Where one token stood before twice, the heads that match more of them know which."""
    model = fresh()
    prepare(model, 1)
    draw = torch.Generator().manual_seed(5)
    rows = [torch.randperm(2000, generator=draw)[:80].tolist() for _ in range(40)]
    told = [[*r[:30], *r[30:36], r[50], r[51], *r[60:70], *r[40:46], r[50], r[52], *r[70:],
             *r[40:46], r[50]] for r in rows]  # fmt: skip
    with torch.no_grad():
        _, second, _ = model(torch.tensor(told), output_attentions=True).attentions
    (wrong, right), last = (37, 55), second[:, :, -1]
    assert all(row[wrong - 1] == row[right - 1] == row[-1] for row in told)
    one, *more = (last[:, head].mean(0) for head in range(6))
    assert 0.5 < one[wrong] / one[right] < 2
    assert min(head[right] for head in more) > 0.4
    assert max(head[wrong] / head[right] for head in more) < 0.2


def test_elsewhere_queries_begin_equal_to_keys():
    model = fresh()
    prepare(model, 1)
    for layer in model.model.layers:
        attention = layer.self_attn
        own = slice(None) if layer is model.model.layers[2] else slice(192, None)
        assert torch.equal(attention.q_proj.weight[own], attention.k_proj.weight[own])
        assert attention.k_proj.weight[own].std().item() == pytest.approx(0.05, abs=0.005)


def test_the_seed_decides():
    def started(seed):
        model = fresh()
        prepare(model, seed)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(started(1), started(1))
    assert not torch.equal(started(1), started(2))


@pytest.mark.parametrize("changes", [{"attention_bias": False}, {"num_hidden_layers": 1}])
def test_a_model_without_room_is_refused(changes):
    with pytest.raises(ValueError, match="two layers, three heads and attention_bias"):
        prepare(fresh_of(**changes), 1)


def fresh_of(**changes):
    config = {"num_hidden_layers": 3, "attention_bias": True, **changes}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_attention_heads=2,
                    num_key_value_heads=2, **config)
    )  # fmt: skip
