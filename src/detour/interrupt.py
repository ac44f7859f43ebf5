"""Ctrl-C between steps, never inside one: what is saved is a state that the run passes through.

A request to end (SIGTERM, as a machine that shuts down or a scheduler sends it) is taken as one. A
second Ctrl-C acts at once, wherever the step is, and then there is no state to save.

Knows signals; knows no models.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class AtOnce(KeyboardInterrupt):
    """The second Ctrl-C: it comes inside a step, of which nothing may be saved."""


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
    """Holds Ctrl-C and SIGTERM back until what is yielded is called, which then raises Ctrl-C.

    A Ctrl-C after either of them raises `AtOnce` where it comes.

    Outside the main thread, or where somebody else handles the signal, nothing is held back.
    """
    held = BetweenSteps()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    ours = {number: what for number, what in usual.items() if signal.getsignal(number) == what}

    def remember(number: int, _: FrameType | None) -> None:
        if held.asked and number == signal.SIGINT:
            raise AtOnce
        held.asked = True

    for number in ours:
        signal.signal(number, remember)
    try:
        yield held
    finally:
        for number, what in ours.items():
            signal.signal(number, what)
