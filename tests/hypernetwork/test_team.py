"""Several processes train one hypernetwork, started as users start them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.hypernetwork.tiny_tasks import PAIRS, PHRASES, told_of, write_task

from detour.errors import ConfigError
from detour.team import ALONE, Team, assembled

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks, and settings without dropout, whose masks no two processes share."""
    place = tmp_path_factory.mktemp("team")
    for name in PHRASES:
        write_task(place / "tasks", name, told_of((name,), "train", marked=True))
    for pair, split in zip(PAIRS, ("train", "train", "validation", "test"), strict=True):
        write_task(place / "tasks", "-".join(pair), told_of(pair, split, marked=True))
    settings = {"network": {"dropout": 0.0, "spelling": 64}, "training": {"naming_steps": 30}}
    (place / "settings.yaml").write_text(json.dumps(settings))
    return place


def command_of(folder: Path, output: str, launch: tuple[str, ...]) -> list[str]:
    return [
        sys.executable, *launch, "-m", "detour", "hypernet", "train", str(folder / "tasks"),
        "-o", str(folder / output), "--steps", "5", "--batch-size", "7", "--rank", "2",
        "--config", str(folder / "settings.yaml"), "--json",
    ]  # fmt: skip


def train(
    folder: Path, output: str, *more: object, launch: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    command = [*command_of(folder, output, launch), *map(str, more)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def interrupt(folder: Path, output: str) -> None:
    """Start a long training of two processes, and send all of them Ctrl-C in its middle."""
    command = [*command_of(folder, output, LAUNCH), "--steps", "400"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("hypernetwork"):
                break
        os.killpg(process.pid, signal.SIGINT)
        told = process.stderr.read()
        process.wait(timeout=120)
    assert told.count("detour: stopped; the state is saved") == 1, told
    assert "nothing of this run is saved" not in told


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Between two networks; what reads sentences is made alike in any case."""
    return (
        sum(
            float((tensor.float() - other[name].float()).square().sum())
            for name, tensor in one.items()
            if name.startswith("network.")
        )
        ** 0.5
    )


def weights(folder: Path, output: str) -> dict[str, torch.Tensor]:
    return load_file(folder / output / "model.safetensors")


@pytest.mark.long  # tests/cli/test_train_team.py does the same for an adapter
def test_two_processes_make_what_one_makes(folder: Path) -> None:
    alone, together = train(folder, "one"), train(folder, "two", launch=LAUNCH)
    assert alone.returncode == together.returncode == 0, alone.stderr + together.stderr
    one: dict[str, Any] = json.loads(alone.stdout)
    two: dict[str, Any] = json.loads(together.stdout)  # one object: only the first process speaks
    assert (one["processes"], two["processes"]) == (1, 2)
    assert two["best_loss"] == pytest.approx(one["best_loss"], rel=1e-4)
    assert two["best_step"] == one["best_step"]
    apart = distance(weights(folder, "one"), weights(folder, "two"))
    # the same length of training on other rows: what gradients that are not summed would end like
    other = train(folder, "other", "--batch-size", 4)
    assert other.returncode == 0, other.stderr
    assert apart < 0.2 * distance(weights(folder, "one"), weights(folder, "other"))


@pytest.mark.long  # tests/cli/test_train_team.py does the same for an adapter
def test_a_team_goes_on_where_it_was_interrupted(folder: Path) -> None:
    interrupt(folder, "stopped")
    assert (folder / ".stopped.training").is_dir()
    again = train(folder, "stopped", "--steps", 400, "--resume", launch=LAUNCH)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["processes"] == 2
    assert not (folder / ".stopped.training").exists()


def test_reconstruction_and_too_many_processes_are_refused(folder: Path) -> None:
    recon = train(folder, "three", "--by", "recon", "--oracle-steps", 2, launch=LAUNCH)
    assert recon.returncode != 0
    assert "reconstruction runs in one process" in recon.stderr
    few = train(folder, "four", "--batch-size", 1, launch=LAUNCH)
    assert few.returncode != 0
    assert "more processes than rows in a step" in few.stderr
    assert not (folder / "three").exists()
    assert not (folder / "four").exists()


def test_alone_nothing_is_exchanged() -> None:
    value = torch.tensor([1.5])
    ALONE.sum([value])
    ALONE.align([value])
    assert value.tolist() == [1.5]
    assert ALONE.total(2.5, value.device) == 2.5
    assert ALONE.from_leader(lambda: "made") == "made"
    assert ALONE.leads
    assert not ALONE.any(False, value.device)
    ALONE.check_alone("it")


def test_shares_are_disjoint_and_whole() -> None:
    shares = [Team(rank, 3).share(8) for rank in range(3)]
    assert sorted(place for share in shares for place in share) == list(range(8))
    assert not Team(1, 3).leads
    with pytest.raises(ConfigError, match="more processes than rows") as refused:
        Team(0, 3).share(2)
    assert refused.value.found == "2"


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with assembled() as team:
        assert team is ALONE
    for size in ("many", "0", "-2", "2"):  # the last one without anywhere to meet
        monkeypatch.setenv("WORLD_SIZE", size)
        monkeypatch.delenv("MASTER_ADDR", raising=False)
        with pytest.raises(ConfigError, match="WORLD_SIZE"), assembled():
            pass
