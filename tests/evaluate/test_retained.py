"""The share of an adapter that a chain leaves: formula, interval, and when nothing is known."""

import pytest

from detour.evaluate.retained import effect, retained
from detour.measure.statistics import rate, wilson


def test_the_share_is_what_is_left_of_the_gain():
    base, alone, chain = [0.0] * 30 + [1.0] * 10, [1.0] * 40, [1.0] * 20 + [0.0] * 10 + [1.0] * 10
    share = retained(base, alone, chain)
    assert share
    assert share.value == pytest.approx((0.75 - 0.25) / (1 - 0.25))
    assert share.low < share.value < share.high
    assert share.n == 40


@pytest.mark.parametrize(("tests", "compatible"), [(10, False), (34, False), (35, True)])
def test_few_tests_that_all_come_out_well_prove_little(tests, compatible):
    share = retained([0.0] * tests, [1.0] * tests, [1.0] * tests)
    assert share
    assert share.value == 1
    assert (share.low >= 0.9) is compatible


def test_where_the_adapter_does_no_more_than_the_base_nothing_is_known():
    assert retained([1.0] * 20, [1.0] * 20, [0.0] * 20) is None
    assert retained([0.0] * 20, [0.0] * 20, [1.0] * 20) is None
    assert retained([0.0, 1.0] * 10, [1.0, 0.0] * 10, [1.0] * 20) is None
    assert retained([0.0], [1.0], [1.0])  # one test of one: something, within wide bounds
    assert retained([], [], []) is None


def test_base_alone_and_chain_are_drawn_together():
    """Which questions are hard differs from draw to draw, for all alike: the share does not."""
    hard = [0.0, 1.0] * 200
    share = retained([0.0] * 400, hard, [one * 0.5 for one in hard])
    assert share
    assert share.value == pytest.approx(0.5)
    assert share.high - share.low < 0.2


def test_an_effect_of_one_test_is_none_that_is_sure():
    assert effect([0.0] * 8, [1.0] * 8).low > 0
    assert effect([0.0] * 8 + [1.0] * 8, [0.5] * 16).low < 0


def test_wilson_is_that_of_a_rate():
    flags = [True] * 7 + [False] * 3
    figure = rate(flags)
    assert wilson(0.7, 10) == (figure.low, figure.high)
    assert wilson(0.0, 5)[0] == 0
    assert wilson(1.0, 5)[1] == 1
