"""Jobs in processes: results, answers, deaths, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import pytest
from tests import fanout_jobs as jobs

from detour.errors import ConfigError, DataError, MachineError
from detour.fanout.cluster import cpus_each
from detour.fanout.events import threads_each
from detour.fanout.jobs import Fanout


def is_alive(pid: int) -> bool:
    """Whether it runs; what is dead and only not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(is_so, seconds: float = 30.0) -> bool:
    until = time.monotonic() + seconds
    while not is_so() and time.monotonic() < until:
        time.sleep(0.05)
    return is_so()


def test_every_job_is_done_once():
    with Fanout.here(workers=2) as fanout:
        done = list(fanout.run(jobs.square, range(7)))
        assert {one.argument: one.value for one in done} == {n: n * n for n in range(7)}
        assert {(one.attempts, one.error) for one in done} == {(1, None)}
        assert list(fanout.run(jobs.square, [])) == []


def test_arguments_are_taken_when_a_worker_is_free():
    taken, finished = [], []

    def arguments():
        for number in range(5):
            assert len(taken) - len(finished) < 2
            taken.append(number)
            yield number

    with Fanout.here(workers=2) as fanout:
        for done in fanout.run(jobs.square, arguments()):
            finished.append(done.argument)
    assert sorted(finished) == taken == [0, 1, 2, 3, 4]


def test_a_worker_prepares_itself_once_and_is_kept():
    with Fanout.here(jobs.prepared, workers=1) as fanout:
        told = [one.value for _ in range(2) for one in fanout.run(jobs.who, range(3))]
    assert len(set(told)) == 1
    assert told[0][0] == told[0][1] != os.getpid()
    assert eventually(lambda: not is_alive(told[0][1]))


def test_jobs_ask_and_go_on_with_the_answer():
    heard = []

    def answer(argument, message):
        heard.append((argument, message))
        return message * 10

    with Fanout.here(workers=2) as fanout:
        done = {one.argument: one.value for one in fanout.run(jobs.asks, [1, 5], answer=answer)}
    assert done == {1: 30, 5: 110}
    assert sorted(heard) == [(1, 1), (1, 2), (5, 5), (5, 6)]


def test_what_a_job_raises_comes_back_and_is_not_tried_again():
    with Fanout.here(workers=1) as fanout:
        first, second, third = fanout.run(jobs.raises, [0, 1, 0])
    assert isinstance(first.error, DataError)
    assert (first.error.message, first.error.hint, first.attempts) == ("bad row", "look", 1)
    assert isinstance(second.error, MachineError)
    assert "Foreign: 1 two arguments" in str(second.error)
    assert "in raises" in second.error.__notes__[0]
    assert isinstance(third.error, DataError)  # the worker lives on


def test_a_killed_worker_does_not_lose_its_job(tmp_path):
    lost = []
    with Fanout.here(workers=2) as fanout:
        work = [(str(tmp_path), 0), (str(tmp_path), 1), (str(tmp_path), 2)]
        done = fanout.run(jobs.dies, work, lost=lambda *told: lost.append(told))
        assert {one.argument[1]: (one.value, one.attempts) for one in done} == {
            0: (0, 1), 1: (1, 2), 2: (2, 3),
        }  # fmt: skip
    assert sorted(argument[1] for argument, _ in lost) == [1, 2, 2]
    assert {"SIGKILL" in reason for _, reason in lost} == {True}


def test_a_job_that_kills_every_worker_fails_with_its_reason(tmp_path):
    with Fanout.here(workers=1, attempts=2) as fanout:
        worn, fine = fanout.run(jobs.dies, [(str(tmp_path), 99), (str(tmp_path), 0)])
        assert (worn.attempts, worn.value, fine.value) == (2, None, 0)
        assert "given out 2 times" in str(worn.error)
        assert "SIGKILL" in str(worn.error)
        (left,) = fanout.run(jobs.leaves, [7])
    assert "exit code 7" in str(left.error)


def test_an_idle_worker_that_is_killed_is_replaced():
    with Fanout.here(jobs.prepared, workers=1) as fanout:
        (first,) = fanout.run(jobs.who, [0])
        os.kill(first.value[1], signal.SIGKILL)
        assert eventually(lambda: not is_alive(first.value[1]))
        (second,) = fanout.run(jobs.who, [0])
    assert second.value[1] != first.value[1]


def test_a_worker_that_cannot_prepare_ends_the_run():
    with Fanout.here(jobs.unprepared, workers=2) as fanout, pytest.raises(DataError, match="model"):
        list(fanout.run(jobs.square, range(3)))


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    with Fanout.here(workers=1) as fanout:
        (done,) = fanout.run(jobs.threads, [None])
    assert done.value == (threads_each(1), str(threads_each(1)))
    cores = len(os.sched_getaffinity(0))
    assert [threads_each(n) for n in (1, cores, 5 * cores)] == [cores, 1, 1]
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_each(1) == 1


def test_what_a_job_prints_stays_off_stdout(capfd):
    with Fanout.here(workers=1) as fanout:
        list(fanout.run(jobs.prints, ["noise"]))
    told = capfd.readouterr()
    assert told.out == ""
    assert "noise" in told.err


def test_leaving_early_ends_the_workers(tmp_path):
    with Fanout.here(workers=2) as fanout:
        run = fanout.run(jobs.sleeps, [str(tmp_path)] * 2)
        both = lambda: len(list(tmp_path.glob("*.pid"))) == 2  # noqa: E731
        watcher = Thread(target=lambda: eventually(both) and os.kill(os.getpid(), signal.SIGINT))
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            next(run)
        watcher.join()
    began = [int(path.stem) for path in tmp_path.glob("*.pid")]
    assert eventually(lambda: not any(map(is_alive, began)))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


PROGRAM = """
import sys
from detour.fanout.jobs import Fanout
from tests import fanout_jobs as jobs

if __name__ == "__main__":
    with Fanout.here(workers=2) as fanout:
        list(fanout.run(jobs.sleeps, [sys.argv[1]] * 2))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_parent_that_ends_leaves_nothing_running(tmp_path, number):
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    program = subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path],
        env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert eventually(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
    began = [int(path.stem) for path in tmp_path.glob("*.pid")]
    program.send_signal(number)
    program.communicate(timeout=30)
    assert program.returncode != 0
    assert eventually(lambda: not any(map(is_alive, began)))


@pytest.mark.parametrize(
    ("nodes", "workers", "each"),
    [([1, 1], 2, 1), ([8, 8, 8, 8], 4, 8), ([8, 8, 8, 8], 5, 4), ([0, 16], 2, 8), ([3, 5], 3, 2)],
)
def test_cpus_are_shared_out_over_nodes(nodes, workers, each):
    assert cpus_each(nodes, workers) == each


def test_a_cluster_may_be_too_small():
    with pytest.raises(ConfigError, match=r"too small for 3 workers.*--workers"):
        cpus_each([1, 1], 3)
