"""TensorBoard: a folder of events, `runs/PROJECT/RUN` in the current one.

Knows torch's writer of events.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from detour.extras import require

FOLDER = Path("runs")


def ready() -> type[TensorBoard]:
    """The tracker, its package imported. Raises MissingExtra."""
    require("tensorboard", "track")
    return TensorBoard


class TensorBoard:
    """One run's events; a run of the same name gets a number."""

    def __init__(self, project: str, run: str, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(_free(FOLDER / project / run)))
        self._writer.add_text("settings", f"```yaml\n{yaml.safe_dump(dict(settings))}```")
        self._last = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point on each curve."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._last = step

    def end(self, summary: Mapping[str, float], failed: bool) -> None:
        """One more point each, under `summary/`."""
        for name, value in summary.items():
            self._writer.add_scalar(f"summary/{name}", value, self._last)
        self._writer.close()


def _free(folder: Path) -> Path:
    named = (folder if number == 1 else Path(f"{folder}-{number}") for number in count(1))
    return next(path for path in named if not path.exists())
