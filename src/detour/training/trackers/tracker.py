"""What a tracker does, which ones there are, and how one is told.

Nothing is imported and nobody is told before somebody asks for a tracker by name. A tracker that
fails while a training runs ends, and the training goes on. Knows names and numbers; knows no
tracker from inside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Protocol

from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.training.descend import Progress

KINDS = ("tensorboard", "trackio", "wandb")
PROJECT = "detour"


class Tracker(Protocol):
    """One run, as a tracker sees it."""

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers of a step, by name."""
        ...

    def end(self, summary: Mapping[str, float], failed: bool) -> None:
        """Nothing more comes; the summary is of the whole run."""
        ...


Begin = Callable[[str, str, Mapping[str, Any]], Tracker]
"""(project, run, settings) to a tracker that has begun."""


@dataclass(frozen=True)
class Wanted:
    """A tracker that somebody asked for, its package imported, not begun yet."""

    kind: str
    project: str
    begin: Begin

    @staticmethod
    def of(told: str) -> Wanted:
        """`KIND` or `KIND:PROJECT`.

        Raises:
            ConfigError: no such tracker. MissingExtra: its package is not installed.
        """
        kind, _, project = told.partition(":")
        if kind not in KINDS:
            close = get_close_matches(kind, KINDS, n=1)
            raise ConfigError(
                text("there is no tracker {kind!r}", kind=kind),
                expected=text("one of {names}", names=", ".join(KINDS)),
                hint=text("did you mean {close!r}?", close=close[0]) if close else "",
            )
        with redirect_stdout(sys.stderr):  # stdout is for results
            module = import_module(f"detour.training.trackers.{kind}")
            return Wanted(kind, project or PROJECT, module.ready())

    def begun(self, run: str, settings: Mapping[str, Any]) -> Tracker:
        """The tracker, told what runs.

        Raises:
            ConfigError: it cannot begin, for want of a key or a disk; whatever it says is told.
        """
        try:
            with redirect_stdout(sys.stderr):
                return self.begin(self.project, run, settings)
        except Exception as cause:
            raise ConfigError(
                text("{kind} could not begin", kind=self.kind),
                found=f"{type(cause).__name__}: {cause}",
                hint=text("leave --track away, or mend it"),
            ) from cause


class Tracked:
    """A tracker that may fail: it is told nothing more then, and the training goes on."""

    def __init__(self, tracker: Tracker, teller: Callable[[str], None] | None = None) -> None:
        self._tracker: Tracker | None = tracker
        self._teller = teller

    def log(self, progress: Progress) -> None:
        """Tell a step."""
        self._told(lambda tracker: tracker.log(progress.step, numbers(progress)))

    def end(self, summary: Mapping[str, float], failed: bool) -> None:
        """Tell the summary, and nothing more."""
        self._told(lambda tracker: tracker.end(summary, failed))
        self._tracker = None

    def _told(self, tell: Callable[[Tracker], None]) -> None:
        if self._tracker is None:
            return
        try:
            with redirect_stdout(sys.stderr):
                tell(self._tracker)
        except Exception as cause:  # whatever it is, the training is worth more
            self._tracker = None
            if self._teller:
                found = f"{type(cause).__name__}: {cause}"
                self._teller(
                    text("the tracker failed and is told nothing more: {found}", found=found)
                )


def numbers(progress: Progress) -> dict[str, float]:
    """What is known of a step, by the names of `metrics.jsonl`."""
    told = {
        "loss": round(progress.loss, 6),
        "learning_rate": float(f"{progress.learning_rate:.6g}"),
        "tokens_per_second": round(progress.tokens_per_second, 1),
    }
    if progress.validation is not None:
        told["validation_loss"] = round(progress.validation, 6)
    return told
