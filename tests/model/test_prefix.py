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


def calls(model, number):
    seen = []
    model.model.layers[number].mlp.register_forward_hook(lambda *_: seen.append(1))
    return seen


def test_the_second_epoch_runs_the_adapted_layers_only_and_gives_the_same():
    model = llama()
    base = Base.from_model(model)
    layers = base.slots.named([r"layers.2.mlp.up_proj", r"layers.3.self_attn.q_proj"])
    forward = base.forward.remembering(layers, ROOM)
    pairs = factors(base, layers)
    below, above = calls(model, 1), calls(model, 2)
    found = []
    with base.hold({name: trainable(*pair) for name, pair in pairs.items()}):
        for _ in range(3):
            hidden = forward(batch()).hidden
            flat = [factor for pair in pairs.values() for factor in pair]
            found.append((hidden, torch.autograd.grad(hidden.square().sum(), flat)))
        expected = base.forward(batch()).hidden
    assert (len(below), len(above)) == (2, 4)  # the first epoch, and the plain forward
    for hidden, gradients in found:
        assert torch.equal(hidden, expected)
        assert all(torch.equal(a, b) for a, b in zip(gradients, found[0][1], strict=True))


def test_other_batches_of_known_rows_are_known():
    model = llama()
    base = Base.from_model(model)
    forward = base.forward.remembering(["model.layers.3.mlp.up_proj"], ROOM)
    one, other = batch(seed=0), batch(seed=1)
    expected = base.forward(Batch(*(torch.cat([getattr(one, n)[:1], getattr(other, n)[1:2]])
                                    for n in ("ids", "mask", "targets")))).hidden  # fmt: skip
    forward(one), forward(other)
    below = calls(model, 0)
    mixed = Batch(*(torch.cat([getattr(one, n)[:1], getattr(other, n)[1:2]])
                    for n in ("ids", "mask", "targets")))  # fmt: skip
    torch.testing.assert_close(forward(mixed).hidden, expected)
    assert below == []


def test_no_more_is_kept_than_there_is_room_for():
    base = Base.from_model(llama())
    row = 7 * 16 * 4
    forward = base.forward.remembering(["model.layers.3.mlp.up_proj"], row + 100)
    expected = base.forward(batch()).hidden
    for _ in range(2):
        assert torch.equal(forward(batch()).hidden, expected)
    assert 0 < forward.prefix.taken <= row + 100


@pytest.mark.parametrize(
    "adapted",
    [["model.layers.0.mlp.up_proj", "model.layers.3.mlp.up_proj"], ["model.embed_tokens"], []],
)
def test_nothing_is_kept_where_nothing_lies_below(adapted):
    base = Base.from_model(llama())
    assert base.forward.remembering(adapted, ROOM) is base.forward


def test_a_head_that_learns_is_above_all_layers():
    base = Base.from_model(llama())
    adapted = ["lm_head", "model.layers.2.mlp.up_proj"]
    assert base.forward.remembering(adapted, ROOM).prefix.place == 2


def test_layers_are_as_they_were_afterwards():
    model = llama()
    base = Base.from_model(model)
    forward = base.forward.remembering(["model.layers.3.mlp.up_proj"], ROOM)
    forward(batch()), forward(batch())
    assert all("forward" not in layer.__dict__ for layer in model.model.layers)
    assert not any(layer._forward_pre_hooks for layer in model.model.layers)


@pytest.mark.parametrize("name", sorted(KEEPS))
def test_architectures(name):
    model = ARCHITECTURES[name].model()
    base = Base.from_model(model)
    adapted = [layer for layer in base.slots.linear_names() if ".1." in layer]
    forward = base.forward.remembering(adapted, ROOM)
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
    assert Prefix.below(model, adapted, ROOM) is not None
    assert base.forward.remembering(adapted, ROOM) is base.forward
