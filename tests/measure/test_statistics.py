import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.measure.statistics import Figure, mean, mean_probability, rate, student_t975

# (hits, n, low, high) to four places: Newcombe 1998, table I, method 3, and n / (n + z²) by hand
WILSON = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0, 0.1611),
    (1, 29, 0.0061, 0.1718),
    (0, 10, 0.0, 0.2775),
    (10, 10, 0.7225, 1.0),
    (300, 300, 0.9874, 1.0),
]


@pytest.mark.parametrize(("hits", "n", "low", "high"), WILSON)
def test_rates_have_wilson_intervals(hits, n, low, high):
    figure = rate([True] * hits + [False] * (n - hits))
    assert (figure.value, figure.n) == (hits / n, n)
    assert figure.low == pytest.approx(low, abs=6e-5)
    assert figure.high == pytest.approx(high, abs=6e-5)


@given(st.lists(st.booleans(), min_size=1, max_size=200))
def test_a_rate_lies_inside_its_interval(outcomes):
    figure = rate(outcomes)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    mirrored = rate(not outcome for outcome in outcomes)
    assert mirrored.low == pytest.approx(1 - figure.high)


def test_a_rate_of_nothing_is_unknown():
    figure = rate([])
    assert math.isnan(figure.value)
    assert (figure.low, figure.high, figure.n) == (0.0, 1.0, 0)
    assert figure.to_json() == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


# the 97.5 % quantiles of Student's t from any printed table
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 10: 2.228, 30: 2.042, 120: 1.980}


@pytest.mark.parametrize(("freedom", "quantile"), TABLE.items())
def test_student_t_is_as_in_the_table(freedom, quantile):
    assert student_t975(freedom) == pytest.approx(quantile, rel=0.01 if freedom < 5 else 2e-3)


def test_a_mean_has_students_interval():
    figure = mean([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.776445 * math.sqrt(2.5) / math.sqrt(5)
    assert figure.value == 3.0
    assert figure.high - figure.value == pytest.approx(half, rel=0.005)
    assert figure.value - figure.low == pytest.approx(half, rel=0.005)
    assert figure.n == 5


def test_one_observation_says_nothing_about_its_spread():
    assert mean([0.5]) == Figure(0.5, -math.inf, math.inf, 1)
    assert mean([0.5]).to_json()["low"] is None
    assert mean([]).n == 0
    assert math.isnan(mean([]).value)


def test_a_mean_probability_stays_between_0_and_1():
    figure = mean_probability([0.0, 1.0, 1.0])
    assert (figure.low, figure.high) == (0.0, 1.0)
    assert mean_probability([0.5]) == Figure(0.5, 0.0, 1.0, 1)


def test_figures_are_value_low_high_n():
    told = rate([True, False, False]).to_json()
    assert list(told) == ["value", "low", "high", "n"]
    assert told["value"] == 0.333333
    assert json.loads(json.dumps(told)) == told
    assert str(rate([True] * 4)) == "1.00 [0.51, 1.00] n=4"
