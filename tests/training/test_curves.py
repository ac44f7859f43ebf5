"""Learning curves, looked at through their axes, their SVG and their pixels."""

from __future__ import annotations

import math
import re
from io import BytesIO

import pytest
from PIL import Image

from detour.language.catalogue import Catalogue
from detour.training import curves as drawing
from detour.training.curves import JUDGED, LEARNED, Curves, curves_png, curves_svg
from detour.training.descend import Progress


def told(count: int = 40, **changes: object) -> Curves:
    steps = [
        Progress(n, count, 3 * math.exp(-n / 10), 3 * math.exp(-n / 12) if n % 10 == 0 else None,
                 100.0, 0.0, 1e-3 * n / count)
        for n in range(1, count + 1)
    ]  # fmt: skip
    given = {"steps": steps, "first_loss": 3.2, "best_step": 30, "best_loss": 0.25}
    return Curves(**{**given, "unit": "nats a token", **changes})  # type: ignore[arg-type]


def test_what_was_told_is_what_is_drawn():
    curves = told()
    assert [step for step, _ in curves.judged] == [0, 10, 20, 30, 40]
    left, right = drawing._drawn(curves, drawing.ENGLISH).axes
    by_name = {str(line.get_label()): line for line in (*left.lines, *right.lines)}
    trained = by_name["training loss, smoothed"].get_xydata()
    assert trained.tolist() == [[one.step, one.loss] for one in curves.steps]
    judged = by_name["validation loss"].get_xydata()
    assert judged.tolist() == [list(point) for point in curves.judged]
    assert by_name["kept: step 30, 0.250"].get_xydata().tolist() == [[30, 0.25]]
    rates = by_name["learning rate (right)"]
    assert rates.axes is right
    assert rates.get_ydata().tolist() == [one.learning_rate for one in curves.steps]
    assert left.get_ylim() == (0, pytest.approx(1.06 * 3.2))


@pytest.mark.parametrize(
    "changes", [{"steps": []}, {"first_loss": math.inf}, {"first_loss": 0.0, "steps": []}]
)
def test_runs_without_steps_or_numbers_are_drawn_too(changes):
    assert curves_png(told(**changes))[:4] == b"\x89PNG"


def test_the_png_has_both_curves_in_their_colours():
    image = Image.open(BytesIO(curves_png(told()))).convert("RGB")
    assert image.size == (988, 533)
    colours = {colour for _, colour in image.getcolors(1 << 20)}
    for wanted in (LEARNED, JUDGED):
        assert tuple(bytes.fromhex(wanted[1:])) in colours


def test_the_svg_takes_its_colours_from_the_page_and_fetches_nothing():
    shown = curves_svg(told(), Catalogue.load("de"))
    assert shown.startswith("<svg ")
    assert shown.endswith("</svg>")
    assert "<!-- Trainings-Loss, geglättet -->" in shown
    assert not re.search(r"#[0-9a-f]{6}", shown)
    for variable in ("ink", "soft", "line", "first", "second"):
        assert f"var(--{variable})" in shown
    assert "<metadata" not in shown
    assert "<style" not in shown
    assert set(re.findall(r"https?://[^\"]+", shown)) == {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
    }  # fmt: skip
    assert shown == curves_svg(told(), Catalogue.load("de"))  # the same run, the same picture
