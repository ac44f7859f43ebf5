"""Layers below the lowest adapted one run once a row; everything stays as it was."""

import pytest
import torch
from tests.architectures import ARCHITECTURES
from transformers import LlamaConfig, LlamaForCausalLM

from detour.model.base import Base
from detour.model.loss import IGNORED
from detour.model.prefix import Prefix
from detour.model.rows import Batch
from detour.slots.content import trainable

ROOM = 2**30
KEEPS = {"Llama", "Mistral", "Qwen2", "Qwen3", "Gemma3", "Phi3", "StarCoder2", "GPT-NeoX", "OPT",
         "Mixtral", "Qwen3-MoE"}  # fmt: skip


def llama(layers=4):
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=layers,
                    num_attention_heads=2)
    )  # fmt: skip


def batch(lengths=(7, 4, 7), seed=0):
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(1, 30, mask.shape, generator=generator) * mask
    return Batch(ids, mask, ids.roll(-1, 1).masked_fill(mask == 0, IGNORED))


def factors(base, layers):
    made = {}
    for name in layers:
        out, width = base.slots.shapes[name]
        made[name] = (torch.randn(2, width).requires_grad_(), torch.randn(2, out).requires_grad_())
    return made


def lines(*batches):
    """The rows of the batches, without padding."""
    return [row[there.bool()] for one in batches
            for row, there in zip(one.ids, one.mask, strict=True)]  # fmt: skip


def calls(model, number):
    seen = []
    model.model.layers[number].mlp.register_forward_hook(lambda *_: seen.append(1))
    return seen


def test_known_rows_run_the_adapted_layers_only_and_give_the_same():
    model = llama()
    base = Base.from_model(model)
    layers = base.slots.named([r"layers.2.mlp.up_proj", r"layers.3.self_attn.q_proj"])
    below, above = calls(model, 1), calls(model, 2)
    forward = base.forward.remembering(layers, lines(batch()), ROOM)
    pairs = factors(base, layers)
    below.clear(), above.clear()
    found = []
    with base.hold({name: trainable(*pair) for name, pair in pairs.items()}):
        for _ in range(3):
            hidden = forward(batch()).hidden
            flat = [factor for pair in pairs.values() for factor in pair]
            found.append((hidden, torch.autograd.grad(hidden.square().sum(), flat)))
        expected = base.forward(batch()).hidden
    assert (len(below), len(above)) == (1, 4)  # the plain forward alone runs the first layers
    for hidden, gradients in found:
        assert torch.equal(hidden, expected)
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0][1], strict=True))


def test_other_batches_of_known_rows_are_known():
    model = llama()
    base = Base.from_model(model)
    one, other = batch(seed=0), batch(seed=1)
    forward = base.forward.remembering(["model.layers.3.mlp.up_proj"], lines(one, other, one), ROOM)
    expected = base.forward(Batch(*(torch.cat([getattr(one, n)[:1], getattr(other, n)[1:2]])
                                    for n in ("ids", "mask", "targets")))).hidden  # fmt: skip
    below = calls(model, 0)
    mixed = Batch(*(torch.cat([getattr(one, n)[:1], getattr(other, n)[1:2]])
                    for n in ("ids", "mask", "targets")))  # fmt: skip
    torch.testing.assert_close(forward(mixed).hidden, expected)
    assert below == []


def test_rows_that_nobody_told_of_run_through_all_layers():
    model = llama()
    base = Base.from_model(model)
    forward = base.forward.remembering(["model.layers.3.mlp.up_proj"], lines(batch(seed=0)), ROOM)
    below = calls(model, 0)
    assert torch.equal(forward(batch(seed=1)).hidden, base.forward(batch(seed=1)).hidden)
    assert len(below) == 2


def test_nothing_is_kept_where_there_is_no_room_for_all():
    base = Base.from_model(llama())
    size = (7 + 4 + 7) * 16 * 4
    adapted, rows = ["model.layers.3.mlp.up_proj"], lines(batch(), batch())
    assert base.forward.remembering(adapted, rows, size - 1) is base.forward
    assert base.forward.remembering(adapted, rows, size).prefix.taken == size


def test_the_upper_layers_do_not_run_to_keep_the_lower_ones():
    model = llama()
    base = Base.from_model(model)
    adapted = ["model.layers.2.mlp.up_proj"]
    below, above = calls(model, 1), calls(model, 2)
    base.forward.remembering(adapted, lines(batch()), ROOM)
    assert len(below) == len(above) + 1


@pytest.mark.parametrize(
    "adapted",
    [["model.layers.0.mlp.up_proj", "model.layers.3.mlp.up_proj"], ["model.embed_tokens"], []],
)
def test_nothing_is_kept_where_nothing_lies_below(adapted):
    base = Base.from_model(llama())
    assert base.forward.remembering(adapted, lines(batch()), ROOM) is base.forward


def test_a_head_that_learns_is_above_all_layers():
    base = Base.from_model(llama())
    adapted = ["lm_head", "model.layers.2.mlp.up_proj"]
    assert base.forward.remembering(adapted, lines(batch()), ROOM).prefix.place == 2


def test_layers_are_as_they_were_afterwards():
    model = llama()
    base = Base.from_model(model)
    forward = base.forward.remembering(["model.layers.3.mlp.up_proj"], lines(batch()), ROOM)
    forward(batch())
    assert all("forward" not in layer.__dict__ for layer in model.model.layers)
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


@pytest.mark.parametrize("name", sorted(KEEPS))
def test_architectures(name):
    model = ARCHITECTURES[name].model()
    base = Base.from_model(model)
    adapted = [layer for layer in base.slots.linear_names() if ".1." in layer]
    forward = base.forward.remembering(adapted, lines(batch()), ROOM)
    expected = base.forward(batch()).hidden
    first, second = forward(batch()).hidden, forward(batch()).hidden
    assert forward.prefix.place == 1
    torch.testing.assert_close(second, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(first, second)


def test_layers_that_share_what_earlier_ones_computed_are_not_passed_by():
    class Shares(torch.nn.Module):
        def __init__(self, layer, store):
            super().__init__()
            self.layer, self.store = layer, store

        def forward(self, hidden_states, *more, **named):
            found = self.layer(hidden_states, *more, **named)
            self.store.append(found)
            return found + self.store[0].sum() * 1e-2

    model = llama()
    store = []
    model.model.register_forward_pre_hook(lambda *_: store.clear())
    for number, layer in enumerate(model.model.layers):
        model.model.layers[number] = Shares(layer, store)
    base = Base.from_model(model)
    adapted = [n for n in base.slots.linear_names() if ".3." in n]
    assert Prefix.below(model, adapted) is not None
    assert base.forward.remembering(adapted, lines(batch()), ROOM) is base.forward
