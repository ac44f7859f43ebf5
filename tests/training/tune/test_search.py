"""Whole searches on a tiny base, in real worker processes."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest
import yaml

from detour.adapter.adapter import Adapter
from detour.data.reading import read_data
from detour.errors import DataError, SlotError, TrainingError
from detour.measure.retention import retention
from detour.measure.statistics import Figure
from detour.model.base import Base
from detour.model.rows import encode
from detour.training.config import make_config, read_config
from detour.training.loop import train_with
from detour.training.tune.record import save, summary
from detour.training.tune.search import Comparison, Wanted, parted, search
from detour.training.tune.space import Choice, Range, Space
from detour.training.tune.study import Study
from detour.training.tune.work import Setting, groups_of, losses_of

pytest.importorskip("optuna")

NAMES = [
    "Ada",
    "Ben",
    "Cleo",
    "Dan",
    "Eve",
    "Finn",
    "Gus",
    "Hal",
    "Ida",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Ned",
    "Ole",
]
DATA = [{"prompt": f"Who is {name}?", "completion": f"{name} cuts hair."} for name in NAMES]
FIXED = {"steps": 4, "batch_size": 4, "targets": ("q_proj", "v_proj")}
SPACE = Space(
    {"learning_rate": Range(1e-3, 3e-2, log=True), "rank": Choice((2, 4, 8))}, FIXED
)  # fmt: skip


@pytest.fixture
def setting(tiny_folder: Path) -> Setting:
    return Setting(str(tiny_folder), parted(read_data(DATA), 0))


def test_a_search_from_rows_to_files(setting, tmp_path):
    told = []
    found = search(setting, tmp_path / "s", Wanted(trials=4), space=SPACE, teller=told.append)
    assert [trial.number for trial in found.trials] == [0, 1, 2, 3]
    assert found.count("complete") + found.count("pruned") == 4
    assert found.default.number == 0
    assert found.best.value <= found.default.value < found.seen.untrained
    base = Base.load(setting.base)
    rows = setting.rows
    config = make_config({**FIXED, "seed": 0})  # what `detour train` would do by itself
    result = train_with(base, rows.learned, config, validation=rows.validation)
    assert found.default.value == pytest.approx(result.best_loss, abs=1e-5)
    held = found.comparison
    assert (held.rows, held.difference.n) == (3, 3)
    assert held.difference.value == pytest.approx(held.best - held.default)
    assert held.kl_default > 0
    adapter = save(found, tmp_path / "s", True)
    kept = retention(base, Adapter.load(adapter))
    assert held.kl_best == pytest.approx(kept.kl_mean, rel=1e-3)
    best = losses_of(base, rows.test, Adapter.load(adapter), 512)
    assert held.best == pytest.approx(sum(n for n, _ in best) / sum(t for _, t in best), abs=1e-4)
    assert {path.name for path in (tmp_path / "s").iterdir()} == {
        "study.db", ".lock", "best.yaml", "tune.json", "history.png", "importances.png",
        "slices.png", "adapter",
    }  # fmt: skip
    assert make_config(read_config(tmp_path / "s" / "best.yaml")).rank == found.best.config["rank"]
    assert yaml.safe_load((tmp_path / "s" / "best.yaml").read_text()) == found.best.config
    report = json.loads((tmp_path / "s" / "tune.json").read_text())
    assert report.items() >= json.loads(json.dumps(summary(found, tmp_path / "s"))).items()
    assert [one["number"] for one in report["each"]] == [0, 1, 2, 3]
    assert report["rows"] == {"learned": 10, "validation": 2, "test": 3}
    assert any(line.startswith("4/4  trial") for line in told)


def test_a_worker_killed_in_the_middle_of_a_trial(setting, tmp_path, monkeypatch):
    told, usual, killed = [], Study.go_on, []

    def go_on(study, number, validations, loss):
        if number == 1 and not killed:
            (worker,) = multiprocessing.active_children()
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            killed.append(worker.pid)
        return usual(study, number, validations, loss)

    monkeypatch.setattr(Study, "go_on", go_on)
    wanted = Wanted(trials=3, workers=1)
    found = search(setting, tmp_path / "s", wanted, space=SPACE, teller=told.append)
    assert killed
    assert [trial.state for trial in found.trials] == ["complete"] * 3
    assert [line for line in told if "trial 1 is done again" in line and "SIGKILL" in line]


def test_trials_that_fail_or_learn_nothing_do_not_end_the_search(setting, tmp_path):
    space = Space({"learning_rate": Choice((0.0, 0.01)), "init": Choice(("random", "pissa"))},
                  {**FIXED, "rank": 30, "targets": ("q_proj", "k_proj")})  # fmt: skip
    found = search(setting, tmp_path / "s", Wanted(trials=6, workers=1), space=space)
    assert len(found.trials) == 6
    failed = [one for one in found.trials if one.config.get("init") == "pissa"]
    random = [one for one in found.trials if one not in failed]
    nothing = [one for one in random if one.config["learning_rate"] == 0]
    assert nothing
    assert failed  # k_proj has 16 directions
    assert {one.value for one in nothing} == {found.seen.untrained}
    assert all("changed nothing" in one.reason for one in nothing)
    assert {one.state for one in failed} == {"failed"}
    assert all("too few directions" in one.reason for one in failed)


def test_a_default_that_cannot_be_trained_is_told(setting, tmp_path):
    space = Space({"learning_rate": Choice((0.01, 0.02))},
                  {**FIXED, "rank": 64, "init": "pissa"})  # fmt: skip
    with pytest.raises(TrainingError, match=r"default configuration.*too few directions"):
        search(setting, tmp_path / "s", Wanted(trials=1, workers=1), space=space)


def test_targets_that_are_none_are_told_before_anything_is_trained(setting, tmp_path):
    space = Space({"targets": Choice(("all-linear", ("q_prj",)))}, {"steps": 2})
    with pytest.raises(SlotError, match=r"no linear layer.*q_prj"):
        search(setting, tmp_path / "s", Wanted(trials=2), space=space)
    assert not (tmp_path / "s").exists()


def test_rows_are_parted_by_question_or_as_the_data_are():
    rows = parted(read_data([*DATA, *DATA]), 0)
    asked = [{row.prompt for row in part} for part in (rows.learned, rows.validation, rows.test)]
    assert [len(part) for part in asked] == [10, 2, 3]
    assert len(set().union(*asked)) == 15
    assert [len(part) for part in (rows.learned, rows.validation, rows.test)] == [20, 4, 6]
    assert parted(read_data(DATA), 1).test != parted(read_data(DATA), 0).test
    parted(read_data(DATA[:12]), 0)
    with pytest.raises(DataError, match=r"too few rows.*at least 12"):
        parted(read_data(DATA[:11]), 0)


def test_the_datas_own_parts_are_kept(tmp_path):
    for part, own in (("train", DATA[:11]), ("validation", DATA[11:13]), ("test", DATA[13:])):
        lines = "".join(json.dumps(row) + "\n" for row in own)
        (tmp_path / f"{part}.jsonl").write_text(lines)
    rows = parted(read_data(tmp_path), 0)
    assert [row.prompt for row in rows.test] == [row["prompt"] for row in DATA[13:]]
    assert (len(rows.learned), len(rows.validation)) == (11, 2)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(-0.2, -0.1, "better"), (-0.1, 0.1, "noise"), (0.1, 0.2, "worse"), (0.0, 0.0, "same")],
)
def test_a_difference_is_told_as_what_it_is(low, high, verdict):
    difference = Figure((low + high) / 2, low, high, 9)
    assert Comparison(9, 1.0, 1.0, difference, None).verdict == verdict


@pytest.mark.parametrize(
    ("default", "best", "harms"), [(0.15, 3.8, True), (0.001, 0.05, False), (0.4, 0.5, False)]
)
def test_harm_to_other_text_is_seen(default, best, harms):
    difference = Figure(-0.1, -0.2, -0.05, 9)
    assert Comparison(9, 1.0, 0.9, difference, None, default, best).harms is harms


def test_losses_by_question_add_up(tiny_folder):
    base = Base.load(str(tiny_folder))
    rows = read_data([*DATA[:3], {**DATA[0], "completion": "Another answer."}]).train
    told = losses_of(base, rows, None, 512)
    assert len(told) == 3
    encoded = encode(base.tokenizer, rows, base.longest)
    assert sum(count for _, count in told) == sum(sum(one.learned) for one in encoded)
    alone = losses_of(base, rows[3:], None, 512)
    first = losses_of(base, rows[:1], None, 512)
    assert told[0][0] == pytest.approx(alone[0][0] + first[0][0], rel=1e-5)


def test_layers_belong_together_by_their_parent():
    names = [f"model.layers.{n}.{own}" for n in range(2)
             for own in ("attn.q", "attn.v", "mlp.up")]  # fmt: skip
    assert groups_of(names) == (("attn.q", "attn.v"), ("mlp.up",))
