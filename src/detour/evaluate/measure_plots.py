"""What is left of each adapter of a chain, and who takes it, drawn.

Knows measurements and matplotlib; opens no window.
"""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawn

from detour.drawing import LOOK, panels, png, svg
from detour.evaluate.chain_measure import COMPATIBLE, DEGRADED, ChainMeasure
from detour.evaluate.conflict_plots import square
from detour.language.catalogue import ENGLISH, Catalogue

BARS = {"compatible": "#3f7d4e", "degraded": "#c9a227", "conflict": "#c2571a"}
WIDEST = 1.3  # of R that is drawn


def picture(found: ChainMeasure, t: Catalogue = ENGLISH) -> bytes:
    """R of every adapter, and what the others take from it, as PNG."""
    with mpl.rc_context(LOOK):
        return png(_drawn(found, t))


def inline(found: ChainMeasure, t: Catalogue = ENGLISH) -> str:
    """The same, as `<svg>` for a page that may be dark."""
    with mpl.rc_context(LOOK):
        return svg(_drawn(found, t), {"#000000": "var(--ink)", "#ffffff": "var(--card)"})


def _drawn(found: ChainMeasure, t: Catalogue) -> Drawn:
    count = len(found.names)
    drawn, (left, right) = panels(0.34 * count + 8.0, 0.34 * count + 1.6, 2)
    _harms(right, found, t)
    _shares(left, found, t)
    left.set_yticks(range(count), found.names, fontsize=9)
    return drawn


def _shares(axes: Axes, found: ChainMeasure, t: Catalogue) -> None:
    for place, kept in found.kept.items():
        share = kept.share
        if share is None:
            continue
        low, high = max(share.low, 0.0), min(share.high, WIDEST)
        value = min(max(share.value, 0.0), WIDEST)
        spread = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.barh(place, value, color=BARS[_verdict(share.value)], height=0.62)
        axes.errorbar(value, place, xerr=spread, color="#000000", capsize=3, linewidth=1)
    for bound in (DEGRADED, COMPATIBLE):
        axes.axvline(bound, color="#888888", linewidth=1, linestyle="--")
    axes.set_xlim(0, WIDEST)
    axes.set_title(t("what is left of an adapter"), fontsize=11)


def _harms(axes: Axes, found: ChainMeasure, t: Catalogue) -> None:
    count = len(found.names)
    values = np.full((count, count), np.nan)
    for place, kept in found.kept.items():
        for other in kept.without:
            values[place, other] = kept.harm(other)
    square(axes, values, signed=True)
    axes.set_xticks(range(count), found.names, rotation=60, ha="right", fontsize=8)
    axes.set_title(t("what one (column) takes from another (row)"), fontsize=11)


def _verdict(share: float) -> str:
    if share >= COMPATIBLE:
        return "compatible"
    return "degraded" if share >= DEGRADED else "conflict"
