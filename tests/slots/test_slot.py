import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from detour.adapter.update import Update
from detour.slots.arithmetic import Rows
from detour.slots.content import bank, per_row, shared, trainable
from detour.slots.kinds import Kind, kind_of, shape_of
from detour.slots.slot import Current, Slot


def layers() -> list[nn.Module]:
    return [nn.Linear(4, 3), nn.Linear(4, 3, bias=False), Conv1D(3, 4)]


@pytest.mark.parametrize("layer", layers(), ids=["linear", "no bias", "conv1d"])
def test_a_slot_adds_to_its_layer_and_leaves_it_as_it_was(layer: nn.Module) -> None:
    x, down, up = torch.randn(2, 5, 4), torch.randn(2, 4), torch.randn(2, 3)
    before, attributes = layer(x), dict(layer.__dict__)
    slot = Slot(layer, Current())
    slot.attach()
    assert torch.equal(layer(x), before)
    slot.content = trainable(down, up, 0.5)
    torch.testing.assert_close(layer(x), before + 0.5 * x @ down.mT @ up)
    slot.content = None
    slot.detach()
    assert torch.equal(layer(x), before)
    assert layer.__dict__.keys() == attributes.keys()


def test_a_layer_is_called_by_keyword_too() -> None:
    layer = nn.Linear(4, 3)
    Slot(layer, Current()).attach()
    x = torch.randn(2, 4)
    assert torch.equal(layer(input=x), nn.functional.linear(x, layer.weight, layer.bias))


def test_shapes_are_read_by_kind() -> None:
    assert [shape_of(layer) for layer in layers()] == [(3, 4)] * 3


def test_layers_whose_forward_is_never_called_are_left_out() -> None:
    attention = nn.MultiheadAttention(8, 2)
    assert kind_of(attention.out_proj) is None
    assert kind_of(nn.LayerNorm(4)) is None
    assert kind_of(nn.Conv2d(4, 4, 3, groups=2)) is None
    assert kind_of(nn.Conv2d(4, 4, 3, padding_mode="circular")) is None
    assert kind_of(nn.Embedding(3, 4, max_norm=1.0)) is None
    assert [kind_of(layer) for layer in layers()] == [Kind.LINEAR] * 3


class Counted(nn.Embedding):
    """An embedding that looks up positions of its own making."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(torch.arange(input.shape[-1]))


def test_an_embedding_with_a_forward_of_its_own_has_no_slot() -> None:
    assert kind_of(nn.Embedding(3, 4)) is Kind.EMBEDDING
    assert kind_of(Counted(3, 4)) is None


CONVOLUTIONS = {
    "conv1d": (nn.Conv1d(3, 5, 2), (2, 3, 7)),
    "conv2d": (nn.Conv2d(3, 5, (2, 3), stride=2, padding=1, dilation=2), (2, 3, 9, 8)),
    "conv2d same": (nn.Conv2d(3, 5, 3, padding="same"), (2, 3, 6, 5)),
    "conv3d": (nn.Conv3d(3, 5, 2, bias=False), (2, 3, 4, 4, 4)),
}


@pytest.mark.parametrize(("layer", "shape"), CONVOLUTIONS.values(), ids=CONVOLUTIONS)
@pytest.mark.parametrize("by_row", [False, True])
def test_a_convolution_acts_as_if_its_weight_were_changed(layer, shape, by_row) -> None:
    x, generator = torch.randn(shape), torch.Generator().manual_seed(0)
    out, wide = shape_of(layer)
    updates = [
        Update(torch.randn(r, wide, generator=generator), torch.randn(out, r, generator=generator))
        for r in (2, 3)
    ]
    changed = [copy.deepcopy(layer) for _ in updates]
    for twin, update in zip(changed, updates, strict=True):
        twin.weight.data += 0.5 * update.delta().reshape(twin.weight.shape)
    wanted = torch.cat([changed[row if by_row else 0](x[row : row + 1]) for row in range(2)])
    slot = Slot(layer, Current(Rows.of(torch.arange(2))))
    slot.attach()
    gate = torch.tensor([[0.5, 0.0], [0.0, 0.5]])
    slot.content = bank(updates, gate) if by_row else shared([(updates[0], 0.5)])
    with torch.no_grad():
        torch.testing.assert_close(layer(x), wanted, rtol=1e-5, atol=1e-5)
    slot.detach()


@pytest.mark.parametrize("content", ["shared", "bank", "per row"])
def test_an_embedding_acts_as_if_its_table_were_changed(content: str) -> None:
    layer, ids = nn.Embedding(11, 4), torch.randint(0, 11, (3, 6))
    updates = [
        Update(torch.randn(2, 11), torch.randn(4, 2), 0.3, torch.randn(4), lookup=True)
        for _ in range(3)
    ]
    if content == "per row":
        updates = [Update(u.down, u.up, u.scale, lookup=True) for u in updates]
    chosen = [0, 0, 0] if content == "shared" else [0, 1, 2]
    gains = [u.row_scale if u.row_scale is not None else torch.zeros(4) for u in updates]
    wanted = torch.stack(
        [
            layer.weight[ids[row]] * (1 + gains[k]) + updates[k].delta().mT[ids[row]]
            for row, k in enumerate(chosen)
        ]
    )
    slot = Slot(layer, Current(Rows.of(torch.arange(3))))
    slot.attach()
    slot.content = {
        "shared": lambda: shared([(updates[0], 1.0)]),
        "bank": lambda: bank(updates, torch.eye(3)),
        "per row": lambda: per_row(
            torch.stack([u.down for u in updates]), torch.stack([u.up.mT for u in updates]), 0.3
        ),
    }[content]()
    torch.testing.assert_close(layer(ids), wanted, rtol=1e-5, atol=1e-5)
    slot.detach()


def test_an_embeddings_factors_learn() -> None:
    layer, ids = nn.Embedding(11, 4).requires_grad_(False), torch.randint(0, 11, (3, 6))
    down, up = torch.randn(2, 11, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    slot = Slot(layer, Current())
    slot.attach()
    slot.content = trainable(down, up, 0.5)
    layer(ids).square().sum().backward()
    ours = [down.grad.clone(), up.grad.clone()]
    down.grad = up.grad = None
    table = layer.weight + 0.5 * (down.mT @ up)
    table[ids].square().sum().backward()
    for mine, theirs in zip(ours, (down.grad, up.grad), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_forward_set_by_somebody_else_is_kept_and_given_back() -> None:
    layer = nn.Linear(4, 4)

    def doubled(input: torch.Tensor) -> torch.Tensor:
        return 2 * nn.Linear.forward(layer, input)

    layer.forward = doubled
    x = torch.randn(2, 4)
    before = layer(x)
    slot = Slot(layer, Current())
    slot.attach()
    assert torch.equal(layer(x), before)
    slot.detach()
    assert layer.__dict__["forward"] is doubled


def test_a_copied_layer_has_its_own_forward_and_no_slot() -> None:
    layer = nn.Linear(4, 3)
    slot = Slot(layer, Current(Rows.of(torch.arange(2))))
    slot.attach()
    slot.content = trainable(torch.randn(2, 4), torch.randn(2, 3))
    twin = copy.deepcopy(layer)
    x = torch.randn(2, 4)
    assert not isinstance(twin.forward, Slot)
    assert torch.equal(twin(x), nn.functional.linear(x, layer.weight, layer.bias))
    with torch.no_grad():
        twin.weight.zero_()
        twin.bias.zero_()
    assert torch.equal(twin(x), torch.zeros(2, 3))
