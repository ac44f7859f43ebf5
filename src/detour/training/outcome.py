"""A run when it is over: every step, what it reached, what it did to other text, what it cost.

Knows results and their JSON; writes and draws nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from detour.adapter.adapter import Adapter
from detour.data.report import DataReport
from detour.measure.retention import Retention
from detour.training.cost import AnyBase, Cost
from detour.training.history import History
from detour.training.loop import Result


@dataclass(frozen=True)
class Outcome:
    """All that is known of a run when it is over.

    Attributes:
        base: what was trained on.
        data: the user's name for the rows.
        result: the adapter, and how it came about.
        history: every step.
        cost: what it took.
        metrics: the base (or the plainest guess) and the adapter on the same rows, as `eval.json`
            has them.
        retention: what happened to neutral text; None for a head.
        report: what the data look like.
    """

    base: AnyBase
    data: str
    result: Result
    history: History
    cost: Cost
    metrics: Mapping[str, Any]
    retention: Retention | None = None
    report: DataReport | None = None

    @property
    def adapter(self) -> Adapter:
        """The adapter, with the cost on its card."""
        card = self.result.adapter.card
        metrics = {**card.metrics, "cost": self.cost.to_json()}
        return self.result.adapter.with_(card=card.with_(metrics=metrics))

    def summary(self) -> dict[str, Any]:
        """What `--json` prints of every kind of run."""
        result, steps = self.result, self.history.steps
        return {
            "rows": result.rows,
            "validation_rows": result.validation_rows,
            "steps": result.steps,
            "learning_rate": result.plan.learning_rate,
            "first_loss": round(result.first_loss, 6),
            "best_loss": round(result.best_loss, 6),
            "best_step": result.best_step,
            "train_seconds": round(result.seconds, 2),
            "tokens_per_second": round(self.history.tokens_per_second, 1),
            "loss_first": round(steps[0].loss, 6) if steps else None,
            "loss_last": round(steps[-1].loss, 6) if steps else None,
            **self.judged(),
        }

    def judged(self) -> dict[str, Any]:
        """What `eval.json` holds."""
        told: dict[str, Any] = {"metrics": dict(self.metrics)}
        if self.retention:
            told["retention"] = self.retention.to_json()
        return {**told, "cost": self.cost.to_json()}

    def for_tracker(self) -> dict[str, float]:
        """The numbers of the whole run, flat."""
        result, cost = self.result, self.cost
        told = {"first_loss": result.first_loss, "best_loss": result.best_loss,
                "best_step": result.best_step, "flops": cost.flops, "seconds": cost.seconds,
                "energy_wh": cost.energy.watt_hours}  # fmt: skip
        return {**told, **(self.retention.to_json() if self.retention else {})}


def losses(result: Result) -> dict[str, Any]:
    """The loss of base and adapter on the rows that chose the checkpoint.

    `start` is what the training began at, where that was not the base.
    """
    told = {"base": result.first_loss, "adapter": result.best_loss}
    if result.base_loss is not None:
        told = {"base": result.base_loss, "start": result.first_loss, "adapter": result.best_loss}
    return {
        "loss": {name: round(loss, 6) for name, loss in told.items()},
        "rows": result.validation_rows or None,
    }
