"""Laws of one layer's change, against dense arithmetic."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detour.adapter.update import Update
from detour.errors import AdapterWeightsError, ConfigError

WEIGHTS = st.floats(-3, 3, allow_nan=False).map(lambda value: round(value, 3))


def make(seed: int, rank: int, inputs: int = 7, outputs: int = 5, scale: float = 2.0) -> Update:
    generator = torch.Generator().manual_seed(seed)
    down = torch.randn(rank, inputs, generator=generator)
    return Update(down, torch.randn(outputs, rank, generator=generator), scale)


@st.composite
def updates(draw: st.DrawFn) -> Update:
    return make(draw(st.integers(0, 10_000)), draw(st.integers(1, 9)), scale=draw(WEIGHTS))


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool((left - right).norm() <= 1e-5 * max(1.0, float(right.norm())))


def test_delta_is_scale_up_down():
    update = make(0, 3)
    assert close(update.delta(), 2.0 * update.up @ update.down)
    assert (update.rank, update.in_features, update.out_features) == (3, 7, 5)
    assert update.parameters == 3 * 7 + 5 * 3


def test_delta_of_a_convolution_keeps_its_kernel():
    down, up = torch.randn(2, 3, 5, 5), torch.randn(4, 2)
    update = Update(down, up)
    assert update.delta().shape == (4, 3, 5, 5)
    assert close(update.delta(), torch.einsum("or,rihw->oihw", up, down))
    assert update.compressed(2)[0].delta().shape == (4, 3, 5, 5)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(updates(), WEIGHTS), min_size=1, max_size=4))
def test_sum_equals_its_parts(parts: list[tuple[Update, float]]):
    whole = Update.sum(parts)
    assert whole.rank == sum(update.rank for update, _ in parts)
    assert whole.scale == 1.0
    dense = sum((weight * update.delta() for update, weight in parts), torch.zeros(5, 7))
    assert close(whole.delta(), dense)


@settings(max_examples=40, deadline=None)
@given(updates(), updates())
def test_norm_and_inner_equal_dense(first: Update, second: Update):
    dense_inner = float((first.delta().double() * second.delta().double()).sum())
    size = float(first.delta().norm() * second.delta().norm())
    assert first.inner(second) == pytest.approx(dense_inner, abs=1e-5 * max(1.0, size))
    assert first.norm() == pytest.approx(float(first.delta().norm()), rel=1e-5, abs=1e-6)


@settings(max_examples=40, deadline=None)
@given(updates(), st.integers(1, 10))
def test_compressed_is_the_dense_svd_optimum(update: Update, rank: int):
    smaller, error = update.compressed(rank)
    left, sizes, right = torch.linalg.svd(update.delta().double(), full_matrices=False)
    best = (left[:, :rank] * sizes[:rank]) @ right[:rank]
    total = float(sizes.norm())
    optimal = float(sizes[rank:].norm()) / total if total > 0 else 0.0
    assert smaller.rank <= rank
    assert error == pytest.approx(optimal, abs=1e-5)
    lost = float((smaller.delta().double() - update.delta().double()).norm())
    assert lost == pytest.approx(float((best - update.delta().double()).norm()), abs=1e-4)


def test_compressing_to_rank_zero_is_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        make(0, 2).compressed(0)


def test_weight_zero_is_nothing_and_scaling_is_linear():
    update = make(1, 3)
    assert not update.scaled(0.0).delta().any()
    assert update.scaled(0.0).norm() == 0.0
    assert close(update.scaled(-0.5).delta(), -0.5 * update.delta())


def test_row_scale_and_bias_are_weighted_but_not_scaled():
    rows, bias = torch.randn(5), torch.randn(5)
    full = Update(torch.randn(2, 7), torch.randn(5, 2), 4.0, rows, bias)
    plain = make(2, 1)
    whole = Update.sum([(full, 0.5), (plain, 1.0)])
    assert whole.row_scale is not None
    assert whole.bias_delta is not None
    assert close(whole.row_scale, 0.5 * rows)
    assert close(whole.bias_delta, 0.5 * bias)
    assert close(full.scaled(3.0).bias_delta, 3 * bias)  # type: ignore[arg-type]
    assert full.compressed(1)[0].row_scale is rows
    assert not full.is_low_rank
    assert plain.is_low_rank


def test_bfloat16_factors_are_summed_in_fp32():
    update = Update(torch.randn(2, 7).bfloat16(), torch.randn(5, 2).bfloat16(), 1.0)
    whole = Update.sum([(update, 0.3)])
    assert whole.up.dtype == torch.float32
    assert close(whole.delta(), 0.3 * update.up.float() @ update.down.float())


def test_a_value_does_not_move_with_its_optimiser():
    parameter = torch.nn.Parameter(torch.ones(2, 7))
    update = Update(parameter, torch.ones(5, 2))
    with torch.no_grad():
        parameter.zero_()
    assert update.down.eq(1).all()
    assert not update.down.requires_grad


@pytest.mark.parametrize(
    ("down", "up", "scale", "extra", "message"),
    [
        (torch.zeros(2, 7), torch.zeros(5, 3), 1.0, {}, "do not fit each other"),
        (torch.zeros(7), torch.zeros(5, 7), 1.0, {}, "do not fit each other"),
        (torch.zeros(0, 7), torch.zeros(5, 0), 1.0, {}, "empty factor"),
        (torch.zeros(2, 7), torch.zeros(5, 2), math.nan, {}, "scale"),
        (torch.zeros(2, 7), torch.zeros(5, 2), 1e300, {}, "scale"),
        (torch.full((2, 7), math.nan), torch.zeros(5, 2), 1.0, {}, "NaN"),
        (torch.zeros(2, 7), torch.full((5, 2), math.inf), 1.0, {}, "infinity"),
        (torch.zeros(2, 7, dtype=torch.int8), torch.zeros(5, 2), 1.0, {}, "floating point"),
        (torch.zeros(2, 7), torch.zeros(5, 2), 1.0, {"row_scale": torch.zeros(4)}, "row_scale"),
        (torch.zeros(2, 7), torch.zeros(5, 2), 1.0, {"bias_delta": torch.zeros(4)}, "bias_delta"),
    ],
)
def test_damaged_updates_are_refused(down, up, scale, extra, message):
    with pytest.raises(AdapterWeightsError, match=message):
        Update(down, up, scale, **extra)


def test_different_layers_do_not_add_up():
    with pytest.raises(AdapterWeightsError, match=r"\(5, 7\), \(5, 8\)"):
        Update.sum([(make(0, 1), 1.0), (make(0, 1, inputs=8), 1.0)])
    with pytest.raises(AdapterWeightsError, match="one shape"):
        make(0, 1).inner(make(0, 1, outputs=6))
    with pytest.raises(AdapterWeightsError, match="no update at all"):
        Update.sum([])
