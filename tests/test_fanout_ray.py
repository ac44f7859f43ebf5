"""Jobs on a real Ray cluster of two nodes with a CPU each, both on this machine."""

import os
import signal
from collections.abc import Iterator

import pytest
from tests import fanout_jobs as jobs

from detour.errors import ConfigError, DataError
from detour.fanout.jobs import Fanout

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default::ResourceWarning")  # Ray's own sockets and files


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    cluster.add_node(num_cpus=1)
    yield cluster.address
    cluster.shutdown()


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


def test_an_address_where_nothing_is():
    with pytest.raises(ConfigError, match="no Ray cluster answers at"):
        Fanout.on_cluster("127.0.0.1:9")
