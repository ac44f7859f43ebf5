"""Weights & Biases: sends the run to the server that its own settings name.

`WANDB_MODE=offline` keeps it on the disk. Knows the package's own calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detour.extras import require_own


def ready() -> type[WandB]:
    """The tracker, its package imported. Raises MissingExtra."""
    require_own("wandb")
    return WandB


class WandB:
    """One run."""

    def __init__(self, project: str, run: str, settings: Mapping[str, Any]) -> None:
        wandb = require_own("wandb")
        self._run = wandb.init(project=project, name=run, config=dict(settings))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point on each curve."""
        self._run.log(dict(values), step=step)

    def end(self, summary: Mapping[str, float], failed: bool) -> None:
        """The run's summary; a failed one is marked so."""
        self._run.summary.update(dict(summary))
        self._run.finish(exit_code=int(failed))
