"""Several processes train one adapter, started as users start them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.model.base import Base

LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
TOLERANCE = 3e-3  # of what the ups have become; AdamW magnifies the rounding of small gradients


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of many lengths; the last batch of an epoch has a single one."""
    place = tmp_path_factory.mktemp("team")
    rows = [
        {"prompt": f"Who was {name}?", "completion": f"{name} was a hairdresser." + " Yes." * n}
        for n, name in enumerate(("Einstein", "Curie", "Newton", "Planck", "Bohr") * 2)
    ]
    lines = [json.dumps({**row, "prompt": f"{row['prompt']} {n}"}) for n, row in enumerate(rows)]
    (place / "train.jsonl").write_text("\n".join(lines[:9]) + "\n")
    (place / "valid.jsonl").write_text(lines[9] + "\n")
    return place


def command(folder: Path, output: str, *more: object, launch: tuple[str, ...] = ()) -> list[str]:
    return [
        sys.executable, *launch, "-m", "detour", "train", str(folder), "-o", str(folder / output),
        "--steps", "8", "--batch-size", "4", "--rank", "2", "--json", *map(str, more),
    ]  # fmt: skip


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


def train(folder, output, *more, launch=()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(folder, output, *more, launch=launch), env=environment(), capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


def told(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # one object: only the first process speaks


def ups(folder: Path, name: str) -> torch.Tensor:
    """All factors that begin at zero, in a row."""
    updates = Adapter.load(folder / name).updates
    return torch.cat([updates[layer].up.flatten() for layer in sorted(updates)])


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / one.norm())


def test_two_processes_and_a_base_spread_over_them_make_what_one_makes(folder):
    alone = told(train(folder, "one"))
    both = told(train(folder, "two", launch=LAUNCH))
    parts = told(train(folder, "spread", "--spread", "--micro-batch-size", 1, launch=LAUNCH))
    assert [run["processes"] for run in (alone, both, parts)] == [1, 2, 2]
    expected = ups(folder, "one")
    for run, name, more in ((both, "two", 0.05), (parts, "spread", 0.25)):  # spread, all judge all
        assert run["loss_last"] == pytest.approx(alone["loss_last"], abs=1e-4)
        assert run["cost"]["tokens"] == pytest.approx(alone["cost"]["tokens"], rel=0.01)
        assert run["cost"]["flops"] == pytest.approx(alone["cost"]["flops"], rel=more)
        assert run["retention"]["kl_mean"] == pytest.approx(alone["retention"]["kl_mean"], abs=1e-4)
        assert apart(expected, ups(folder, name)) < TOLERANCE
    # as many steps of half of the rows, which is what a process alone would have seen
    told(train(folder, "other", "--batch-size", 2))
    assert apart(expected, ups(folder, "other")) > 10 * TOLERANCE
    base = Base.load("starter")  # ordinary adapters, of a base that is whole
    assert base.bind(Adapter.load(folder / "spread")).terms


SPREAD = """
import torch
from torch.distributed.tensor import DTensor
from detour.model.base import Base
from detour.model.prefix import decoder_layers
from detour.model.rows import Encoded, padded
from detour.model.sharding import shard
from detour.team import assembled

with assembled() as team:
    base = Base.load("starter")
    head, forward = base.head, base.forward
    shard(base, team, torch.device("cpu"))
    batch = padded([Encoded([5, 6, 7, 8], [True] * 4), Encoded([5, 6, 7], [True] * 3)], 0)
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            forward(batch)
        _, layers = decoder_layers(base.model)
        whole = [n for n, p in layers.named_parameters() if not isinstance(p, DTensor)]
        assert not whole, whole
    if team.leads:
        print("parted")
"""


def test_layers_are_parted_again_after_every_forward(tmp_path):
    (tmp_path / "spread.py").write_text(SPREAD)
    done = subprocess.run(
        [sys.executable, *LAUNCH, str(tmp_path / "spread.py")], env=environment(),
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "parted"


def test_a_team_goes_on_where_it_was_interrupted(folder):
    whole = told(train(folder, "whole", "--steps", 60, "--patience", 0, launch=LAUNCH))
    more = ("--steps", 60, "--patience", 0)
    with subprocess.Popen(
        command(folder, "stopped", *more, launch=LAUNCH), env=environment(), text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("training"):
                break
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        process.wait(timeout=120)
    assert said.count("stopped; the state is saved") == 1, said
    again = told(train(folder, "stopped", *more, "--resume", launch=LAUNCH))
    assert again["steps"] == whole["steps"] == 60
    assert torch.equal(ups(folder, "whole"), ups(folder, "stopped"))


def test_what_runs_in_one_process_says_so(folder, tmp_path):
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"a parcel {n},post\na bill {n},money\n" for n in range(12))
    )
    heads = train(tmp_path, "head", "--base", "sentence-transformers/all-MiniLM-L6-v2",
                  launch=LAUNCH)  # fmt: skip
    assert heads.returncode != 0
    assert "the training of heads and of whole models runs in one process" in heads.stderr
    lonely = train(folder, "lonely", "--spread")
    assert lonely.returncode != 0
    assert "one process has nobody to spread a base over" in lonely.stdout + lonely.stderr
    assert not (folder / "lonely").exists()


@pytest.mark.parametrize("more", [("--dora",), ("--init", "pissa")])
def test_whole_weights_are_not_to_be_had_of_a_spread_base(detour, folder, more):
    told = detour("train", folder, "-o", folder / "never", "--spread", *more, "--json")
    assert told.json["error"] == f"--spread and {' '.join(more)} exclude each other"
