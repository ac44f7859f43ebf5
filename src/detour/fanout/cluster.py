"""Workers on a Ray cluster: an actor each, and a mailbox through which jobs ask.

Ray's own retries are off: a dead actor is replaced, and its job given out again, by `jobs`, which
counts the attempts and can say so. Knows Ray; knows nothing of jobs.
"""

from __future__ import annotations

import asyncio
import pickle
import socket
from collections.abc import Sequence
from itertools import count
from typing import Any, cast

from detour.errors import ConfigError
from detour.extras import require
from detour.fanout.events import Asked, Died, Event, Performer
from detour.fanout.jobs import Prepare, Worker
from detour.language.catalogue import text

KNOCK = 10.0  # seconds for a cluster's first sign of life


class Mailbox:
    """An actor to which jobs write and from which they get answers; many wait in it at once."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[tuple[int, bytes]] = asyncio.Queue()
        self._open: dict[int, asyncio.Future[bytes]] = {}

    async def ask(self, worker: int, message: bytes) -> bytes:
        """The answer, once there is one."""
        self._open[worker] = asyncio.get_running_loop().create_future()
        self._letters.put_nowait((worker, message))
        return await self._open[worker]

    async def next(self) -> tuple[int, bytes]:
        """The next letter: who asks, and what."""
        return await self._letters.get()

    async def reply(self, worker: int, answer: bytes) -> None:
        """Let a worker go on."""
        waiting = self._open.pop(worker)
        if not waiting.done():  # it may be gone
            waiting.set_result(answer)


class Hand:
    """An actor that does jobs."""

    def __init__(self, number: int, mailbox: Any, prepare: bytes, threads: int) -> None:  # noqa: ANN401
        self._number = number
        self._mailbox = mailbox
        self._perform = Performer(prepare, threads)

    def perform(self, job: bytes) -> bytes:
        """The pickled event that the job ended with."""
        return self._perform(job, self._ask)

    def _ask(self, message: Any) -> Any:  # noqa: ANN401 - whatever the job says
        import ray

        asked = self._mailbox.ask.remote(self._number, pickle.dumps(message))
        return pickle.loads(ray.get(asked))


class Cluster:
    """A running cluster; its nodes have Detour installed, and the files that jobs name."""

    is_shared = True

    def __init__(self, address: str, prepare: Prepare | None, workers: int, gpus: float) -> None:
        self._ray: Any = require("ray", "scale")
        self._joined = not self._ray.is_initialized()
        if self._joined:
            _join(self._ray, address)
        self._prepare = pickle.dumps(prepare)
        self._gpus = gpus
        try:
            self._cpus = cpus_each(_cpus_of(self._ray.nodes()), workers)
        except ConfigError:
            self.close()
            raise
        self._numbers = count()
        self._mailbox = self._ray.remote(Mailbox).options(num_cpus=0).remote()
        self._letter = self._mailbox.next.remote()

    def hire(self) -> Actor:
        """A new actor; Ray starts it where there is room."""
        number = next(self._numbers)
        made = self._ray.remote(Hand).options(
            num_cpus=self._cpus, num_gpus=self._gpus, max_restarts=0
        )
        return Actor(number, made.remote(number, self._mailbox, self._prepare, self._cpus),
                     self._mailbox, self._ray)  # fmt: skip

    def wait(self, workers: Sequence[Worker], seconds: float) -> list[tuple[Worker, Event]]:
        """What they said, by letter or by the end of their jobs."""
        by_job = {cast("Actor", worker).job: worker for worker in workers}
        ready, _ = self._ray.wait([*by_job, self._letter], timeout=seconds)
        found: list[tuple[Worker, Event]] = []
        for one in ready:
            if one == self._letter:
                found += self._read(workers)
            else:
                found.append((by_job[one], cast("Actor", by_job[one]).heard()))
        return found

    def _read(self, workers: Sequence[Worker]) -> list[tuple[Worker, Event]]:
        number, message = self._ray.get(self._letter)
        self._letter = self._mailbox.next.remote()
        asked = Asked(pickle.loads(message))
        # a letter of somebody who died since then is nobody's
        return [(one, asked) for one in workers if cast("Actor", one).number == number]

    def close(self) -> None:
        """Leave the cluster, if it was joined here; what was started there ends with that."""
        if self._joined:
            self._ray.shutdown()


class Actor:
    """One worker on the cluster, and the job that it does."""

    def __init__(self, number: int, actor: Any, mailbox: Any, ray: Any) -> None:  # noqa: ANN401
        self.number = number
        self.job: Any = None
        self._actor = actor
        self._mailbox = mailbox
        self._ray = ray

    def give(self, job: bytes) -> None:
        """An actor that died meanwhile is heard of by `heard`."""
        self.job = self._actor.perform.remote(job)

    def answer(self, reply: Any) -> None:  # noqa: ANN401 - whatever the giver says
        """Through the mailbox."""
        self._mailbox.reply.remote(self.number, pickle.dumps(reply))

    def heard(self) -> Event:
        """What its job ended with."""
        try:
            return pickle.loads(self._ray.get(self.job))
        except self._ray.exceptions.RayError as cause:
            first = str(cause).strip().partition("\n")[0]
            return Died(text("its worker on the cluster ended: {reason}", reason=first))

    def end(self) -> None:
        """Kill it; an actor that is gone already is no matter."""
        self._ray.kill(self._actor)


def _join(ray: Any, address: str) -> None:  # noqa: ANN401 - Ray is typed in part
    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError) as cause:
        raise ConfigError(
            text("no Ray cluster answers at {address}", address=address),
            expected=text("auto, or HOST:PORT as `ray start --head` tells it"),
            found=str(cause).strip().partition("\n")[0],
        ) from cause


def _knock(address: str) -> None:
    """Raises OSError where nothing listens: Ray itself would try for many minutes."""
    host, sign, port = address.removeprefix("ray://").rpartition(":")
    if sign and port.isdigit():
        socket.create_connection((host, int(port)), KNOCK).close()


def _cpus_of(nodes: Sequence[dict[str, Any]]) -> list[int]:
    return [int(node["Resources"].get("CPU", 0)) for node in nodes if node["Alive"]]


def cpus_each(nodes: Sequence[int], workers: int) -> int:
    """The most CPUs that every worker can have; one worker is on one node.

    Raises:
        ConfigError: there are fewer CPUs than workers.
    """
    for each in range(max(nodes, default=0), 0, -1):
        if sum(own // each for own in nodes) >= workers:
            return each
    raise ConfigError(
        text("the cluster is too small for {workers} workers", workers=workers),
        expected=text("a CPU for each"),
        found=str(sum(nodes)),
        hint=text("a smaller --workers"),
    )
