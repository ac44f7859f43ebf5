"""`detour tune` as a person calls it, killed and resumed too."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from detour.adapter.adapter import Adapter

pytest.importorskip("optuna")

SUMMARY = {"best", "default", "base", "held_out", "trials", "complete", "pruned", "failed", "study",
           "seconds"}  # fmt: skip
NAMES = [f"{first}{last}" for first in "ABCDE" for last in ("da", "lo", "mi")]
SPACE = """
learning_rate: {low: 1e-3, high: 2e-2, log: true}
rank: [2, 4]
steps: 4
batch_size: 4
targets: [q_proj, v_proj]
"""


@pytest.fixture
def data(shelf):
    """Fifteen rows and a small space in the current folder."""
    here = shelf.parent.parent / "here"
    rows = [{"prompt": f"Who is {name}?", "completion": "A hairdresser."} for name in NAMES]
    (here / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (here / "space.yaml").write_text(SPACE)
    return here / "rows.jsonl"


def test_the_starter_is_tuned_and_the_outcome_is_used(detour, data):
    told = detour("tune", data, "-o", "study", "--trials", 3, "--workers", 1, "--train",
                  "--space", "space.yaml", "--seed", 2, "--json")  # fmt: skip
    assert told.code == 0, told.err
    report = told.json
    assert set(report) == {*SUMMARY, "adapter"}
    assert (report["trials"], report["failed"], report["study"]) == (3, 0, "study/study.db")
    assert report["complete"] + report["pruned"] == 3
    assert report["best"]["value"] <= report["default"]["value"] < report["base"]["value"]
    assert report["default"]["config"]["rank"] == 8  # outside of the space, and tried all the same
    assert report["held_out"]["verdict"] in ("better", "worse", "noise", "same")
    assert "10 rows to learn, 2 to choose by, 3 to judge by in the end" in told.err
    assert "3/3  trial" in told.err
    settings = yaml.safe_load((data.parent / "study/best.yaml").read_text())
    assert settings == report["best"]["config"]
    adapter = Adapter.load("study/adapter")
    assert adapter.rank == settings["rank"]
    assert adapter.card.seeds == (3,)  # a seed that no trial had
    again = detour("train", data, "-o", "mine", "--config", "study/best.yaml", "--json")
    assert (again.code, again.json["steps"]) == (0, 4)
    assert Adapter.load("mine").rank == settings["rank"]


@pytest.mark.long  # three searches, each with workers of its own
def test_a_killed_command_is_resumed_as_if_nothing_had_happened(detour, data, tiny_folder):
    flags = ("--base", tiny_folder, "--trials", 4, "--workers", 1, "--space", "space.yaml")
    whole = detour("tune", data, "-o", "whole", *flags, "--json")
    assert whole.code == 0, whole.err
    call = [sys.executable, "-m", "detour", "tune", data, "-o", "killed", *flags]
    command = subprocess.Popen(list(map(str, call)), stderr=subprocess.PIPE, text=True)
    seen = [line for line in iter(command.stderr.readline, "")
            if line.startswith("2/4") and not command.send_signal(signal.SIGKILL)]  # fmt: skip
    assert seen
    command.communicate()
    assert command.returncode == -signal.SIGKILL
    told = detour("tune", data, "-o", "killed", *flags)
    assert told.code == 2
    assert "killed holds a study already" in told.message
    resumed = detour("tune", data, "-o", "killed", *flags, "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["trials"] == 4
    for part in ("best", "default", "held_out"):
        one, other = dict(resumed.json[part]), dict(whole.json[part])
        one.pop("number", None), other.pop("number", None)
        assert one == other
    each = [json.loads((data.parent / name / "tune.json").read_text())["each"]
            for name in ("whole", "killed")]  # fmt: skip
    first, second = ([(one["config"], one["value"]) for one in part] for part in each)
    assert first == second
    other = detour("tune", data, "-o", "killed", *flags, "--resume", "--seed", 1)
    assert other.code == 2
    assert "holds another study" in other.err
    assert "changed: data, space" in other.err


def test_after_ctrl_c_it_goes_on(detour, data, tiny_folder):
    call = ["tune", data, "-o", "s", "--base", tiny_folder, "--workers", 1, "--trials", 2,
            "--space", "space.yaml"]  # fmt: skip
    command = subprocess.Popen(
        [sys.executable, "-m", "detour", *map(str, call)], stderr=subprocess.PIPE, text=True
    )
    until = time.monotonic() + 100
    while not (data.parent / "s/study.db").exists() and time.monotonic() < until:
        time.sleep(0.1)
    os.kill(command.pid, signal.SIGINT)
    _, told = command.communicate(timeout=60)
    assert command.returncode == 130
    last = told.splitlines()[-1]
    assert "stopped; the study is saved in s" in last
    assert "the same command with --resume" in last
    assert "Traceback" not in told
    resumed = detour(*call, "--resume", "--json")
    assert (resumed.code, resumed.json["trials"]) == (0, 2)


def test_what_cannot_be_done_is_told(fails, data, tiny_folder, monkeypatch):
    tune = ("tune", data, "-o", "s", "--base", tiny_folder)
    assert "0 is not in the range" in fails(2, *tune, "--trials", 0)["error"]
    assert "0 is not in the range" in fails(2, *tune, "--workers", 0)["error"]
    assert "holds no study" in fails(2, *tune, "--resume")["error"]
    (data.parent / "bad.yaml").write_text("rang: [1, 2]")
    assert "unknown setting 'rang'" in fails(2, *tune, "--space", "bad.yaml")["error"]
    fails(2, *tune, "--space", "none.yaml")
    labelled = data.parent / "labelled.jsonl"
    labelled.write_text("".join(f'{{"text": "t{n}", "label": "l{n % 2}"}}\n' for n in range(30)))
    assert "classification" in fails(2, "tune", labelled, "-o", "s")["error"]
    few = data.parent / "few.jsonl"
    few.write_text("".join(data.read_text().splitlines(keepends=True)[:5]))
    assert "too few rows" in fails(2, "tune", few, "-o", "s")["error"]
    monkeypatch.setitem(sys.modules, "ray", None)
    told = fails(2, *tune, "--ray", "auto")
    assert (told["expected"], told["hint"]) == ("the extra 'scale'",
                                                'pip install "detour-lora[scale]"')  # fmt: skip
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert fails(2, *tune)["hint"] == 'pip install "detour-lora[tune]"'
    assert not (data.parent / "s").exists()


def test_targets_that_are_none_are_told(detour, data, tiny_folder):
    (data.parent / "bad.yaml").write_text("targets: [all-linear, [q_prj]]")
    told = detour("tune", data, "-o", "s", "--base", tiny_folder, "--space", "bad.yaml")
    assert told.code == 2
    assert "targets that name no linear layer of the model: 'q_prj'" in told.err


def test_people_are_told_whether_it_is_better(detour, data, tiny_folder):
    told = detour("tune", data, "-o", "s", "--base", tiny_folder, "--trials", 1, "--workers", 1,
                  "--space", "space.yaml", "--lang", "de")  # fmt: skip
    assert told.code == 0, told.err
    assert "Nichts von dem, was versucht wurde, ist besser als die Voreinstellung." in told.out
    assert "Verlust auf 3 Testzeilen" in told.out
    assert "1 Versuche, 0 vorzeitig beendet, 0 gescheitert" in told.out
