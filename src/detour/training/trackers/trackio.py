"""Trackio: a database on this disk, which `trackio show` draws.

It goes to a server only where Trackio's own settings name one. Knows the package's own calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detour.extras import require_own


def ready() -> type[Trackio]:
    """The tracker, its package imported. Raises MissingExtra."""
    require_own("trackio")
    return Trackio


class Trackio:
    """One run; it has no summary of its own, so that is one more point of the last step."""

    def __init__(self, project: str, run: str, settings: Mapping[str, Any]) -> None:
        self._trackio = require_own("trackio")
        self._trackio.init(project=project, name=run, config=dict(settings))
        self._last = 0

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """A point on each curve."""
        self._trackio.log(dict(values), step=step)
        self._last = step

    def end(self, summary: Mapping[str, float], failed: bool) -> None:
        """One more point each, under `summary/`."""
        if summary:
            told = {f"summary/{name}": value for name, value in summary.items()}
            self._trackio.log(told, step=self._last)
        self._trackio.finish()  # not the run's own, which is then ended again when Python ends
