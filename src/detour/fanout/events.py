"""What a worker says, and what it does with a job: the same in a process here and on a cluster.

Knows pickled jobs; knows neither pipes nor clusters.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from detour.errors import MachineError
from detour.language.catalogue import text

_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Asked:
    """A job in the middle wants an answer."""

    message: Any


@dataclass(frozen=True)
class Returned:
    """A job is done."""

    value: Any


@dataclass(frozen=True)
class Raised:
    """A job failed, and its worker lives on."""

    error: Exception


@dataclass(frozen=True)
class Unprepared:
    """The worker cannot do any job."""

    error: Exception


@dataclass(frozen=True)
class Died:
    """The worker is gone, and did not say why."""

    reason: str


Event: TypeAlias = Asked | Returned | Raised | Unprepared | Died


class Performer:
    """Does jobs one after another, in the worker; prepares itself before the first."""

    def __init__(self, prepare: bytes, threads: int) -> None:
        """`prepare`: a pickled function without arguments, or None."""
        use_threads(threads)
        self._prepare = prepare
        self._threads = threads
        self._prepared: list[Any] = []

    def __call__(self, job: bytes, ask: Callable[[Any], Any]) -> bytes:
        """The pickled event that the job ended with."""
        if not self._prepared:
            try:
                self._get_ready()
            except Exception as cause:
                return pickle.dumps(Unprepared(portable(cause)))
        try:
            work, argument = pickle.loads(job)
            return pickle.dumps(Returned(work(self._prepared[0], argument, ask)))
        except Exception as cause:
            return pickle.dumps(Raised(portable(cause)))

    def _get_ready(self) -> None:
        prepare = pickle.loads(self._prepare)
        use_threads(self._threads)
        self._prepared.append(prepare() if prepare else None)


def use_threads(count: int) -> None:
    """So many for every library that is imported from now on, and for torch in any case."""
    os.environ.update(dict.fromkeys(_THREADS, str(count)))
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(count)


def threads_each(workers: int) -> int:
    """Cores of this process a worker, at least one; never more than OMP_NUM_THREADS allows."""
    able = getattr(os, "sched_getaffinity", None)
    cores = len(able(0)) if able else os.cpu_count() or 1
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    most = int(allowed) if allowed.isdigit() and int(allowed) > 0 else cores
    return max(1, min(most, cores // workers))


def portable(error: Exception) -> Exception:
    """The error if it survives pickling, else one that says the same; with its trace as a note."""
    told = "".join(traceback.format_exception(error))
    try:
        made = pickle.loads(pickle.dumps(error))
        same = type(made) is type(error) and str(made) == str(error)
    except Exception:
        same = False
    if not same:
        error = MachineError(
            text("{kind}: {message}", kind=type(error).__name__, message=str(error))
        )
    error.add_note(told)
    return error
