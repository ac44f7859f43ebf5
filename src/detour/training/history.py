"""Every step of a run, over all the stretches that it took.

Knows what a watcher is told; writes no files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from detour.training.descend import Progress, Watcher
from detour.training.trackers.tracker import numbers


@dataclass
class History:
    """Every step that a watcher is told, handed on to another watcher."""

    onward: Watcher | None = None
    steps: list[Progress] = field(default_factory=lambda: [])

    def __call__(self, progress: Progress) -> None:
        """Keep it, and hand it on."""
        self.steps.append(progress)
        if self.onward:
            self.onward(progress)

    @property
    def tokens_per_second(self) -> float:
        """Over the whole run; 0 where no step was taken."""
        return self.steps[-1].tokens_per_second if self.steps else 0.0

    def lines(self) -> str:
        """`metrics.jsonl`."""
        told = ({"step": one.step, **numbers(one)} for one in self.steps)
        return "".join(json.dumps(line) + "\n" for line in told)

    def kept(self) -> list[Sequence[Any]]:
        """The steps as JSON."""
        return [astuple(one) for one in self.steps]

    def go_on(self, kept: Sequence[Sequence[Any]]) -> None:
        """Begin with what `kept` gave: nobody is told of it again."""
        self.steps[:0] = [Progress(*one) for one in kept]
