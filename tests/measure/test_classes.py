"""The same values as scikit-learn, with intervals that hold them."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, r2_score

from detour.measure.classes import class_figures, number_figures

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


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=30))
def test_numbers(rows: list[tuple[float, float]]) -> None:
    wanted, found = [one for one, _ in rows], [other for _, other in rows]
    figures = number_figures(wanted, found)
    assert figures["mse"].value == pytest.approx(mean_squared_error(wanted, found))
    if max(wanted) - min(wanted) > 1e-3:
        assert figures["r2"].value == pytest.approx(r2_score(wanted, found), rel=1e-6, abs=1e-6)


def test_intervals_narrow_with_rows() -> None:
    rng = random.Random(0)
    few = [(rng.choice("ab"), rng.choice("ab")) for _ in range(30)]
    wide, narrow = (
        class_figures([a for a, _ in rows], [b for _, b in rows])["macro_f1"]
        for rows in (few, few * 20)
    )
    assert wide.low < wide.value < wide.high
    assert narrow.high - narrow.low < 0.5 * (wide.high - wide.low)


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        class_figures([], [])
    with pytest.raises(ValueError, match="at least two"):
        number_figures([1.0], [1.0])
