import pytest
import torch
from torch import nn

from detour.slots.content import Content, Term
from detour.slots.install import install
from detour.slots.products import FEW, Products, onednn_computes

OUT, IN = 640, 512  # more than SMALL for one token
needs_onednn = pytest.mark.skipif(
    not onednn_computes(torch.float32, torch.device("cpu")), reason="torch without oneDNN"
)


def layer(dtype: torch.dtype = torch.float32, bias: bool = True) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(IN, OUT, bias=bias).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(1,), (3, 1), (2, 5), (FEW,), (FEW + 1,), (3, 100)])
def test_products_are_those_of_the_layer(lead, bias, dtype):
    linear, products = layer(dtype, bias), Products()
    x = torch.randn(*lead, IN, dtype=dtype)
    with torch.no_grad():
        exact = nn.functional.linear(
            x.double(),
            linear.weight.double(),
            None if linear.bias is None else linear.bias.double(),
        )
        found, own = products.linear(linear, x), linear(x)
    assert found.shape == own.shape
    assert found.dtype == dtype
    # both round: ours may not be further from the truth than a few roundings of the layer's own
    off = (own - exact).abs().max()
    assert (found - exact).abs().max() <= 3 * off + 1e-5


@needs_onednn
def test_an_input_with_gaps_is_read_as_it_is():
    linear, products = layer(), Products()
    x = torch.randn(4, IN, 3).mT[:, ::2]
    with torch.no_grad():
        torch.testing.assert_close(products.linear(linear, x), linear(x))


@needs_onednn
def test_few_tokens_are_multiplied_from_a_packed_weight_and_many_are_not():
    linear, products = layer(), Products()
    with torch.no_grad():
        products.linear(linear, torch.randn(FEW + 1, IN))
        assert products.packed_bytes == 0
        products.linear(linear, torch.randn(FEW, IN))
        products.linear(linear, torch.randn(2, IN))
    assert products.packed_bytes == linear.weight.nbytes


@needs_onednn
def test_no_more_is_packed_than_there_is_room_for():
    first, second = layer(), layer()
    products = Products(limit=first.weight.nbytes)
    x = torch.randn(2, IN)
    with torch.no_grad():
        for linear in (first, second):
            torch.testing.assert_close(products.linear(linear, x), linear(x))
    assert products.packed_bytes == first.weight.nbytes


@needs_onednn
def test_a_weight_that_has_changed_is_packed_anew():
    linear, products = layer(), Products()
    x = torch.randn(2, IN)
    with torch.no_grad():
        before = products.linear(linear, x)
        linear.weight.mul_(2)
        after = products.linear(linear, x)
    torch.testing.assert_close(after - linear.bias, 2 * (before - linear.bias))
    assert products.packed_bytes == linear.weight.nbytes


@needs_onednn
@pytest.mark.parametrize(
    "change",
    [
        lambda weight: weight.data.mul_(2),
        lambda weight: setattr(weight, "data", weight.data * 2),
        lambda weight: weight.data.add_(weight.data),
    ],
)
def test_a_change_behind_torch_s_back_is_found_when_decoding_starts(change):
    model = nn.Sequential(layer(bias=False))
    slots = install(model)
    x = torch.randn(2, IN)
    with torch.no_grad():
        with slots.faster_products():
            before = model(x)
        change(model[0].weight)
        with slots.faster_products():
            torch.testing.assert_close(model(x), 2 * before)
    assert slots.products.packed_bytes == model[0].weight.nbytes


@needs_onednn
def test_another_type_in_its_place_is_another_weight():
    linear, products = layer(), Products()
    x = torch.randn(2, IN)
    with torch.no_grad():
        products.linear(linear, x)
        linear.bfloat16()
        found = products.linear(linear, x.bfloat16())
        torch.testing.assert_close(found, linear(x.bfloat16()), atol=0.02, rtol=0.02)


@needs_onednn
def test_packed_weights_go_with_their_parameters():
    linear, products = layer(), Products()
    with torch.no_grad():
        products.linear(linear, torch.randn(2, IN))
        del linear
        products.refresh()
    assert products.packed_bytes == 0


def test_whoever_is_last_puts_the_layers_own_products_back():
    model = nn.Sequential(layer())
    slots = install(model)
    x = torch.randn(2, IN)
    with torch.no_grad():
        own = model(x)
        one, other = slots.faster_products(), slots.faster_products()
        one.__enter__()
        other.__enter__()
        one.__exit__(None, None, None)
        other.__exit__(None, None, None)
        assert torch.equal(model(x), own)


@needs_onednn
def test_another_parameter_in_its_place_is_another_weight():
    linear, products = layer(), Products()
    x = torch.randn(2, IN)
    with torch.no_grad():
        products.linear(linear, x)
        linear.weight = nn.Parameter(torch.randn(OUT, IN) / IN**0.5)
        torch.testing.assert_close(products.linear(linear, x), linear(x))


def test_a_weight_that_only_stands_in_is_not_packed():
    linear, products = layer(), Products()
    weight = linear.weight.detach().clone()
    del linear.weight
    linear.__dict__["weight"] = weight
    with torch.no_grad():
        torch.testing.assert_close(
            products.linear(linear, torch.ones(2, IN)), linear(torch.ones(2, IN))
        )
    assert products.packed_bytes == 0


def test_gradients_flow_as_in_the_layer():
    linear, products = layer(), Products()
    x = torch.randn(2, IN, requires_grad=True)
    products.linear(linear, x).sum().backward()
    torch.testing.assert_close(x.grad, linear.weight.detach().sum(0).expand(2, IN))


def test_small_products_are_the_layer_s_own_bit_by_bit():
    small, products = nn.Linear(16, 8), Products()
    x = torch.randn(3, 16)
    with torch.no_grad():
        assert torch.equal(products.linear(small, x), small(x))
    assert products.packed_bytes == 0


@needs_onednn
def test_slots_use_them_only_when_asked_to():
    model = nn.Sequential(layer())
    slots = install(model)
    x = torch.randn(2, IN)
    content = Content((Term(torch.randn(4, IN), torch.randn(4, OUT)),))
    with torch.no_grad(), slots.hold({"0": content}):
        own = model(x)
        assert slots.products.packed_bytes == 0
        with slots.faster_products():
            torch.testing.assert_close(model(x), own)
        assert slots.products.packed_bytes == model[0].weight.nbytes
        assert torch.equal(model(x), own)


@needs_onednn
def test_a_layer_with_a_forward_of_its_own_keeps_it():
    class Doubled(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    model = nn.Sequential(Doubled(IN, OUT))
    x = torch.randn(2, IN)
    with torch.no_grad():
        own = model(x)
        with install(model).faster_products():
            assert torch.equal(model(x), own)
