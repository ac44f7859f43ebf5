"""The report's pictures, as PNG bytes. Knows figures and matplotlib; opens no window."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib as mpl

from detour.drawing import LOOK, canvas, png
from detour.evaluate.probability import Trace
from detour.evaluate.steer_report import Dose
from detour.language.catalogue import ENGLISH, Catalogue
from detour.measure.statistics import Figure

NEW, OLD, THIRD, GREY = "#c2410c", "#1d4ed8", "#6b7280", "#9ca3af"


def dose_plot(dose: Sequence[Dose], names: tuple[str, str, str], t: Catalogue = ENGLISH) -> bytes:
    """Probabilities of (new, old, third) over the adapter's weight, with intervals."""
    with mpl.rc_context(LOOK):
        drawn, axes = canvas(6.4, 3.6)
        weights = [d.weight for d in dose]
        for figures, name, colour in (
            ([d.target for d in dose], names[0], NEW),
            ([d.old for d in dose], names[1], OLD),
            ([d.third for d in dose], names[2], THIRD),
        ):
            axes.plot(weights, [f.value for f in figures], "o-", color=colour, label=name)
            low, high = [f.low for f in figures], [f.high for f in figures]
            axes.fill_between(weights, low, high, color=colour, alpha=0.15)
        axes.set_xlabel(t("weight of the adapter"))
        axes.set_ylabel(t("probability of the whole answer"))
        axes.set_ylim(-0.03, 1.03)
        axes.legend(frameon=False)
        return png(drawn)


def trace_plot(trace: Trace, t: Catalogue = ENGLISH) -> bytes:
    """Where in the layers the answer turns: the old and the new token, base and steered."""
    with mpl.rc_context(LOOK):
        drawn, axes = canvas(6.4, 3.6)
        layers = range(len(trace.base_old))
        new, old = trace.new_token.strip(), trace.old_token.strip()
        axes.plot(
            layers, trace.base_old, "o--", color=OLD, alpha=0.6, label=t("{token}, base", token=old)
        )
        axes.plot(
            layers, trace.base_new, "o--", color=NEW, alpha=0.6, label=t("{token}, base", token=new)
        )
        axes.plot(
            layers, trace.steered_old, "o-", color=OLD, label=t("{token}, steered", token=old)
        )
        axes.plot(
            layers, trace.steered_new, "o-", color=NEW, label=t("{token}, steered", token=new)
        )
        axes.set_xlabel(t("after layer (0: embedding)"))
        axes.set_ylabel(t("probability of the next token"))
        axes.set_xticks(list(layers))
        axes.set_ylim(-0.03, 1.03)
        axes.legend(frameon=False, fontsize=9)
        return png(drawn)


def rates_plot(rows: Sequence[tuple[str, Figure, bool]], t: Catalogue = ENGLISH) -> bytes:
    """Rates with their intervals, one line each; the flag marks what is ours."""
    with mpl.rc_context(LOOK):
        drawn, axes = canvas(6.8, 0.55 * len(rows) + 0.9)
        places = list(range(len(rows)))[::-1]
        for place, (_, figure, ours) in zip(places, rows, strict=True):
            if figure.n == 0:
                axes.text(0.02, place, t("nothing to measure"), va="center", fontsize=10)
                continue
            colour = NEW if ours else GREY
            axes.barh(place, figure.value, color=colour, height=0.6)
            axes.plot([figure.low, figure.high], [place, place], color="#111827", linewidth=1.5)
            text = f"{figure.value:.2f}  (n={figure.n})"
            axes.text(min(figure.high, 1.0) + 0.02, place, text, va="center", fontsize=10)
        axes.set_yticks(places, [name for name, _, _ in rows])
        axes.set_xlim(0, 1.25)
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])
        axes.grid(axis="y", visible=False)
        return png(drawn)
