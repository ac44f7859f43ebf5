"""Workers that are processes of this machine, started anew (spawn) and joined by a pipe each.

A worker whose parent is gone ends by itself, even if the parent was killed. What it prints goes to
stderr: stdout is the parent's. Knows processes, pipes and signals; knows nothing of jobs.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any, cast

from detour.fanout.events import Asked, Died, Event, Performer, threads_each
from detour.fanout.jobs import Prepare, Worker
from detour.language.catalogue import Text, text


class Processes:
    """Where processes are started, each with its share of this machine's cores."""

    is_shared = False

    def __init__(self, prepare: Prepare | None, workers: int) -> None:
        self._prepare = pickle.dumps(prepare)
        self._threads = threads_each(workers)

    def hire(self) -> Process:
        """Start one."""
        return Process(self._prepare, self._threads)

    def wait(self, workers: Sequence[Worker], seconds: float) -> list[tuple[Worker, Event]]:
        """What they said; a pipe that ended is a death."""
        by_pipe = {cast("Process", worker).pipe: worker for worker in workers}
        ready = cast("list[Connection]", wait(list(by_pipe), seconds))
        return [(by_pipe[pipe], cast("Process", by_pipe[pipe]).heard()) for pipe in ready]

    def close(self) -> None:
        """Nothing is left: every process ended by itself."""


class Process:
    """One worker process and our end of its pipe."""

    def __init__(self, prepare: bytes, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, prepare, threads), daemon=True)
        self._process.start()
        other.close()  # the child's end is the child's alone, so that its death ends the pipe

    def give(self, job: bytes) -> None:
        """A process that died meanwhile is heard of by `heard`."""
        with suppress(OSError):
            self.pipe.send_bytes(job)

    def answer(self, reply: Any) -> None:  # noqa: ANN401 - whatever the giver says
        """As `give`."""
        self.give(pickle.dumps(reply))

    def heard(self) -> Event:
        """The next thing it says."""
        try:
            return pickle.loads(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self._process.join()
            return Died(_cause(self._process.exitcode or 0))

    def end(self) -> None:
        """Kill it: it holds nothing that is worth a farewell."""
        self._process.kill()
        self._process.join()
        self._process.close()
        self.pipe.close()


def _cause(code: int) -> Text:
    if code >= 0:
        return text("its process ended with exit code {code}", code=code)
    name = signal.Signals(-code).name
    if -code == signal.SIGKILL:
        return text("its process was killed ({name}): by somebody, or by a machine whose memory is "
                    "full", name=name)  # fmt: skip
    return text("its process was killed ({name})", name=name)


def _serve(pipe: Connection, prepare: bytes, threads: int) -> None:
    """What a worker process does: jobs, until nobody gives any."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    os.dup2(2, 1)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    perform = Performer(prepare, threads)

    def ask(message: Any) -> Any:  # noqa: ANN401 - whatever the job says
        pipe.send_bytes(pickle.dumps(Asked(message)))
        return pickle.loads(pipe.recv_bytes())

    with suppress(EOFError, OSError):
        while True:
            pipe.send_bytes(perform(pipe.recv_bytes(), ask))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
