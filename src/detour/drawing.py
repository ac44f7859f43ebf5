"""Drawings as bytes: one look for all, PNG for files, SVG in the colours of the page around it.

Knows matplotlib; opens no window and knows nothing of what is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
}
_INLINE: Any = {"svg.fonttype": "path", "svg.hashsalt": "detour"}
_NOTHING_ABOUT = ("Creator", "Date", "Format", "Type")  # what the file would say of itself
_ABOUT = re.compile(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", re.DOTALL)


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty drawing of so many inches."""
    drawn = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(drawn)
    return drawn, drawn.add_subplot()


def panels(width: float, height: float, count: int) -> tuple[Figure, list[Axes]]:
    """An empty drawing of so many inches, with so many axes side by side over one scale."""
    drawn = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(drawn)
    axes = drawn.subplots(1, count, sharey=True, squeeze=False)
    return drawn, list(axes[0])


def png(drawn: Figure) -> bytes:
    """The drawing as a PNG file, on white."""
    stream = BytesIO()
    drawn.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def svg(drawn: Figure, colours: Mapping[str, str]) -> str:
    """The drawing as an `<svg>` element on nothing, to stand inside a page.

    `colours` says what stands for a colour (#rrggbb) that was drawn with, such as `var(--ink)`, so
    that a page in the dark has other lines.
    """
    stream = BytesIO()
    with mpl.rc_context(_INLINE):
        nothing = dict.fromkeys(_NOTHING_ABOUT)
        drawn.savefig(stream, format="svg", transparent=True, metadata=nothing)
    whole = stream.getvalue().decode()
    inner = _ABOUT.sub("", whole[whole.index("<svg") :])
    for colour, told in colours.items():
        inner = inner.replace(colour, told)
    return inner.strip()
