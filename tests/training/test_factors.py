import pytest
import torch

from detour.model.base import Base
from detour.training.factors import Factors, Size

CPU = torch.device("cpu")
SHAPES = {"a": (5, 7), "b": (3, 4)}


@pytest.fixture(params=["llama", "gpt2"])
def base(request, make_model, tiny_tokenizer):
    return Base.from_model(make_model(request.param), tiny_tokenizer)


def test_the_start_is_the_base_bit_for_bit(base):
    ids = torch.tensor([[1, 5, 9, 30], [2, 2, 7, 80]])
    bare = base.logits(ids)
    factors = Factors(base.slots.shapes, Size(4, 2.0), 0, CPU)
    with base.hold(factors.contents()), torch.no_grad():
        assert torch.equal(base.model(ids).logits, bare)


def test_shapes_and_start():
    factors = Factors(SHAPES, Size(2, 0.5), seed=1, device=CPU)
    (down, up), _ = factors.pairs["a"], factors.pairs["b"]
    assert (down.shape, up.shape) == ((2, 7), (2, 5))
    assert float(up.detach().abs().max()) == 0
    assert 0 < float(down.detach().abs().max()) <= 7**-0.5
    assert len(list(factors.parameters())) == 4
    assert all(p.requires_grad and p.dtype == torch.float32 for p in factors.parameters())


def test_the_seed_decides_the_start():
    taken = [Factors(SHAPES, Size(2, 0.5), seed, CPU).snapshot() for seed in (1, 1, 2)]
    assert all(torch.equal(taken[0][name], taken[1][name]) for name in taken[0])
    assert not torch.equal(taken[0]["a.down"], taken[2]["a.down"])


def test_a_snapshot_is_a_copy_and_restore_its_inverse():
    factors = Factors(SHAPES, Size(2, 0.5), 0, CPU)
    taken = factors.snapshot()
    assert sorted(taken) == ["a.down", "a.up", "b.down", "b.up"]
    with torch.no_grad():
        for parameter in factors.parameters():
            parameter.add_(1)
    assert float(taken["a.up"].max()) == 0
    factors.restore(taken)
    now = factors.snapshot()
    assert all(torch.equal(now[name], taken[name]) for name in taken)


def test_updates_are_what_the_slots_computed():
    """Mutation check: the scale, and the transposed `up`, must be those of the slots."""
    factors = Factors(SHAPES, Size(2, 3.0), 0, CPU)
    with torch.no_grad():
        for parameter in factors.parameters():
            parameter.normal_(generator=torch.Generator().manual_seed(5))
    updates = factors.updates(factors.snapshot())
    for layer, (down, up) in factors.pairs.items():
        dense = 3.0 * up.detach().T @ down.detach()  # (out, in)
        torch.testing.assert_close(updates[layer].delta(), dense)
        assert updates[layer].scale == 3.0


def test_factors_in_the_slots_equal_the_adapter_they_become(base):
    factors = Factors(base.slots.shapes, Size(2, 4.0), 0, CPU)
    with torch.no_grad():
        for parameter in factors.parameters():
            parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(3))
    ids = torch.tensor([[1, 5, 9, 30]])
    with base.hold(factors.contents()), torch.no_grad():
        training = base.model(ids).logits
    from detour.adapter.adapter import Adapter

    adapter = Adapter(factors.updates(factors.snapshot()), "a")
    loaded = base.logits(ids, adapter)
    torch.testing.assert_close(loaded, training, atol=1e-4, rtol=1e-4)
    assert float((loaded - base.logits(ids)).abs().max()) > 0.1
