"""Many independent jobs at once; a job whose worker was killed is given out again.

A pool of `concurrent.futures` is broken as a whole when one of its processes is killed, and every
job in it is lost. Here each worker has its own connection, so that a death costs one attempt of one
job. Knows jobs and workers; knows nothing of what the jobs do.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self, TypeAlias

from detour.errors import MachineError
from detour.fanout.events import Asked, Died, Event, Returned, Unprepared
from detour.interrupt import whole_steps
from detour.language.catalogue import text

ATTEMPTS = 3  # how often a job is given out before it counts as failed
PAUSE = 0.2  # seconds between two looks at whether somebody asked to end

Ask: TypeAlias = Callable[[Any], Any]
"""What a job calls to tell its giver something in the middle; returns the answer."""
Work: TypeAlias = Callable[[Any, Any, Ask], Any]
"""`work(prepared, argument, ask)`: a module's function, so that it can be pickled."""
Prepare: TypeAlias = Callable[[], Any]
"""What a worker does once, before its first job, such as loading a model."""


class Worker(Protocol):
    """Somebody who does one job at a time."""

    def give(self, job: bytes) -> None:
        """Begin a job."""
        ...

    def answer(self, reply: Any) -> None:  # noqa: ANN401 - whatever the giver says
        """Go on with the job that asked."""
        ...

    def end(self) -> None:
        """Stop at once, in the middle of a job too."""
        ...


class Hall(Protocol):
    """Where workers are.

    Attributes:
        is_shared: a worker that has nothing to do takes room that another may wait for, such as
            one that stands in for a worker whose machine is gone.
    """

    is_shared: bool

    def hire(self) -> Worker:
        """A new worker."""
        ...

    def wait(self, workers: Sequence[Worker], seconds: float) -> list[tuple[Worker, Event]]:
        """What happened to these workers; nothing if nothing did for so long."""
        ...

    def close(self) -> None:
        """Leave nothing behind; the workers have ended."""
        ...


@dataclass(frozen=True)
class Done:
    """A job that is over.

    Attributes:
        argument: what it was about.
        value: what it returned; None where it failed.
        error: why it failed: what it raised, or a MachineError where its workers died.
        attempts: how often it was given out.
    """

    argument: Any
    value: Any = None
    error: Exception | None = None
    attempts: int = 1


@dataclass(frozen=True)
class _Job:
    argument: Any
    pickled: bytes = field(repr=False)
    attempts: int = 0


def _no_answer(_: Any, message: Any) -> Any:  # noqa: ANN401 - whatever the job says
    raise MachineError(
        text("a job asks, and nobody answers"), found=repr(message)[:80]
    )  # a fault in the program that gave out the job


def _tell_nobody(_: Any, reason: str) -> None:  # noqa: ANN401
    del reason


class Fanout:
    """Workers that do jobs, as many at once as there are workers.

    A context: leaving it ends all workers at once, whatever they do. They are started when there
    is a job for them, prepare themselves once, and are kept for the next `run`.
    """

    def __init__(self, hall: Hall, workers: int, attempts: int = ATTEMPTS) -> None:
        self._hall = hall
        self._count = workers
        self._attempts = attempts
        self._idle: list[Worker] = []
        self._busy: dict[Worker, _Job] = {}

    @staticmethod
    def here(prepare: Prepare | None = None, workers: int = 2, attempts: int = ATTEMPTS) -> Fanout:
        """Workers that are processes of this machine; they share its cores evenly."""
        from detour.fanout.processes import Processes

        return Fanout(Processes(prepare, workers), workers, attempts)

    @staticmethod
    def on_cluster(
        address: str,
        prepare: Prepare | None = None,
        workers: int = 2,
        attempts: int = ATTEMPTS,
        gpus: float = 0,
    ) -> Fanout:
        """Workers on a Ray cluster, each with `gpus` GPUs and an even share of the CPUs.

        Raises:
            MissingExtra: Ray is not installed.
            ConfigError: there is no cluster at that address, or it is too small.
        """
        from detour.fanout.cluster import Cluster

        return Fanout(Cluster(address, prepare, workers, gpus), workers, attempts)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all workers at once."""
        self._dismiss([*self._busy, *self._idle])
        self._idle.clear()
        self._hall.close()

    def run(
        self,
        work: Work,
        arguments: Iterable[Any],
        *,
        answer: Callable[[Any, Any], Any] = _no_answer,
        lost: Callable[[Any, str], None] = _tell_nobody,
    ) -> Generator[Done]:
        """Do `work` with every argument; results come as jobs finish.

        Ctrl-C and SIGTERM are held back while results are dealt with, and raised in between.

        Args:
            work: a module's function.
            arguments: taken one by one, each when a worker is free for it.
            answer: is told the argument and what its job asked, here; what it returns the job gets.
            lost: is told the argument and why, when a worker died and its job is given out again.

        Raises:
            KeyboardInterrupt: somebody asked to end.
            Exception: what `prepare` raised; no job can be done then.
        """
        fresh = (_Job(one, pickle.dumps((work, one))) for one in arguments)
        again: deque[_Job] = deque()
        try:
            with whole_steps() as between:
                while self._give_out(again, fresh) or self._busy:
                    for worker, event in self._hall.wait(list(self._busy), PAUSE):
                        done = self._heard(worker, event, again, answer, lost)
                        if done:
                            yield done
                    between()
        finally:
            self._dismiss(list(self._busy))

    def _give_out(self, again: deque[_Job], fresh: Iterator[_Job]) -> bool:
        """A job for every free worker, those that were lost first; whether there was one."""
        gave = False
        while len(self._busy) < self._count:
            job = again.popleft() if again else next(fresh, None)
            if job is None:
                if self._hall.is_shared and self._busy:
                    self._dismiss(self._idle)
                    self._idle.clear()
                return gave
            worker = self._idle.pop() if self._idle else self._hall.hire()
            self._busy[worker] = replace(job, attempts=job.attempts + 1)
            worker.give(job.pickled)
            gave = True
        return gave

    def _heard(
        self,
        worker: Worker,
        event: Event,
        again: deque[_Job],
        answer: Callable[[Any, Any], Any],
        lost: Callable[[Any, str], None],
    ) -> Done | None:
        job = self._busy[worker]
        if isinstance(event, Asked):
            worker.answer(answer(job.argument, event.message))
            return None
        del self._busy[worker]
        if isinstance(event, Unprepared):
            worker.end()
            raise event.error
        if not isinstance(event, Died):
            self._idle.append(worker)
            if isinstance(event, Returned):
                return Done(job.argument, event.value, attempts=job.attempts)
            return Done(job.argument, error=event.error, attempts=job.attempts)
        worker.end()
        if job.attempts < self._attempts:
            lost(job.argument, event.reason)
            again.append(job)
            return None
        return Done(job.argument, error=_worn_out(event.reason, job.attempts),
                    attempts=job.attempts)  # fmt: skip

    def _dismiss(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            self._busy.pop(worker, None)
            worker.end()


def _worn_out(reason: str, attempts: int) -> MachineError:
    return MachineError(
        text("given out {attempts} times, and every time its worker ended", attempts=attempts),
        found=reason,
        hint=text("fewer workers at once, or less memory for each"),
    )
