"""How strongly others act on what an adapter is asked: beside the dense computation."""

import math

import pytest
import torch
from tests.conftest import make_adapter
from torch.nn.functional import kl_div

from detour.adapter.chain import Chain, Term
from detour.adapter.chain_text import LayerWeight
from detour.evaluate.interference import moved
from detour.model.base import Base

TEXTS = [(list(range(3, 15)), 5), ([7, 8, 9, 10, 4, 4, 4], 3)]


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


@pytest.fixture
def chain(base):
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    one, other, third = (make_adapter(shapes, seed=seed, strength=0.1) for seed in (1, 2, 3))
    some = dict(list(third.updates.items())[:3])
    third = type(third)(some, "third", third.base)
    return Chain((Term(one, 0.8, (LayerWeight(0, 0, 0.3),)), Term(other, -1.5), Term(third)))


def dense(base, chain, place):
    """The same from whole matrices and the inputs that torch's own hooks see."""
    energies = [0.0] * len(chain.terms)

    def look(layer):
        def hook(_, given):
            x = given[0].reshape(-1, given[0].shape[-1])
            for number, term in enumerate(chain.terms):
                if layer in term.adapter.updates:
                    told = x @ (term.weight_at(layer) * term.adapter.updates[layer].delta()).mT
                    energies[number] += float(told.square().sum())

        return hook

    divergence, count = 0.0, 0
    for ids, start in TEXTS:
        given = torch.tensor([ids])
        handles = [base.model.get_submodule(layer).register_forward_pre_hook(look(layer))
                   for layer in base.slots.linear_names()]  # fmt: skip
        together = base.logits(given, chain)[0].log_softmax(-1)
        for handle in handles:
            handle.remove()
        own = base.logits(given, Chain((chain.terms[place],)))[0].log_softmax(-1)
        for position in range(start - 1, len(ids) - 1):
            divergence += float(
                kl_div(together[position], own[position], reduction="sum", log_target=True)
            )
            count += 1
    return energies, divergence / count, count


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_figures_are_those_of_whole_matrices(base, chain, place):
    found = moved(base, chain, place, TEXTS)
    energies, divergence, count = dense(base, chain, place)
    assert set(found.interference) == {0, 1, 2} - {place}
    for other, value in found.interference.items():
        assert value == pytest.approx(energies[other] / energies[place], rel=1e-4)
    assert found.kl_to_alone == pytest.approx(divergence, rel=1e-3)
    assert found.kl_to_alone > 0
    assert found.tokens == count == 7 + 4


def test_what_does_nothing_has_no_ratio_and_leaves_no_hook(base, chain):
    silent = Chain((chain.terms[0] * 0.0, chain.terms[1]))
    found = moved(base, silent, 0, TEXTS)
    assert math.isnan(found.interference[1])
    assert not any(module._forward_pre_hooks for module in base.model.modules())
    assert math.isnan(moved(base, chain, 0, []).kl_to_alone)
