"""Adapters in weight space: products as of dense matrices, components, cosines, ranks."""

import math

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.evaluate.baselines import mean_of
from detour.evaluate.weight_space import cosines, inner_products, principal, spearman


@pytest.fixture
def adapters() -> list[Adapter]:
    torch.manual_seed(0)
    return [
        Adapter(
            {
                "a": Update(torch.randn(rank, 5), torch.randn(7, rank), 0.5 * rank),
                "b": Update(torch.randn(rank, 6), torch.randn(4, rank), 2.0),
            },
            f"n{rank}",
        )
        for rank in (1, 2, 3, 2)
    ]


def dense(adapter: Adapter) -> torch.Tensor:
    parts = [(u.up @ u.down * u.scale).flatten() for u in adapter.updates.values()]
    return torch.cat(parts).double()


def test_products_are_those_of_the_dense_updates(adapters: list[Adapter]) -> None:
    flat = torch.stack([dense(adapter) for adapter in adapters])
    torch.testing.assert_close(inner_products(adapters), flat @ flat.mT, rtol=1e-5, atol=1e-4)


def test_two_components_keep_the_distances_of_points_in_a_plane() -> None:
    torch.manual_seed(1)
    plane = torch.randn(6, 2).double() @ torch.linalg.qr(torch.randn(9, 2).double()).Q.mT
    places, explained = principal(plane @ plane.mT)
    assert explained == pytest.approx(1.0)
    torch.testing.assert_close(torch.cdist(places, places), torch.cdist(plane, plane))
    deep = torch.randn(6, 5).double()
    assert principal(deep @ deep.mT)[1] < 0.95


def test_cosines_with_and_without_a_shared_primitive() -> None:
    points = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]).double()
    alike, apart = cosines(points @ points.mT, [("x", "p"), ("x",), ("y",)])
    assert (alike, apart) == (pytest.approx(1.0), pytest.approx(0.0))


def test_ranks_that_fall_as_others_rise() -> None:
    assert spearman([1, 2, 3], [9, 4, 1]) == pytest.approx(-1.0)
    assert math.isnan(spearman([1, 2], [1, 2]))
    assert math.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_the_mean_of_adapters_is_exact(adapters: list[Adapter]) -> None:
    chain = mean_of(adapters)
    assert [term.weight for term in chain.terms] == [0.25] * 4
