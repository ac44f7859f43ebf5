"""The table of a hypernetwork: splits, differences, and intervals that know of tasks."""

import math

import pytest

from detour.evaluate.hypernet import Item, Table, wrong_text
from detour.hypernetwork.tasks import Description, Task
from detour.measure.statistics import area_under_curve, by_cluster
from detour.model.examples import pair


def _item(task: str, primitives: tuple[str, ...], split: str, text: str = "") -> Item:
    told = Description(text=text or f"Do {task}")
    row = pair("a", "b")
    return Item(Task(task, (told,), (row,), (row,), primitives), row, told, split)


ITEMS = (
    _item("one", ("x",), "held-out tasks: new frames"),
    _item("one", ("x",), "held-out tasks: new frames"),
    _item("two", ("y",), "held-out tasks: new frames"),
    _item("two", ("y",), "seen tasks: new frames"),
)


def test_differences_count_held_out_items_only() -> None:
    table = Table(
        ITEMS,
        {
            "generated": [True, True, False, False],
            "wrong": [False, False, False, True],
            "junk": [False, True, False, True],
        },
    )
    assert table.figure("generated", "held-out tasks: new frames").value == pytest.approx(2 / 3)
    assert table.difference("generated", "wrong").value == pytest.approx(2 / 3)
    told = table.to_json()
    assert told["matched_minus_wrong"]["value"] == pytest.approx(2 / 3)
    assert told["matched_minus_junk"]["value"] == pytest.approx(1 / 3)
    assert told["arms"]["generated"]["seen tasks: new frames"]["n"] == 1


def test_a_wrong_description_shares_no_primitive() -> None:
    items = [
        _item("a", ("x", "p"), "s", "x p"), _item("b", ("x", "q"), "s", "x q"),
        _item("c", ("y", "q"), "s", "y q"),
    ]  # fmt: skip
    text_of = wrong_text(items)
    assert {text_of(place, items[0]) for place in range(30)} == {"y q"}
    assert text_of(0, items[1]) not in ("x p", "x q", "y q")  # nothing is left but junk


def test_clusters_widen_the_interval() -> None:
    values = [1.0] * 20 + [0.0] * 20
    apart = by_cluster(values, range(40))
    together = by_cluster(values, [place // 10 for place in range(40)])
    assert apart.value == together.value == 0.5
    assert apart.high - apart.low < together.high - together.low
    assert (together.low, together.high) == (0.0, 1.0)
    assert math.isnan(by_cluster([], []).value)
    alone = by_cluster([0.0, 1.0], ["one task", "one task"])
    assert alone.to_json() == {"value": 0.5, "low": None, "high": None, "n": 2}


def test_area_under_the_curve() -> None:
    assert area_under_curve([0.9, 0.8, 0.2, 0.1], [True, True, False, False]) == 1.0
    assert area_under_curve([0.1, 0.2, 0.8, 0.9], [True, True, False, False]) == 0.0
    assert area_under_curve([0.5, 0.5], [True, False]) == 0.5
    assert math.isnan(area_under_curve([0.5], [True]))
