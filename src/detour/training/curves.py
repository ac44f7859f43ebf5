"""Learning curves: the loss over the steps, where it was judged, and which step was kept.

Drawn once, as PNG for a file and as SVG for a page. Knows what a watcher was told and matplotlib;
knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from detour import drawing
from detour.language.catalogue import ENGLISH, Catalogue
from detour.training.descend import Progress

INK, SOFT, LINE, LEARNED, JUDGED = "#1f2937", "#6b7280", "#e5e7eb", "#1d4ed8", "#c2410c"
_ON_A_PAGE = MappingProxyType(
    {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", LEARNED: "var(--first)",
     JUDGED: "var(--second)"}
)  # fmt: skip
_LOOK: Any = {
    **drawing.LOOK,
    "grid.alpha": 1.0,
    "grid.color": LINE,
    "axes.axisbelow": True,
    "axes.labelsize": 10,
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 9),
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.labelcolor", "ytick.labelcolor"), INK),
    **dict.fromkeys(("axes.edgecolor", "xtick.color", "ytick.color"), SOFT),
}


@dataclass(frozen=True)
class Curves:
    """What is drawn of a run.

    Attributes:
        steps: what a watcher was told, step by step; the training loss is smoothed already.
        first_loss: the validation loss before the first step.
        best_step: the step that was kept.
        best_loss: its validation loss.
        unit: what the losses are counted in, such as nats a token.
    """

    steps: Sequence[Progress]
    first_loss: float
    best_step: int
    best_loss: float
    unit: str

    @property
    def judged(self) -> list[tuple[int, float]]:
        """(step, validation loss), the base's own first."""
        later = [(one.step, one.validation) for one in self.steps if one.validation is not None]
        return [(0, self.first_loss), *later]


def curves_png(curves: Curves, t: Catalogue = ENGLISH) -> bytes:
    """The curves as a PNG file."""
    with mpl.rc_context(_LOOK):
        return drawing.png(_drawn(curves, t))


def curves_svg(curves: Curves, t: Catalogue = ENGLISH) -> str:
    """The curves as an element of a page of `detour.html`, in its colours."""
    with mpl.rc_context(_LOOK):
        return drawing.svg(_drawn(curves, t), _ON_A_PAGE)


def _drawn(curves: Curves, t: Catalogue) -> Figure:
    drawn, axes = drawing.canvas(7.6, 4.1)
    _rates(axes, curves, t)
    numbers = [one.step for one in curves.steps]
    axes.plot(numbers, [one.loss for one in curves.steps], color=LEARNED, linewidth=1.8,
              label=t("training loss, smoothed"))  # fmt: skip
    axes.plot(*zip(*curves.judged, strict=True), "o-", color=JUDGED, linewidth=1, markersize=5,
              clip_on=False, zorder=3, label=t("validation loss"))  # fmt: skip
    _best(axes, curves, t)
    axes.set_xlabel(t("step"))
    axes.set_ylabel(t("loss ({unit})", unit=curves.unit))
    axes.set_ylim(bottom=0, top=_top(curves))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.margins(x=0.02)
    drawn.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=9)
    return drawn


def _rates(axes: Axes, curves: Curves, t: Catalogue) -> None:
    """The learning rate, thin and on a scale of its own, behind everything."""
    other = axes.twinx()
    axes.set_zorder(other.get_zorder() + 1)
    axes.patch.set_visible(False)
    other.grid(visible=False)
    other.plot([one.step for one in curves.steps], [one.learning_rate for one in curves.steps],
               color=SOFT, linewidth=0.8, linestyle=(0, (4, 2)),
               label=t("learning rate (right)"))  # fmt: skip
    other.set_ylim(bottom=0)
    other.tick_params(labelsize=8, length=0)
    other.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    other.yaxis.get_offset_text().set_fontsize(8)


def _best(axes: Axes, curves: Curves, t: Catalogue) -> None:
    """A ring around the step that was kept, and a line down to it."""
    told = t("kept: step {step}, {loss:.3f}", step=curves.best_step, loss=curves.best_loss)
    axes.axvline(curves.best_step, color=JUDGED, linewidth=0.8, linestyle=":")
    axes.plot([curves.best_step], [curves.best_loss], "o", markersize=11, markerfacecolor="none",
              markeredgecolor=JUDGED, markeredgewidth=1.6, clip_on=False, zorder=3,
              label=told)  # fmt: skip


def _top(curves: Curves) -> float | None:
    """Just above the highest loss that is a number."""
    seen = [*(one.loss for one in curves.steps), *(loss for _, loss in curves.judged)]
    return 1.06 * max((loss for loss in seen if math.isfinite(loss)), default=1.0) or None
