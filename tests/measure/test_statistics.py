import json
import math
import random
from statistics import fmean, median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t
from sklearn.metrics import roc_auc_score

from detour.measure.statistics import (
    Figure,
    area_under_curve,
    by_cluster,
    mean,
    mean_of_totals,
    mean_probability,
    rate,
    resampled,
    student_t975,
)

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


@given(st.integers(0, 300), st.integers(1, 300))
def test_rates_have_the_interval_that_scipy_gives(hits, n):
    hits = min(hits, n)
    figure = rate([True] * hits + [False] * (n - hits))
    theirs = binomtest(hits, n).proportion_ci(method="wilson")
    assert figure.low == pytest.approx(theirs.low, abs=1e-9)
    assert figure.high == pytest.approx(theirs.high, abs=1e-9)


@given(st.integers(3, 5000))
def test_student_t_is_scipys_within_one_percent(freedom):
    assert student_t975(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.01)


SCORES = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), max_size=30)


@settings(max_examples=60)
@given(SCORES)
def test_the_area_under_the_curve_is_scikit_learns_ties_and_all(rows):
    scores, truth = [score for score, _ in rows], [true for _, true in rows]
    if len(set(truth)) < 2:
        assert math.isnan(area_under_curve(scores, truth))
    else:
        assert area_under_curve(scores, truth) == pytest.approx(roc_auc_score(truth, scores))


def test_resampling_has_the_interval_of_the_mean():
    rng = random.Random(1)
    values = [rng.gauss(3, 2) for _ in range(300)]
    drawn, exact = resampled(values, fmean, 2000), mean(values)
    assert (drawn.value, drawn.n) == (exact.value, 300)
    assert drawn.low == pytest.approx(exact.low, abs=0.05)
    assert drawn.high == pytest.approx(exact.high, abs=0.05)
    assert resampled(values, fmean, 2000) == drawn
    assert resampled(values, fmean, 2000, seed=1) != drawn


@settings(max_examples=40)
@given(st.lists(st.integers(-5, 5), min_size=1, max_size=20))
def test_resampling_stays_within_what_the_rows_say(values):
    figure = resampled(values, median, 50)
    assert min(values) <= figure.low <= figure.high <= max(values)


def test_sets_without_a_value_are_left_out():
    def share(drawn):
        return math.nan if len(set(drawn)) == 1 else sum(drawn) / len(drawn)

    figure = resampled([0, 1], share, 50)
    assert (figure.value, figure.low, figure.high) == (0.5, 0.5, 0.5)
    nothing = resampled([1, 1], share, 50)
    assert math.isnan(nothing.value)
    assert (nothing.low, nothing.high) == (-math.inf, math.inf)
    for rows, draws in (([], 10), ([1], 0)):
        with pytest.raises(ValueError, match="at least one row"):
            resampled(rows, fmean, draws)


def test_a_mean_of_totals_is_that_of_its_items_by_cluster() -> None:
    values, clusters = [1.0, 2.0, 6.0, 4.0, 5.0], ["a", "a", "b", "c", "c"]
    told = mean_of_totals([(3.0, 2), (6.0, 1), (9.0, 2)])
    items = by_cluster(values, clusters)
    assert (told.value, told.low, told.high) == (items.value, items.low, items.high)
    assert (told.n, items.n) == (3, 5)
    one = mean_of_totals([(3.0, 2)])
    assert (one.value, one.low, one.high, one.n) == (1.5, -math.inf, math.inf, 1)
    assert math.isnan(mean_of_totals([]).value)
