"""The same values as scikit-learn, with intervals that hold them."""

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api import metrics as harness
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, r2_score

from detour.measure.classes import DRAWS, class_figures, number_figures

pairs = st.lists(
    st.tuples(st.sampled_from("abcd"), st.sampled_from("abce")), min_size=1, max_size=30
)
numbers = st.integers(-1000, 1000).map(lambda n: n / 8)


@settings(max_examples=30, deadline=None)
@given(pairs)
def test_classes(rows: list[tuple[str, str]]) -> None:
    wanted, found = [one for one, _ in rows], [other for _, other in rows]
    figures = class_figures(wanted, found)
    assert figures["accuracy"].value == pytest.approx(accuracy_score(wanted, found))
    assert figures["macro_f1"].value == pytest.approx(f1_score(wanted, found, average="macro"))
    assert figures["accuracy"].n == len(rows)
    # every row has one class: micro-averaged F1 is the accuracy, as is lm-eval's mean of hits
    assert figures["accuracy"].value == pytest.approx(f1_score(wanted, found, average="micro"))
    hits = [float(one == other) for one, other in rows]
    assert figures["accuracy"].value == pytest.approx(harness.mean(hits))
    for figure in figures.values():
        assert 0 <= figure.low <= figure.high <= 1


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["a"] * 4, ["a"] * 4),  # one class only
        (["a"] * 4, ["b"] * 4),  # nothing right
        (["a", "b", "a", "b"], ["a"] * 4),  # one class never said
        (["", "a", ""], ["", "", "a"]),  # the empty string is a class
        (["a"], ["a"]),
    ],
)
def test_classes_at_the_edges(wanted: list[str], found: list[str]) -> None:
    figures = class_figures(wanted, found)
    assert figures["accuracy"].value == accuracy_score(wanted, found)
    macro = f1_score(wanted, found, average="macro")
    assert figures["macro_f1"].value == pytest.approx(macro)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30))
def test_numbers(rows: list[tuple[float, float]]) -> None:
    wanted, found = [one for one, _ in rows], [other for _, other in rows]
    figures = number_figures(wanted, found)
    assert figures["mse"].value == pytest.approx(mean_squared_error(wanted, found))
    assert figures["r2"].value == pytest.approx(r2_score(wanted, found), rel=1e-6, abs=1e-6)
    assert 0 <= figures["mse"].low <= figures["mse"].high
    assert figures["r2"].low <= figures["r2"].high <= 1


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ([0.1] * 3, [0.1] * 3),  # one number only, always said
        ([5.0] * 3, [4.0, 5.0, 6.0]),  # one number only, not always said
        ([1.0, 2.0, 3.0], [2.0] * 3),  # always the mean
        ([1.0, 1.0, 2.0, 2.0], [2.0, 2.0, 1.0, 1.0]),  # worse than the mean
        ([1e6, 1e6 + 1], [1e6 + 1, 1e6]),
    ],
)
def test_numbers_at_the_edges(wanted: list[float], found: list[float]) -> None:
    figures = number_figures(wanted, found)
    assert figures["mse"].value == pytest.approx(mean_squared_error(wanted, found))
    assert figures["r2"].value == pytest.approx(r2_score(wanted, found))


def test_intervals_narrow_with_rows() -> None:
    rng = random.Random(0)
    few = [(rng.choice("ab"), rng.choice("ab")) for _ in range(30)]
    wide, narrow = (
        class_figures([a for a, _ in rows], [b for _, b in rows])["macro_f1"]
        for rows in (few, few * 20)
    )
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_draws_are_not_kept() -> None:
    """A thousand draws of 20,000 rows would be 160 MB."""
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=20_000)
    names = ["ab"[n] for n in rng.integers(0, 2, 20_000)]
    tracemalloc.start()
    try:
        told = number_figures(list(numbers), list(numbers + 1))
        class_figures(names, names[::-1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6
    assert told["mse"].value == pytest.approx(1.0)


def test_intervals_are_percentiles_of_draws_with_replacement() -> None:
    true, said = np.array([1.0, 2.0, 5.0, 4.0]), np.array([1.5, 1.0, 4.0, 4.5])
    rng = np.random.default_rng(7)
    draws = [rng.integers(0, 4, 4) for _ in range(DRAWS)]
    errors = [float(np.mean((true[rows] - said[rows]) ** 2)) for rows in draws]
    figure = number_figures(list(true), list(said), seed=7)["mse"]
    assert (figure.low, figure.high) == pytest.approx(tuple(np.percentile(errors, [2.5, 97.5])))


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        class_figures([], [])
    with pytest.raises(ValueError, match="at least two"):
        number_figures([1.0], [1.0])
