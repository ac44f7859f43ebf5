"""How many adapters a model bears: chains that are drawn, layers that are parted, and the curve."""

import pytest
from tests.conftest import make_adapter

from detour.adapter.chain import Chain, Term
from detour.adapter.library import Library
from detour.errors import ChainError
from detour.evaluate.chain_stress import _chain, _drawn, stress
from detour.evaluate.chain_tests import items_of, spread
from detour.evaluate.stress_plot import curve


def pool(*names):
    shelf = Library.default()
    return Chain.of(*(shelf.load(name) for name in names))


def test_the_curve_falls_and_is_told_for_both_kinds_of_layers(starter):
    chain = pool("pun", "polite", "formal")
    tests = [spread(items_of(term.adapter), 6) for term in chain.terms]
    told = []
    found = stress(starter, chain, tests, counts=(1, 2, 3, 9), draws=2, teller=told.append)
    assert [(one.count, one.layers, one.chains) for one in found.curve] == [
        (1, "same", 3), (2, "same", 2), (3, "same", 1), (2, "disjoint", 2), (3, "disjoint", 1),
    ]  # fmt: skip
    one, *_, three = found.curve[:3]
    assert one.retained.value == 1  # it is compared with itself
    assert three.retained.value < 0.9  # two endings at once
    assert three.retained.n == 3
    assert three.broken.n == 18
    assert all(0 <= point.broken.value <= 1 for point in found.curve)
    assert str(told[0]) == "3 chains of 1 adapters, the same layers"
    assert curve(found).startswith(b"\x89PNG")
    assert found.left_out == ()


def test_who_cannot_be_judged_is_not_drawn_on(starter):
    chain = pool("pun", "polite", "formal")
    tests = [spread(items_of(term.adapter), 4) for term in chain.terms]
    found = stress(starter, chain, [*tests[:2], ()], counts=(2, 3), draws=9)
    assert [str(one) for one in found.left_out] == ["formal has no tests"]
    assert {one.count for one in found.curve} == {2}
    with pytest.raises(ChainError, match="too few") as fault:
        stress(starter, chain, [tests[0], (), ()])
    assert "polite has no tests" in (fault.value.found or "")


def test_sets_are_different_and_drawn_by_the_seed():
    drawn = _drawn(range(6), 3, 8, seed=1)
    assert len(set(drawn)) == 8
    assert drawn == _drawn(range(6), 3, 8, seed=1) != _drawn(range(6), 3, 8, seed=2)
    assert len(_drawn(range(4), 3, 99, seed=1)) == 4


@pytest.mark.parametrize(("count", "deep"), [(2, 6), (3, 6), (4, 6), (9, 6)])
def test_disjoint_terms_share_no_layer_while_there_are_enough(count, deep):
    shapes = {f"layers.{n}.proj": (8, 8) for n in range(deep)}
    adapters = [make_adapter(shapes, seed=seed) for seed in range(count)]
    chain = _chain(Chain(tuple(Term(one, 0.5) for one in adapters)), range(count), "disjoint", deep)
    acting = [[layer for layer in shapes if term.weight_at(layer)] for term in chain.terms]
    assert all(acting)
    assert all(term.weight_at(layer) == 0.5 for term, own in zip(chain.terms, acting, strict=True)
               for layer in own)  # fmt: skip
    used = [layer for own in acting for layer in own]
    if count <= deep:
        assert sorted(used) == sorted(shapes)  # every layer has one of them
    else:
        assert set(used) == set(shapes)
