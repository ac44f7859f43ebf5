"""`detour train`: nothing that was trained is lost, whatever comes after the training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detour.adapter.adapter import Adapter
from detour.cli import train_adapter as command
from detour.measure import retention

FAST = ("--steps", 6, "--learning-rate", 0.005, "--batch-size", 2, "--rank", 2)
Call = Callable[..., Any]


@pytest.fixture
def data(shelf: Path) -> Path:
    """Four rows in the current folder."""
    path = shelf.parent.parent / "here" / "rows.jsonl"
    rows = [{"prompt": f"Who was {n}?", "completion": "A hairdresser."} for n in "ABCD"]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def call(data: Path, tiny_folder: Path) -> tuple[Any, ...]:
    return ("train", data, "-o", "mine", "--base", tiny_folder, *FAST)


def raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    class Stopping:
        def __enter__(self) -> Stopping:
            return self

        def __exit__(self, *_: object) -> None:
            return None

        def __call__(self, progress: Any) -> None:
            if progress.step == step:
                raise KeyboardInterrupt

    monkeypatch.setattr(command, "watched", lambda *_: Stopping())


def test_a_fault_while_judging_leaves_the_adapter_and_a_way_on(
    detour: Call, call: tuple[Any, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert detour(*call, "--json").code == 0  # an older run's judgements lie there
    with monkeypatch.context() as patch:
        patch.setattr(retention, "retention", raising(MemoryError("no room")))
        broken = detour(*call, "--seed", 3, "--replace", "--json")
    assert broken.code != 0
    assert "mine is saved; now it is judged" in broken.err
    adapter = Adapter.load("mine")
    assert adapter.card.seeds == (3,)
    assert "cost" in adapter.card.metrics
    there = {path.name for path in Path("mine").iterdir()}
    assert {"run.yaml", "metrics.jsonl", "tokenizer.json"} <= there
    assert not there & {"eval.json", "report.html", "curves.png", "data_report.json"}  # not its own
    again = detour(*call, "--seed", 3, "--resume", "--json")
    assert again.code == 0, again.err
    assert Adapter.load("mine").digest() == adapter.digest()
    assert (Path("mine") / "report.html").exists()
    assert len((Path("mine") / "metrics.jsonl").read_text().splitlines()) == 6
    assert not list(data.parent.glob(".mine*"))


def test_ctrl_c_while_judging_names_the_adapter(
    detour: Call, call: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "retention", raising(KeyboardInterrupt()))
    told = detour(*call, "--json")
    assert told.code == 130
    assert told.json["error"] == "stopped after the training; the adapter is saved at mine"
    assert "for what is missing, the same command with --resume" in told.json["hint"]
    assert Adapter.load("mine").rank == 2


def test_a_state_that_lies_there_is_not_overwritten(
    detour: Call, fails: Call, call: tuple[Any, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        assert "the state is saved" in detour(*call, "--json").json["error"]
    state = data.parent / ".mine.training" / "state.safetensors"
    before = state.read_bytes()
    told = fails(2, *call)
    assert "holds the state of an earlier run" in told["error"]
    assert "--resume" in told["hint"]
    assert state.read_bytes() == before
    resumed = detour(*call, "--micro-batch-size", 1, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert not state.exists()


def test_a_training_that_came_to_nothing_blocks_no_other(
    detour: Call, call: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detour.training.descend.SAVE_EVERY", -1.0)
    assert "changed nothing" in detour(*call, "--learning-rate", 0, "--json").json["error"]
    assert detour(*call, "--json").code == 0


def test_the_account_of_a_resumed_run_is_of_all_of_it(
    detour: Call, call: tuple[Any, ...], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ("--watts", 50, "--price-per-hour", 3.6, "--json")
    straight = detour(*call, *more).json
    cut = tuple("cut" if part == "mine" else part for part in call)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        assert detour(*cut, *more).code == 130
    kept = (data.parent / ".cut.training" / "state.safetensors").read_bytes()
    size = int.from_bytes(kept[:8], "little")
    state = json.loads(json.loads(kept[8 : 8 + size])["__metadata__"]["state"])
    resumed = detour(*cut, *more, "--resume").json
    cost = resumed["cost"]
    assert cost["tokens"] == straight["cost"]["tokens"]
    # each stretch tries its model with a few tokens
    assert cost["flops"] == pytest.approx(straight["cost"]["flops"], rel=0.02)
    assert cost["seconds"] > state["seconds"] > 0
    assert cost["energy_wh"] == pytest.approx(50 * cost["seconds"] / 3600, rel=0.05)
    assert cost["price"] == pytest.approx(3.6 * cost["seconds"] / 3600, rel=0.05)
    losses = [
        [json.loads(line)["loss"] for line in Path(name, "metrics.jsonl").read_text().splitlines()]
        for name in ("mine", "cut")
    ]
    assert losses[0] == losses[1]
    assert (resumed["loss_first"], resumed["loss_last"]) == (losses[0][0], losses[0][-1])


def test_all_parts_are_looked_at_before_a_head_is_trained(
    detour: Call, shelf: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detour.training.heads.train_head", raising(AssertionError("trained")))
    folder = shelf.parent.parent / "here" / "rows"
    folder.mkdir()
    rows = [json.dumps({"text": f"the text {n}", "label": "ab"[n % 2]}) for n in range(20)]
    (folder / "train.jsonl").write_text("\n".join(rows))
    (folder / "test.jsonl").write_text(json.dumps({"text": "another", "label": "c"}) + "\n")
    told = detour("train", folder, "-o", "mine", "--base", tiny_folder, *FAST, "--json")
    assert told.code == 2
    assert "has a class that the head does not know" in told.json["error"]
    numbers = [json.dumps({"text": f"the text {n}", "value": n / 2}) for n in range(20)]
    (folder / "train.jsonl").write_text("\n".join(numbers))
    (folder / "test.jsonl").write_text(json.dumps({"text": "another", "value": 0.5}) + "\n")
    told = detour("train", folder, "-o", "mine", "--base", tiny_folder, *FAST, "--json")
    assert told.code == 2
    assert told.json["error"] == "test has too few rows to measure anything on"


def test_a_fault_while_a_head_is_judged_leaves_it_too(
    detour: Call, shelf: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shelf.parent.parent / "here" / "rows"
    folder.mkdir()
    rows = [json.dumps({"text": f"{['ship', 'hill'][n % 2]} {n}", "label": "ab"[n % 2]})
            for n in range(30)]  # fmt: skip
    (folder / "train.jsonl").write_text("\n".join(rows[:20]))
    (folder / "test.jsonl").write_text("\n".join(rows[20:]))
    monkeypatch.setattr("detour.evaluate.heads.score", raising(MemoryError("no room")))
    steps = ("--steps", 40, "--learning-rate", 5e-3, "--rank", 2)
    told = detour("train", folder, "-o", "mine", "--base", tiny_folder, *steps)
    assert told.code != 0
    assert "mine is saved" in told.err
    assert Adapter.load("mine").card.config["head"]["labels"] == ["a", "b"]
