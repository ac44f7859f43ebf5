"""Ctrl-C between steps, never inside one: what is saved is a state that the run passes through.

Knows signals; knows no models.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def whole_steps() -> Generator[Callable[[], None]]:
    """Holds Ctrl-C back until the yielded function is called, which then raises it.

    Outside the main thread, or where somebody else handles SIGINT, nothing is held back.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: None
        return
    caught: list[int] = []

    def remember(number: int, _: FrameType | None) -> None:
        caught.append(number)

    def check() -> None:
        if caught:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, remember)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
