"""Trackers: TensorBoard for real; the others for real where they are installed, else played."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from detour.errors import ConfigError, MissingExtra
from detour.training.descend import Progress
from detour.training.trackers.tracker import PROJECT, Tracked, Wanted, numbers

STEPS = [
    Progress(1, 2, 2.5, None, 900.0, 1.0, 0.001),
    Progress(2, 2, 1.25, 1.5, 1000.0, 0.0, 0.0005),
]
SETTINGS = {"rank": 4, "targets": ("q_proj",), "epochs": None}


def play(told: str, failed: bool = False) -> None:
    """A whole run of two steps."""
    tracked = Tracked(Wanted.of(told).begun("mine", SETTINGS))
    for step in STEPS:
        tracked.log(step)
    tracked.end({} if failed else {"best_loss": 1.5}, failed)


def points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {
        name: [(event.step, pytest.approx(event.value)) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
    }


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_tensorboard_draws_what_was_told(here):
    pytest.importorskip("tensorboard")
    play("tensorboard:shop")
    assert points(here / "runs" / "shop" / "mine") == {
        "loss": [(1, 2.5), (2, 1.25)],
        "learning_rate": [(1, 0.001), (2, 0.0005)],
        "tokens_per_second": [(1, 900.0), (2, 1000.0)],
        "validation_loss": [(2, 1.5)],
        "summary/best_loss": [(2, 1.5)],
    }
    play("tensorboard:shop")  # a second run does not draw over the first
    assert {path.name for path in (here / "runs" / "shop").iterdir()} == {"mine", "mine-2"}
    play("tensorboard")
    assert points(here / "runs" / PROJECT / "mine")["loss"] == [(1, 2.5), (2, 1.25)]


class Played:
    """A run as wandb and trackio hand it out."""

    def __init__(self, calls: list[Any]) -> None:
        self.calls = calls
        self.summary = self

    def log(self, values: Mapping[str, float], step: int) -> None:
        self.calls.append((step, values))
        print("* something for people")

    def update(self, values: Mapping[str, float]) -> None:
        self.calls.append(("summary", values))

    def finish(self, **given: int) -> None:
        self.calls.append(("finish", given))


def install(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """A module of that name that writes down how it is called."""
    calls: list[Any] = []
    module = ModuleType(name)
    played = Played(calls)
    given = {"init": lambda **given: (calls.append(given), played)[1]}
    vars(module).update({**given, "log": played.log, "finish": played.finish})
    monkeypatch.setitem(sys.modules, name, module)
    return calls


def test_wandb_is_called_as_it_wants_to_be(monkeypatch, capsys):
    calls = install(monkeypatch, "wandb")
    play("wandb:shop")
    assert calls == [
        {"project": "shop", "name": "mine", "config": SETTINGS},
        (1, numbers(STEPS[0])),
        (2, {**numbers(STEPS[1]), "validation_loss": 1.5}),
        ("summary", {"best_loss": 1.5}),
        ("finish", {"exit_code": 0}),
    ]
    play("wandb", failed=True)
    assert calls[5]["project"] == PROJECT
    assert calls[-1] == ("finish", {"exit_code": 1})
    streams = capsys.readouterr()
    assert streams.out == ""  # stdout is for the result
    assert "something for people" in streams.err


def test_trackio_is_called_as_it_wants_to_be(monkeypatch):
    calls = install(monkeypatch, "trackio")
    play("trackio:shop")
    assert calls == [
        {"project": "shop", "name": "mine", "config": SETTINGS},
        (1, numbers(STEPS[0])),
        (2, numbers(STEPS[1])),
        (2, {"summary/best_loss": 1.5}),
        ("finish", {}),
    ]
    play("trackio", failed=True)
    assert calls[-2:] == [(2, numbers(STEPS[1])), ("finish", {})]


def test_the_genuine_wandb_writes_a_run_offline(here, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(here))
    play("wandb:shop")
    (run,) = here.glob("wandb/offline-run-*/run-*.wandb")
    assert b"validation_loss" in run.read_bytes()


def test_the_genuine_trackio_writes_a_run(here):
    pytest.importorskip("trackio")
    played = "from tests.training.test_trackers import play; play('trackio:shop')"
    told = subprocess.run(  # it reads its folder when it is imported
        [sys.executable, "-c", played],
        env={**os.environ, "TRACKIO_DIR": str(here / "kept"), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == ""
    with sqlite3.connect(here / "kept" / "shop.db") as database:
        rows = database.execute("SELECT step, metrics FROM metrics ORDER BY id").fetchall()
    assert [(step, json.loads(told)["loss"]) for step, told in rows[:2]] == [(1, 2.5), (2, 1.25)]
    assert json.loads(rows[2][1]) == {"summary/best_loss": 1.5}


@pytest.mark.parametrize(
    ("kind", "install"),
    [
        ("tensorboard", 'pip install "detour-lora[track]"'),
        ("wandb", "pip install wandb"),
        ("trackio", "pip install trackio"),
    ],
)
def test_a_missing_package_is_named_with_how_to_get_it(monkeypatch, kind, install):
    monkeypatch.setitem(sys.modules, kind, None)  # as Python marks what is not there
    with pytest.raises(MissingExtra) as caught:
        Wanted.of(kind)
    assert caught.value.hint == install
    assert kind in caught.value.message


def test_an_unknown_tracker_has_a_near_one():
    with pytest.raises(ConfigError, match="there is no tracker 'tensorbord'") as caught:
        Wanted.of("tensorbord:shop")
    assert caught.value.hint == "did you mean 'tensorboard'?"
    assert caught.value.expected == "one of tensorboard, trackio, wandb"


def test_a_tracker_that_cannot_begin_is_an_error_before_training():
    def begin(project: str, run: str, settings: Mapping[str, Any]) -> Any:
        raise PermissionError("no key")

    with pytest.raises(ConfigError) as caught:
        Wanted("wandb", "shop", begin).begun("mine", SETTINGS)
    assert caught.value.found == "PermissionError: no key"


def test_a_tracker_that_fails_is_told_nothing_more():
    class Failing:
        asked = 0

        def log(self, step: int, values: Mapping[str, float]) -> None:
            self.asked += 1
            raise TimeoutError("the server is gone")

        def end(self, summary: Mapping[str, float], failed: bool) -> None:
            raise AssertionError("told after it failed")

    failing, told = Failing(), []
    tracked = Tracked(failing, told.append)
    for step in STEPS:
        tracked.log(step)
    tracked.end({}, failed=False)
    assert failing.asked == 1
    assert told == ["the tracker failed and is told nothing more: TimeoutError: the server is gone"]
