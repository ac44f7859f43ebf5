"""Figures out of Gram matrices are those of dense matrices."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain, LayerWeight, Term
from detour.adapter.conflict import Figures, geometry
from detour.adapter.update import Update
from detour.errors import AdapterWeightsError

OUT, IN = 24, 20
LAYERS = ("model.layers.0.q", "model.layers.1.q", "model.layers.1.v")


def update(rank: int, generator: torch.Generator, out: int = OUT, width: int = IN) -> Update:
    return Update(
        down=torch.randn(rank, width, generator=generator),
        up=torch.randn(out, rank, generator=generator),
        scale=0.7,
    )


def adapter(name: str, rank: int, seed: int, layers: tuple[str, ...] = LAYERS) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    return Adapter({layer: update(rank, generator) for layer in layers}, name)


@dataclass(frozen=True)
class Dense:
    """The same figures from dense changes and their SVDs, as the formulas are written."""

    changes: list[dict[str, Tensor]]
    ranks: list[dict[str, int]]

    @staticmethod
    def of(chain: Chain, layers: tuple[str, ...] = LAYERS) -> Dense:
        changes: list[dict[str, Tensor]] = []
        ranks: list[dict[str, int]] = []
        for term in chain.terms:
            own = {
                layer: term.weight_at(layer) * term.adapter.updates[layer].delta().double()
                for layer in layers
                if layer in term.adapter.updates and term.weight_at(layer) != 0
            }
            changes.append(own)
            ranks.append({layer: int(torch.linalg.matrix_rank(w, rtol=1e-5))
                          for layer, w in own.items()})  # fmt: skip
        return Dense(changes, ranks)

    def overlap(self, i: int, j: int, side: int) -> float:
        """Side 0 are outputs, side 1 inputs."""
        there, chance, whole = 0.0, 0.0, 0.0
        for layer, mine in self.changes[i].items():
            if layer not in self.changes[j]:
                continue
            rank = self.ranks[j][layer]
            u, s, vh = torch.linalg.svd(mine, full_matrices=False)
            other_u, _, other_vh = torch.linalg.svd(self.changes[j][layer], full_matrices=False)
            own, other = ((u, other_u[:, :rank]), (vh.T, other_vh[:rank].T))[side]
            there += float(((other.T @ own) * s).square().sum())
            energy = float(s.square().sum())
            chance += rank / mine.shape[side] * energy
            whole += energy
        return (there - chance) / (whole - chance) if whole > chance else 0.0

    def figures(self, i: int, j: int) -> Figures:
        one, other = self.changes[i], self.changes[j]
        inner = sum(float((w * other[n]).sum()) for n, w in one.items() if n in other)
        mine, theirs = (sum(float(w.square().sum()) for w in c.values()) for c in (one, other))
        return Figures(
            inner / (mine * theirs) ** 0.5,
            max(0.0, -2 * inner / (mine + theirs)),
            mine / (mine + theirs),
            max(self.overlap(i, j, 1), self.overlap(j, i, 1)),
            max(self.overlap(i, j, 0), self.overlap(j, i, 0)),
        )


def assert_close(found: Figures, expected: Figures) -> None:
    for name, value in vars(expected).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-6), name


@settings(max_examples=40, deadline=None)
@given(
    ranks=st.lists(st.integers(1, 6), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
    weights=st.lists(st.floats(0.1, 3).map(lambda w: round(w, 2)), min_size=4, max_size=4),
    signs=st.lists(st.sampled_from([-1.0, 1.0]), min_size=4, max_size=4),
)
def test_all_figures_are_the_dense_ones(ranks, seed, weights, signs):
    terms = tuple(
        Term(adapter(f"a{n}", rank, seed + n), weight * sign)
        for n, (rank, weight, sign) in enumerate(zip(ranks, weights, signs, strict=False))
    )
    chain = Chain(terms)
    whole, dense = geometry(chain).whole, Dense.of(chain)
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            assert_close(whole.figures(i, j), dense.figures(i, j))


def test_other_layers_and_other_weights_by_layer():
    one = adapter("one", 3, 1, LAYERS[:2])
    other = adapter("other", 5, 2, LAYERS[1:])
    chain = Chain((Term(one, 1.0, (LayerWeight(1, 1, -2.0),)), Term(other, 0.5)))
    found = geometry(chain)
    assert_close(found.whole.figures(0, 1), Dense.of(chain).figures(0, 1))
    assert list(found.by_depth) == [0, 1]
    at = Dense.of(chain, LAYERS[1:]).figures(0, 1)
    assert_close(found.by_depth[1].figures(0, 1), at)


def test_adapters_in_disjoint_layers_have_nothing_in_common():
    chain = Chain.of(adapter("one", 3, 1, LAYERS[:1]), adapter("other", 3, 2, LAYERS[1:]))
    found = geometry(chain).whole.figures(0, 1)
    assert (found.cosine, found.cancellation) == (0, 0)
    assert (found.input_overlap, found.output_overlap) == (0, 0)


def test_an_adapter_beside_itself_and_its_opposite():
    one = adapter("one", 4, 1)
    same = geometry(Chain.of(one, one)).whole.figures(0, 1)
    assert same.cosine == pytest.approx(1)
    assert same.cancellation == 0
    assert same.output_overlap == pytest.approx(1)
    assert same.input_overlap == pytest.approx(1)
    opposite = geometry(Chain.of(one) - one).whole.figures(0, 1)
    assert opposite.cosine == pytest.approx(-1)
    assert opposite.cancellation == pytest.approx(1)
    assert opposite.dominance == pytest.approx(0.5)


def test_random_adapters_are_at_chance():
    generator = torch.Generator().manual_seed(0)
    made = [Adapter({"layers.0.q": update(8, generator, 512, 512)}, name) for name in ("a", "b")]
    found = geometry(Chain.of(*made)).whole.figures(0, 1)
    assert abs(found.input_overlap) < 0.02
    assert abs(found.output_overlap) < 0.02
    assert abs(found.cosine) < 0.02


def test_directions_that_are_not_there_do_not_count():
    generator = torch.Generator().manual_seed(0)
    plain = update(2, generator)
    wide = Update(  # of rank 4 by its shape, of rank 2 in truth
        down=torch.cat([plain.down, plain.down]), up=torch.cat([plain.up, plain.up], 1), scale=0.5
    )
    other = adapter("other", 3, 5, LAYERS[:1])
    figures = [
        geometry(Chain.of(Adapter({LAYERS[0]: which}, "x"), other)).whole.figures(0, 1)
        for which in (wide, Update(down=plain.down, up=plain.up, scale=1.0))
    ]
    for name, value in vars(figures[1]).items():
        assert getattr(figures[0], name) == pytest.approx(value, abs=1e-4), name


def test_shares_and_dead_adapters():
    one = adapter("one", 4, 1)
    dead = Adapter(
        {name: Update(down=u.down, up=torch.zeros_like(u.up)) for name, u in one.updates.items()},
        "dead",
    )
    found = geometry(Chain.of(one, dead))
    assert found.shares == [1.0, 0.0]
    figures = found.whole.figures(0, 1)
    assert (figures.cosine, figures.dominance) == (0, 1)
    assert geometry(Chain.of(dead)).shares == [0.0]
    assert geometry(Chain((Term(one, 0.0),))).shares == [0.0]
    assert geometry(Chain()).shares == []


def test_unequal_shapes_name_the_layer():
    generator = torch.Generator().manual_seed(0)
    wide = Adapter({LAYERS[0]: update(2, generator, OUT, IN + 1)}, "wide")
    with pytest.raises(AdapterWeightsError, match=LAYERS[0]):
        geometry(Chain.of(adapter("one", 2, 1), wide))
