"""A run on one page that fetches nothing: its curves, what it did, on what data, at what cost.

Knows outcomes; measures nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from detour import html
from detour.data.page import findings, verdict
from detour.language.catalogue import ENGLISH, Catalogue
from detour.model.headed import HeadedBase
from detour.training.cost import Cost
from detour.training.curves import Curves
from detour.training.outcome import Outcome


def curves_of(outcome: Outcome, t: Catalogue) -> Curves:
    """What is drawn of the run."""
    result = outcome.result
    unit = loss_unit(outcome, t)
    return Curves(
        outcome.history.steps, result.first_loss, result.best_step, result.best_loss, unit
    )


def loss_unit(outcome: Outcome, t: Catalogue) -> str:
    """What its losses are counted in."""
    if outcome.result.adapter.card.config.get("objective"):
        return t("of one's own")
    if not isinstance(outcome.base, HeadedBase):
        return t("nats a token")
    return t("nats a row") if outcome.base.labels else t("squared error, scaled")


def run_page(outcome: Outcome, picture: str, t: Catalogue = ENGLISH) -> str:
    """The whole page; `picture` is the curves as HTML."""
    parts = [
        f"<p>{escape(headline(outcome, t))}</p>",
        html.section(t("learning curves"), picture),
        _compared(outcome, t),
        *([_data(outcome, t)] if outcome.report else []),
        _costs(outcome.cost, t),
        _settings(outcome.result.adapter.card.config, t),
    ]
    above = t(
        "Detour training report · base {base} · data {data}", base=outcome.base.name,
        data=outcome.data,
    )  # fmt: skip
    title = t("Training report: {name}", name=outcome.result.adapter.name)
    return html.page(title, above, "".join(parts), t)


def headline(outcome: Outcome, t: Catalogue = ENGLISH) -> str:
    """What the training did to the loss, in one or two sentences."""
    result = outcome.result
    told = t(
        "The loss fell from {first:.3f} to {best:.3f} ({unit}); kept is step {step} of {steps}.",
        first=result.first_loss,
        best=result.best_loss,
        unit=loss_unit(outcome, t),
        step=result.best_step,
        steps=outcome.history.steps[-1].step if outcome.history.steps else result.plan.steps,
    )
    if result.base_loss is not None:
        base = t("The base alone has {loss:.3f}: the training began at something else.",
                 loss=result.base_loss)  # fmt: skip
        told = f"{told} {base}"
    if result.validation_rows:
        rows = t("It was judged on {rows} rows that were held out.", rows=result.validation_rows)
        return f"{told} {rows}"
    alone = t(
        "No row was held out: this is the loss of training rows, and says nothing of other texts."
    )
    return f"{told} {alone}"


def _compared(outcome: Outcome, t: Catalogue) -> str:
    """Base and adapter on the same rows, or a head beside the plainest guess."""
    if isinstance(outcome.base, HeadedBase):
        return _heads(outcome.metrics, t)
    result, kept = outcome.result, outcome.retention
    begun = [] if result.base_loss is None else [result.first_loss]
    losses = [result.first_loss if result.base_loss is None else result.base_loss,
              *begun, result.best_loss]  # fmt: skip
    told = t("held-out rows") if result.validation_rows else t("training rows")
    cells = [_compared_row(told, t("loss"), [f"{loss:.4f}" for loss in losses])]
    if not result.adapter.card.config.get("objective"):
        cells.append(_compared_row(told, t("perplexity"), [_perplexity(loss) for loss in losses]))
    if kept:
        before, after = f"{kept.perplexity_before:.2f}", f"{kept.perplexity_after:.2f}"
        neutral = t("neutral text, {tokens} tokens", tokens=kept.tokens)
        moved = t("KL to the base, nats a token")
        blank = [""] * len(begun)
        cells.append(_compared_row(neutral, t("perplexity"), [before, *blank, after]))
        cells.append(_compared_row(neutral, moved, ["0", *blank, f"{kept.kl_mean:.4f}"]))
    arms = [t("base"), *([t("where it began")] if begun else []), t("with the adapter")]
    return html.table(
        t("base and adapter on the same rows"), [t("measured on"), "", *arms], cells,
        numbers=tuple(range(2, 2 + len(arms))),
    )  # fmt: skip


def _compared_row(where: str, what: str, figures: Sequence[str]) -> list[str]:
    return [html.cell(where), html.cell(what), *(html.cell(one, "n") for one in figures)]


def _perplexity(loss: float) -> str:
    return f"{math.exp(loss):.2f}" if loss < math.log(1e6) else f"{math.exp(min(loss, 700)):.1e}"


def _heads(metrics: Mapping[str, Any], t: Catalogue) -> str:
    if not metrics:
        alone = escape(t("there are no rows beside those that were trained on"))
        return html.section(t("head and plainest guess on the same rows"), alone)
    cells = [
        [html.cell(split), html.cell(name.replace("_", " ")),
         html.cell(_figure(told["plainest"][name]), "n"), html.cell(_figure(figure), "n"),
         html.cell(str(figure["n"]), "n")]
        for split, told in metrics.items()
        for name, figure in told["adapter"].items()
    ]  # fmt: skip
    heads = [t("measured on"), "", t("plainest guess"), t("with the adapter"), "n"]
    return html.table(
        t("head and plainest guess on the same rows"), heads, cells, numbers=(2, 3, 4)
    )


def _figure(figure: Mapping[str, Any]) -> str:
    value, low, high = (figure[name] for name in ("value", "low", "high"))
    if value is None:
        return "–"
    return f"{value:.3f} [{_end(low)}, {_end(high)}]"


def _end(value: float | None) -> str:
    return "∞" if value is None else f"{value:.3f}"


def _data(outcome: Outcome, t: Catalogue) -> str:
    assert outcome.report is not None
    told = f"<p>{verdict(outcome.report, t)}</p>"
    return findings(outcome.report, t, t("the data"), told)


def _costs(cost: Cost, t: Catalogue) -> str:
    rows = [
        (t("operations, estimated"), cost.operations),
        (t("tokens learned from"), f"{cost.tokens:,}"),
        (t("time"), t("{seconds:.1f} s", seconds=cost.seconds)),
        (t("energy"), f"{cost.energy.watt_hours:.3g} Wh ({energy_source(cost, t)})"),
    ]
    if cost.price is not None:
        rows.append((t("price, by the hour's"), f"{cost.price:.3g}"))
    return html.pairs(t("costs"), rows)


def energy_source(cost: Cost, t: Catalogue = ENGLISH) -> str:
    """How the energy is known, in words."""
    watts = cost.energy.watts
    match cost.energy.source:
        case "stated":
            return t("{watts:.0f} W, as stated", watts=watts)
        case "assumed":
            return t("{watts:.0f} W assumed: nothing here measures it", watts=watts)
        case "rapl":
            return t("by RAPL {watts:.0f} W, the processor with all that ran on it", watts=watts)
        case "nvidia-smi":
            return t("by nvidia-smi {watts:.0f} W, the GPU alone", watts=watts)


def _settings(settings: Mapping[str, Any], t: Catalogue) -> str:
    told = [(name, _value(value)) for name, value in settings.items() if value not in (None, {})]
    return html.pairs(t("settings"), told)


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
