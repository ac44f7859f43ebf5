"""Layers that run once more in the backward: the same numbers, less kept."""

from __future__ import annotations

import pytest
import torch
from tests.architectures import ARCHITECTURES
from torch import Tensor

from detour.model.base import Base
from detour.model.packing import Forward
from detour.model.recompute import recomputing
from detour.model.rows import Batch, Encoded, padded
from detour.training.config import make_config
from detour.training.kinds import factors_of
from detour.training.objective import answer_loss

FAMILIES = ("Llama", "Qwen3", "Gemma2", "Phi3", "GPT-2", "Mixtral")


def base_of(family: str, dtype: torch.dtype = torch.float32) -> Base:
    return Base.from_model(ARCHITECTURES[family].model().to(dtype))


def batch_of(lengths: tuple[int, ...]) -> Batch:
    rows = [Encoded([1 + (3 * n + k) % 20 for k in range(n)], [k > 1 for k in range(n)])
            for n in lengths]  # fmt: skip
    return padded(rows, 0)


def gradients(base: Base, forward: Forward, batch: Batch) -> list[Tensor]:
    config = make_config({"rank": 2})
    factors = factors_of(base.slots, base.slots.named("all-linear"), config, base.device)
    torch.manual_seed(1)
    for parameter in factors.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    with base.hold(factors.contents()):
        answer_loss(forward, base.head, batch).backward()
    return [parameter.grad for parameter in factors.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [(4, 9, 6), (7, 7)])
def test_gradients_are_bit_equal(family: str, dtype: torch.dtype, lengths: tuple[int, ...]) -> None:
    base = base_of(family, dtype)
    batch = batch_of(lengths)
    plain = gradients(base, base.forward, batch)
    again = gradients(base, base.forward.recomputing(), batch)
    assert len(plain) == len(again) > 0
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


class Kept:
    """Counts the numbers that a forward leaves for the backward."""

    def __init__(self) -> None:
        self.numbers = 0

    def __call__(self, tensor: Tensor) -> Tensor:
        self.numbers += tensor.numel()
        return tensor


def kept(base: Base, forward: Forward, batch: Batch) -> int:
    count = Kept()
    config = make_config({"rank": 2})
    factors = factors_of(base.slots, base.slots.named("all-linear"), config, base.device)
    with (
        base.hold(factors.contents()),
        torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
    ):
        forward(batch)
    return count.numbers


def test_a_forward_keeps_what_enters_the_layers_only() -> None:
    base = base_of("Llama")
    batch = batch_of((20, 31, 25))
    assert kept(base, base.forward.recomputing(), batch) < kept(base, base.forward, batch) / 4


def test_the_layers_are_as_before_even_after_an_error() -> None:
    base = base_of("Llama")
    layers = base.model.base_model.layers
    with recomputing(base.model):
        assert all("forward" in layer.__dict__ for layer in layers)
        out_of_range = torch.tensor([[10**6]])
        with pytest.raises(IndexError):
            base.model(out_of_range)
    assert not any("forward" in layer.__dict__ for layer in layers)


def test_layers_that_are_passed_by_stay_so() -> None:
    base = base_of("Llama")
    batch = batch_of((5, 8, 6))
    adapted = base.slots.named(r".*layers\.1\..*")
    rows = [ids[mask.bool()] for ids, mask in zip(batch.ids, batch.mask, strict=True)]
    remembering = base.forward.remembering(adapted, rows, 2**30)
    assert remembering.prefix is not None
    found = remembering.recomputing()(batch).hidden
    assert torch.equal(found, remembering(batch).hidden)
