"""Jobs for `detour.fanout`: functions that a worker process can import."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from detour.errors import DataError

Ask = Callable[[Any], Any]


def pid(_: object) -> int:
    return os.getpid()


def square(_: object, number: int, ask: Ask) -> int:
    return number * number


def who(prepared: object, _: int, ask: Ask) -> tuple[object, int]:
    return prepared, os.getpid()


def threads(_: object, wanted: object, ask: Ask) -> tuple[int, str]:
    import torch

    return torch.get_num_threads(), os.environ["OMP_NUM_THREADS"]


def prints(_: object, told: str, ask: Ask) -> None:
    print(told, flush=True)


def asks(_: object, number: int, ask: Ask) -> int:
    return ask(number) + ask(number + 1)


def raises(_: object, number: int, ask: Ask) -> None:
    if number == 0:
        raise DataError("bad row", expected="another", hint="look")
    raise Foreign(number, "two arguments")


class Foreign(Exception):
    """Cannot be unpickled: its arguments are not those of its constructor."""

    def __init__(self, one: int, other: str) -> None:
        super().__init__(f"{one} {other}")


def dies(_: object, argument: tuple[str, int], ask: Ask) -> int:
    """Kills itself in its first attempts: as many as the argument says."""
    folder, deaths = argument
    done = Path(folder) / f"{deaths}"
    before = len(done.read_text()) if done.exists() else 0
    done.write_text("x" * (before + 1))
    if before < deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return before


def leaves(_: object, code: int, ask: Ask) -> None:
    os._exit(code)


def sleeps(_: object, folder: str, ask: Ask) -> None:
    (Path(folder) / f"{os.getpid()}.pid").touch()
    time.sleep(600)


def slow(_: object, seconds: float, ask: Ask) -> None:
    time.sleep(seconds)


def unprepared() -> None:
    raise DataError("no model")


def prepared() -> int:
    """Which process prepared itself."""
    return os.getpid()
