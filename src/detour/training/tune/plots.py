"""What a search found, as drawings: its course, which settings mattered, loss by setting.

Knows trials and matplotlib; knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, NullFormatter

from detour.drawing import LOOK, canvas, panels, png
from detour.language.catalogue import ENGLISH, Catalogue
from detour.training.tune.space import Choice, Dimension, label
from detour.training.tune.study import Trial

TRIED, BEST, SOFT = "#1d4ed8", "#c2410c", "#9ca3af"
LONGEST = 14  # characters of a choice under an axis


def history_png(trials: Sequence[Trial], t: Catalogue = ENGLISH) -> bytes:
    """Validation losses in the order of the trials, the best so far, and the default."""
    with mpl.rc_context(LOOK):
        drawn, axes = canvas(7.6, 4.1)
        ended, pruned = _of(trials, "complete"), _of(trials, "pruned")
        _points(axes, [t_.number for t_ in ended], ended, "o", TRIED, t("finished"))
        if pruned:
            _points(axes, [t_.number for t_ in pruned], pruned, "x", SOFT, t("ended early"))
        so_far = list(accumulate((_loss(one) for one in ended), min))
        axes.step([one.number for one in ended], so_far, where="post", color=BEST,
                  label=t("best so far"))  # fmt: skip
        for default in (one for one in ended if one.is_default):
            axes.axhline(_loss(default), color=SOFT, linestyle="--", label=t("default"))
        axes.set_xlabel(t("trial"))
        axes.set_ylabel(t("validation loss (nats a token)"))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        drawn.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)
        return png(drawn)


def importances_png(importances: Mapping[str, float], t: Catalogue = ENGLISH) -> bytes:
    """The share of every setting as a bar, the largest on top."""
    with mpl.rc_context(LOOK):
        drawn, axes = canvas(6.4, 0.45 * max(2, len(importances)) + 1.0)
        order = sorted(importances, key=lambda name: importances[name])
        bars = axes.barh(order, [importances[name] for name in order], color=TRIED, height=0.6)
        axes.bar_label(bars, fmt="{:.2f}", padding=3, fontsize=9)
        axes.set_xlabel(t("share of what sets good trials apart"))
        axes.set_xlim(0, 1.1)
        axes.grid(axis="y", visible=False)
        if not importances:
            axes.text(0.5, 0.5, t("too few trials"), ha="center", transform=axes.transAxes)
            axes.set_yticks([])
        return png(drawn)


def slices_png(
    trials: Sequence[Trial], searched: Mapping[str, Dimension], t: Catalogue = ENGLISH
) -> bytes:
    """The loss over each setting that varied, trial by trial."""
    with mpl.rc_context(LOOK):
        drawn, every = panels(2.5 * len(searched) + 0.8, 3.6, len(searched))
        for axes, (name, dimension) in zip(every, searched.items(), strict=True):
            _slice(axes, name, dimension, trials)
        every[0].set_ylabel(t("validation loss (nats a token)"))
        return png(drawn)


def _slice(axes: Axes, name: str, dimension: Dimension, trials: Sequence[Trial]) -> None:
    for state, mark, colour in (("complete", "o", TRIED), ("pruned", "x", SOFT)):
        told = [one for one in _of(trials, state) if name in one.params]
        values = [one.params[name] for one in told]
        if isinstance(dimension, Choice):
            values = [dimension.labels.index(value) for value in values]
        _points(axes, values, told, mark, colour)
    if isinstance(dimension, Choice):
        axes.set_xticks(range(len(dimension.values)), [_tick(one) for one in dimension.values],
                        fontsize=8)  # fmt: skip
        axes.set_xlim(-0.5, len(dimension.values) - 0.5)
    elif dimension.log:
        ends = (dimension.low, math.sqrt(dimension.low * dimension.high), dimension.high)
        axes.set_xscale("log")
        axes.set_xticks(ends, [f"{end:.2g}" for end in ends], fontsize=8)
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.tick_params(axis="x", labelsize=8)
    axes.set_xlabel(name)


def _tick(value: Any) -> str:  # noqa: ANN401 - any setting's value
    told = str(label(value))
    return told if len(told) <= LONGEST else told[: LONGEST - 1] + "…"


def _points(
    axes: Axes,
    places: Sequence[Any],
    trials: Sequence[Trial],
    mark: str,
    colour: str,
    name: str | None = None,
) -> None:
    axes.plot(places, [_loss(one) for one in trials], mark, color=colour, label=name, alpha=0.8)


def _of(trials: Sequence[Trial], state: str) -> list[Trial]:
    return [one for one in trials if one.state == state and one.value is not None]


def _loss(trial: Trial) -> float:
    assert trial.value is not None
    return trial.value
