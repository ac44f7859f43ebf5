"""The curve of a stress test, drawn. Knows points and matplotlib; opens no window."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.axes import Axes

from detour.drawing import LOOK, panels, png
from detour.evaluate.chain_stress import Layers, Point, Stress
from detour.language.catalogue import ENGLISH, Catalogue

COLOURS: dict[Layers, str] = {"same": "#c2571a", "disjoint": "#2b6cb0"}


def curve(found: Stress, t: Catalogue = ENGLISH) -> bytes:
    """What is left, and what breaks, by the number of adapters; PNG."""
    with mpl.rc_context(LOOK):
        drawn, (left, right) = panels(9.5, 3.6, 2)
        labels: dict[Layers, str] = {
            "same": t("the same layers"),
            "disjoint": t("disjoint layers"),
        }
        for layers, label in labels.items():
            points = [point for point in found.curve if point.layers == layers]
            if points:
                _line(left, points, COLOURS[layers], label, broken=False)
                _line(right, points, COLOURS[layers], label, broken=True)
        left.set_title(t("what is left of an adapter"), fontsize=11)
        right.set_title(t("broken answers"), fontsize=11)
        for axes in (left, right):
            axes.set_xlabel(t("adapters in a chain"))
            axes.set_xticks(sorted({point.count for point in found.curve}))
            axes.set_ylim(-0.05, 1.1)
        left.legend(frameon=False, fontsize=9)
        return png(drawn)


def _line(axes: Axes, points: list[Point], colour: str, label: str, broken: bool) -> None:
    figures = [point.broken if broken else point.retained for point in points]
    spread = [[f.value - max(f.low, -0.05) for f in figures], [f.high - f.value for f in figures]]
    axes.errorbar(
        [point.count for point in points], [f.value for f in figures],
        yerr=[[min(1.0, max(0.0, d)) for d in side] for side in spread], color=colour,
        label=label, marker="o", capsize=3,
    )  # fmt: skip
