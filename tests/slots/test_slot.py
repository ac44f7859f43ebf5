import copy

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from detour.slots.arithmetic import Rows
from detour.slots.content import trainable
from detour.slots.slot import Current, Slot, fits, shape_of


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
    assert not fits(attention.out_proj)
    assert not fits(nn.Embedding(3, 4))
    assert all(map(fits, layers()))


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
