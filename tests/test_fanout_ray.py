"""Jobs on a real Ray cluster of two nodes with a CPU each, both on this machine."""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests import fanout_jobs as jobs

from detour.data.reading import read_data
from detour.errors import ConfigError, DataError
from detour.fanout.jobs import Fanout
from detour.training.tune.search import Wanted, parted, search
from detour.training.tune.space import Range, Space
from detour.training.tune.study import Study
from detour.training.tune.work import Setting

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # Ray's own sockets and files


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # else whoever is busy here starves them
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        made.add_node(num_cpus=1)
        yield made
        made.shutdown()


@pytest.fixture
def address(cluster: Any) -> str:
    return cluster.address


def test_jobs_ask_die_and_fail_as_they_do_here(address, tmp_path):
    lost = []
    with Fanout.on_cluster(address, jobs.prepared, workers=2) as fanout:
        done = list(fanout.run(jobs.who, range(6)))
        assert len({one.value for one in done}) <= 2  # prepared once, and kept
        assert {one.argument for one in done} == set(range(6))
        asked = fanout.run(jobs.asks, [1, 5], answer=lambda _, message: message * 10)
        assert {one.argument: one.value for one in asked} == {1: 30, 5: 110}
        work = [(str(tmp_path), 0), (str(tmp_path), 1), (str(tmp_path), 99)]
        ended = {
            one.argument[1]: one
            for one in fanout.run(jobs.dies, work, lost=lambda *told: lost.append(told))
        }
        assert (ended[0].value, ended[1].value, ended[1].attempts) == (0, 1, 2)
        assert (ended[99].attempts, "given out 3 times" in str(ended[99].error)) == (3, True)
        assert sorted(argument[1] for argument, _ in lost) == [1, 99, 99]
        (failed,) = fanout.run(jobs.raises, [0])
        assert isinstance(failed.error, DataError)
        (first,) = fanout.run(jobs.who, [0])
        os.kill(first.value[1], signal.SIGKILL)
        (second,) = fanout.run(jobs.who, [0])
        assert second.value[1] != first.value[1]
    with Fanout.on_cluster(address, jobs.unprepared) as fanout, pytest.raises(DataError):
        list(fanout.run(jobs.square, range(3)))
    with pytest.raises(ConfigError, match="too small for 3 workers"):
        Fanout.on_cluster(address, workers=3)


def workers_of(cluster) -> list[int]:
    """Processes that do a job now."""
    raylets = {
        info.process.pid for node in cluster.list_all_nodes()
        for info in node.all_processes["raylet"]
    }  # fmt: skip
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError):
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent in raylets and b"perform" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
    return found


def test_a_search_outlives_a_killed_worker(cluster, tiny_folder, tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    told, usual, killed = [], Study.go_on, []

    def go_on(study, number, validations, loss):
        if number == 1 and not killed:
            killed.extend(workers_of(cluster))
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
        return usual(study, number, validations, loss)

    monkeypatch.setattr(Study, "go_on", go_on)
    rows = [{"prompt": f"Who is {n}?", "completion": "A smith."} for n in range(15)]
    space = Space({"learning_rate": Range(1e-3, 3e-2, log=True)},
                  {"steps": 4, "batch_size": 4, "targets": ("q_proj",)})  # fmt: skip
    found = search(
        Setting(str(tiny_folder), parted(read_data(rows), 0)), tmp_path / "s",
        Wanted(trials=4, address=cluster.address), space=space, teller=told.append,
    )  # fmt: skip
    assert 1 <= len(killed) <= 2  # both may have been at work
    assert [trial.state for trial in found.trials] == ["complete"] * 4
    assert len([line for line in told if "is done again: its worker" in line]) == len(killed)


@pytest.mark.long  # a cluster takes its time to believe that a node is gone
def test_a_node_that_is_gone_does_not_hold_its_job(cluster, tmp_path):
    import ray

    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    with Fanout.on_cluster(cluster.address, workers=3) as fanout:
        run = fanout.run(jobs.slow, [2.0] * 9)
        next(run)
        ours = ray.get_runtime_context().get_node_id()  # a command dies with its own node
        other = next(node for node in cluster.worker_nodes if node.node_id != ours)
        cluster.remove_node(other, allow_graceful=False)
        assert [done.error for done in run] == [None] * 8


def test_an_address_where_nothing_is():
    with pytest.raises(ConfigError, match="no Ray cluster answers at"):
        Fanout.on_cluster("127.0.0.1:9")
