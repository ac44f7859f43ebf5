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
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=512,
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
    assert max(back(first, head, head + 1) for head in range(3)) < 0.05
    assert max(continued(second, head) for head in range(3)) < 0.05
    prepare(model, 1)
    first, second, _ = attentions(model)
    assert min(back(first, head, head + 1) for head in range(3)) > 0.85
    assert min(continued(second, head) for head in range(3)) > 0.6
    assert min(continued(second, head) for head in (1, 2)) > 0.85  # two and three tokens agree


def test_longer_matches_are_told_apart():
    """Where one token stood before twice, the heads that match more of them know which."""
    model = fresh()
    prepare(model, 1)
    a, b, c, x, y = torch.randperm(2000, generator=torch.Generator().manual_seed(5))[:5].tolist()
    ids = torch.tensor(
        [[*range(100, 120), a, c, x, *range(120, 130), b, c, y, *range(130, 150), b, c]]
    )
    with torch.no_grad():
        _, second, _ = model(ids, output_attentions=True).attentions
    after_x, after_y = ids[0].tolist().index(x), ids[0].tolist().index(y)
    one, two = (second[0, head, -1] for head in (0, 1))
    assert one[after_x] > 0.1
    assert two[after_y] > 0.9 > 100 * two[after_x]


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
    with pytest.raises(ValueError, match="two layers and attention_bias"):
        prepare(fresh_of(**changes), 1)


def fresh_of(**changes):
    config = {"num_hidden_layers": 3, "attention_bias": True, **changes}
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=48, num_attention_heads=2,
                    num_key_value_heads=2, **config)
    )  # fmt: skip
