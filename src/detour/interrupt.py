"""Ctrl-C between steps, never inside one: what is saved is a state that the run passes through.

Knows signals; knows no models.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class BetweenSteps:
    """Called between two steps: raises the Ctrl-C that came meanwhile."""

    asked: bool = False

    def __call__(self) -> None:
        """Raises KeyboardInterrupt if somebody asked for it."""
        if self.asked:
            raise KeyboardInterrupt


@contextmanager
def whole_steps() -> Generator[BetweenSteps]:
    """Holds Ctrl-C back until what is yielded is called, which then raises it.

    Outside the main thread, or where somebody else handles SIGINT, nothing is held back.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield BetweenSteps()
        return
    held = BetweenSteps()

    def remember(number: int, _: FrameType | None) -> None:
        held.asked = True

    signal.signal(signal.SIGINT, remember)
    try:
        yield held
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
