"""Heat maps of a chain's figures. Knows checks and matplotlib; opens no window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawn

from detour.adapter.conflict import Figures
from detour.drawing import LOOK, panels, png, svg
from detour.evaluate.chain_check import ChainCheck
from detour.language.catalogue import ENGLISH, Catalogue

WRITTEN = 12  # terms up to which the numbers stand in their squares
PAIRS = 24  # that are drawn layer by layer, those that overlap most first
DIVERGING, RISING = "RdBu_r", "Oranges"


def matrices(check: ChainCheck, t: Catalogue = ENGLISH) -> bytes:
    """Cosine, input and output overlap of every two terms, as PNG."""
    with mpl.rc_context(LOOK):
        return png(_matrices(check, t))


def by_layer(check: ChainCheck, t: Catalogue = ENGLISH) -> bytes:
    """Output overlap of the pairs in every decoder layer, as PNG."""
    with mpl.rc_context(LOOK):
        return png(_by_layer(check, t))


def inline(check: ChainCheck, t: Catalogue = ENGLISH) -> list[str]:
    """Both, as `<svg>` for a page that may be dark; the second only where there are layers."""
    with mpl.rc_context(LOOK):
        found = [_matrices(check, t)]
        if check.pairs and check.geometry.by_depth:
            found.append(_by_layer(check, t))
        return [svg(drawn, {"#000000": "var(--ink)", "#ffffff": "var(--card)"}) for drawn in found]


def _matrices(check: ChainCheck, t: Catalogue) -> Drawn:
    count = len(check.names)
    side = max(2.6, 0.34 * count + 1.2)
    drawn, axes = panels(3 * side + 1.5, side, 3)
    told: list[tuple[str, Callable[[Figures], float], bool]] = [
        (t("cosine"), lambda f: f.cosine, True),
        (t("input overlap"), lambda f: f.input_overlap, False),
        (t("output overlap"), lambda f: f.output_overlap, False),
    ]
    for place, (own, (title, figure, signed)) in enumerate(zip(axes, told, strict=True)):
        values = np.full((count, count), np.nan)
        for pair in check.pairs:
            values[pair.a, pair.b] = values[pair.b, pair.a] = figure(pair.figures)
        square(own, values, signed)
        own.set_title(title, fontsize=11)
        own.set_xticks(range(count), check.names, rotation=60, ha="right", fontsize=8)
        if place == 0:
            own.set_yticks(range(count), check.names, fontsize=8)
    return drawn


def _by_layer(check: ChainCheck, t: Catalogue) -> Drawn:
    depths = check.geometry.by_depth
    pairs = sorted(check.pairs, key=lambda pair: -pair.figures.output_overlap)[:PAIRS]
    values = np.array(
        [[e.figures(p.a, p.b).output_overlap for e in depths.values()] for p in pairs]
    )
    drawn, (own,) = panels(max(9.0, 0.22 * len(depths) + 4), 0.3 * len(pairs) + 1.4, 1)
    square(own, values, signed=False, written=len(depths) <= WRITTEN)
    own.set_title(t("output overlap, layer by layer"), fontsize=11)
    names: Sequence[str] = [f"{check.names[p.a]} · {check.names[p.b]}" for p in pairs]
    own.set_yticks(range(len(pairs)), names, fontsize=8)
    own.set_xticks(range(len(depths)), [str(depth) for depth in depths], fontsize=8)
    own.set_xlabel(t("decoder layer"))
    return drawn


def square(axes: Axes, values: np.ndarray, signed: bool, written: bool | None = None) -> None:
    """A matrix of values up to 1 (from -1 where they are signed) as a heat map; NaN is empty."""
    low = -1.0 if signed else 0.0
    axes.grid(visible=False)
    axes.imshow(values, cmap=DIVERGING if signed else RISING, vmin=low, vmax=1.0, aspect="auto")
    if not (len(values) <= WRITTEN if written is None else written):
        return
    for (row, column), value in np.ndenumerate(values):
        if not np.isnan(value):
            shown = f"{round(float(value), 2) + 0.0:.2f}".replace("0.", ".", 1)  # never "-0.00"
            axes.text(column, row, shown, ha="center", va="center", fontsize=7,
                      color="#fefefe" if abs(value) > 0.6 else "#111111")  # fmt: skip
