"""Merge methods on tiles and factors are their formulas on dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain, Term
from detour.adapter.merge import parts as tiled
from detour.adapter.merge.chain import merge, nearest
from detour.adapter.merge.dare import dare
from detour.adapter.merge.knots import knots, shared_directions
from detour.adapter.merge.parts import Method, Part
from detour.adapter.merge.prune import prune
from detour.adapter.merge.ties import ties
from detour.adapter.update import Update
from detour.errors import AdapterWeightsError

OUT, IN, RANK = 30, 20, 4
LAYER = "layers.0.q"
WEIGHTS = (1.0, 0.5, -2.0)


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    monkeypatch.setattr(tiled, "TILE", 7)


def update(seed: int, rank: int = RANK, out: int = OUT, width: int = IN) -> Update:
    generator = torch.Generator().manual_seed(seed)
    return Update(
        down=torch.randn(rank, width, generator=generator),
        up=torch.randn(out, rank, generator=generator), scale=0.5,
    )  # fmt: skip


def chain(*weights: float) -> Chain:
    return Chain(
        tuple(Term(Adapter({LAYER: update(n)}, f"a{n}"), w) for n, w in enumerate(weights))
    )


def dense(which: Chain) -> list[Tensor]:
    return [term.weight * term.adapter.updates[LAYER].delta() for term in which.terms]


def merged(which: Chain, method: Method) -> Tensor:
    parts = [Part(term.adapter.updates[LAYER], term.weight) for term in which.terms]
    return method(parts, LAYER)


def trimmed(change: Tensor, keep: float) -> Tensor:
    count = max(1, round(keep * change.numel()))
    smallest = change.abs().flatten().sort(descending=True).values[count - 1]
    return change * (change.abs() >= smallest)


def ties_by_hand(changes: list[Tensor], keep: float) -> Tensor:
    kept = [trimmed(change, keep) for change in changes]
    found = torch.zeros_like(kept[0])
    for row in range(found.shape[0]):
        for column in range(found.shape[1]):
            here = [float(change[row, column]) for change in kept]
            wanted = sum(here)
            agreeing = [value for value in here if value * wanted > 0]
            found[row, column] = sum(agreeing) / len(agreeing) if agreeing else 0.0
    return found


@pytest.mark.parametrize("keep", [0.05, 0.2, 1.0])
def test_ties(keep):
    which = chain(*WEIGHTS)
    torch.testing.assert_close(merged(which, ties(keep)), ties_by_hand(dense(which), keep))
    torch.testing.assert_close(merged(which, ties(keep, 1.5)), 1.5 * merged(which, ties(keep)))


@pytest.mark.parametrize("keep", [0.05, 0.3, 1.0])
def test_prune(keep):
    which = chain(*WEIGHTS)
    expected = sum(trimmed(change, keep) for change in dense(which))
    torch.testing.assert_close(merged(which, prune(keep)), expected)


def test_what_is_kept_whole_is_the_plain_sum():
    which = chain(*WEIGHTS)
    for method in (prune(1.0), dare(0.0)):
        torch.testing.assert_close(merged(which, method), sum(dense(which)))


def test_two_halves_of_an_adapter_are_the_adapter():
    whole = Adapter({LAYER: update(1)}, "one")
    halves = Chain((Term(whole, 0.5), Term(whole, 0.5)))
    expected = whole.updates[LAYER].delta()
    torch.testing.assert_close(merged(halves, prune(1.0)), expected)
    torch.testing.assert_close(merged(Chain.of(whole), ties(1.0)), expected)
    torch.testing.assert_close(merged(Chain.of(whole) * -1, ties(1.0)), -expected)


def test_dare_drops_by_chance_and_keeps_the_mean():
    which = chain(1.0)
    (change,) = dense(which)
    found = merged(which, dare(0.75))
    kept = found != 0
    torch.testing.assert_close(found[kept], 4 * change[kept])
    assert 0.15 < kept.float().mean() < 0.35
    mean = torch.stack([merged(which, dare(0.5, seed)) for seed in range(400)]).mean(0)
    assert float((mean - change).norm() / change.norm()) < 0.1


def test_dare_is_seeded_and_differs_by_adapter_and_layer():
    which = chain(1.0, 1.0)
    torch.testing.assert_close(merged(which, dare(0.5, 3)), merged(which, dare(0.5, 3)))
    assert not torch.equal(merged(which, dare(0.5, 3)), merged(which, dare(0.5, 4)))
    twins = [Part(update(1), 1.0), Part(update(1), -1.0)]
    assert float(dare(0.5)(twins, "one").abs().sum()) > 0  # not the same entries in both
    assert not torch.equal(dare(0.5)(twins, "one"), dare(0.5)(twins, "other"))


def test_knots_is_ties_in_the_directions_of_a_dense_svd():
    which = chain(1.0, 0.5)
    changes = [change.double() for change in dense(which)]
    u, sizes, vh = torch.linalg.svd(torch.cat(changes, 1), full_matrices=False)
    rank = 2 * RANK
    own = [vh[:rank, :IN], vh[:rank, IN:]]
    expected = (u[:, :rank] * sizes[:rank]) @ ties_by_hand(own, 0.3)
    found = merged(which, knots(0.3)).double()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_the_shared_directions_make_every_change_again():
    which = chain(*WEIGHTS)
    parts = [Part(term.adapter.updates[LAYER], term.weight) for term in which.terms]
    left, own = shared_directions(parts)
    for directions, change in zip(own, dense(which), strict=True):
        torch.testing.assert_close(left @ directions, change.double(), atol=1e-5, rtol=1e-5)


def test_the_adapter_is_the_nearest_of_its_rank_and_says_how_near():
    which = chain(*WEIGHTS)
    expected = merged(which, ties(0.2))
    sizes = torch.linalg.svdvals(expected)
    adapter, error = merge(which, ties(0.2), rank=6)
    assert adapter.updates[LAYER].rank == 6
    assert error == pytest.approx(float(sizes[6:].norm() / sizes.norm()), rel=1e-4)
    whole, nothing = merge(which, ties(0.2), rank=99)
    assert nothing < 1e-5
    torch.testing.assert_close(whole.updates[LAYER].delta(), expected, atol=1e-4, rtol=1e-4)
    usual, _ = merge(which, ties(0.2))
    assert usual.updates[LAYER].rank == len(WEIGHTS) * RANK


def test_the_randomised_way_is_nearly_as_near(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(90, 5, generator=generator) @ torch.randn(5, 80, generator=generator)
    matrix += 0.01 * torch.randn(90, 80, generator=generator)
    from detour.adapter.merge import chain as module

    exact_down, exact_up = nearest(matrix, 5)
    monkeypatch.setattr(module, "EXACT", 10)
    before = torch.random.get_rng_state()
    down, up = nearest(matrix, 5)
    assert torch.equal(torch.random.get_rng_state(), before)
    best = (matrix - exact_up @ exact_down).norm()
    assert (matrix - up @ down).norm() < 1.01 * best


def test_biases_are_summed_and_layers_of_one_stay():
    with_bias = Update(down=update(1).down, up=update(1).up, bias_delta=torch.ones(OUT))
    one = Adapter({LAYER: with_bias, "layers.1.q": update(5)}, "one")
    other = Adapter({LAYER: update(2)}, "other")
    adapter, _ = merge(2.0 * Chain.of(one) + other, prune(1.0))
    bias = adapter.updates[LAYER].bias_delta
    assert bias is not None
    torch.testing.assert_close(bias, 2 * torch.ones(OUT))
    torch.testing.assert_close(
        adapter.updates["layers.1.q"].delta(), 2 * update(5).delta(), atol=1e-4, rtol=1e-4
    )


def test_unequal_shapes_name_the_layer():
    wide = Adapter({LAYER: update(1, width=IN + 1)}, "wide")
    with pytest.raises(AdapterWeightsError, match=LAYER):
        merge(chain(1.0) + wide, ties())
