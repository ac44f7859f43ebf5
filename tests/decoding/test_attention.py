import pytest
import torch
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from detour.decoding.attention import one_token, one_token_attention


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize(
    ("rows", "heads", "groups", "keys", "width"),
    [(1, 4, 4, 5, 8), (3, 6, 2, 7, 8), (8, 16, 8, 65, 32), (5, 8, 8, 100, 32), (4, 6, 3, 90, 64)],
)
def test_it_is_the_attention_of_the_textbook(
    rows, heads, groups, keys, width, scaling, masked, dtype
):
    torch.manual_seed(0)
    query = torch.randn(rows, heads, 1, width, dtype=dtype)
    key = torch.randn(rows, groups, keys + 9, width, dtype=dtype)[:, :, :keys]  # room behind them
    value = torch.randn(rows, groups, keys + 9, width, dtype=dtype)[:, :, :keys]
    mask = torch.rand(rows, 1, 1, keys) < 0.6 if masked else None
    if mask is not None:
        mask[..., -1] = True
    expected = functional.scaled_dot_product_attention(
        query.double(),
        key.double().repeat_interleave(heads // groups, 1),
        value.double().repeat_interleave(heads // groups, 1),
        mask,
        scale=scaling,
    ).transpose(1, 2)
    found = one_token(query, key, value, mask, scaling)
    tolerance = (
        {"atol": 2e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.03, "rtol": 0.03}
    )
    torch.testing.assert_close(found.double(), expected, **tolerance)


def llama(**options):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=64, hidden_size=256, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=256, **options,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def steps(model, ids):
    """Logits of the last two tokens, each over a cache."""
    with torch.no_grad():
        cache = model(ids[:, :-2], use_cache=True).past_key_values
        first = model(ids[:, -2:-1], past_key_values=cache, use_cache=True).logits
        return first, model(ids[:, -1:], past_key_values=cache, use_cache=True).logits


def test_a_model_decodes_the_same_with_it_and_is_as_before_afterwards():
    model = llama()
    ids = torch.randint(0, 64, (6, 120))
    expected = steps(model, ids)
    with one_token_attention(model):
        assert model.config._attn_implementation != "sdpa"
        found = steps(model, ids)
    assert model.config._attn_implementation == "sdpa"
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_a_model_that_attends_otherwise_goes_on_doing_so():
    model = llama(attn_implementation="eager")
    with one_token_attention(model):
        assert model.config._attn_implementation == "eager"


def test_an_error_inside_leaves_the_model_as_it_was():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=1, n_head=2))
    before = model.config._attn_implementation
    with pytest.raises(ZeroDivisionError), one_token_attention(model):
        raise ZeroDivisionError
    assert model.config._attn_implementation == before
