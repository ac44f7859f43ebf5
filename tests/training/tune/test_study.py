"""The study: the default first, pruning, kills and resuming; nothing is trained here."""

import math
import sqlite3

import pytest

from detour.errors import ConfigError, DataError
from detour.training.tune.space import Choice, Range, Space
from detour.training.tune.study import STUDY_FILE, open_study

pytest.importorskip("optuna")

SPACE = Space(
    {"learning_rate": Range(1e-4, 1e-2, log=True), "rank": Choice((2, 4, 8)),
     "steps": Range(10, 40, whole=True)},
    {"seed": 5},
)  # fmt: skip
DEFAULT = {"learning_rate": 0.001, "rank": 8, "steps": 20, "alpha": 16.0, "seed": 5}
IDENTITY = {"base": "a", "data": "b", "space": "c"}


@pytest.fixture
def opened(tmp_path):
    def call(resume=False, space=SPACE, **changes):
        return open_study(tmp_path / "s", space, 0, {**IDENTITY, **changes}, resume)

    return call


def loss(config) -> float:
    """Best at a rate of 0.003 and a high rank."""
    return 1 + abs(math.log(config["learning_rate"] / 0.003)) + 1 / config["rank"]


def some(study, count):
    for _ in range(count):
        number, config = study.ask(DEFAULT)
        study.completed(number, loss(config), 1.0)


def test_the_default_comes_first_and_the_rest_lies_in_the_space(opened):
    with opened() as study:
        some(study, 15)
        first, *others = study.finished
    assert (first.config, first.is_default) == (DEFAULT, True)
    assert first.params == {"learning_rate": 0.001, "rank": 8, "steps": 20}
    for other in others:
        assert not other.is_default
        assert {n: other.config[n] for n in other.params} == other.params
        assert all(SPACE.searched[name].holds(value) for name, value in other.params.items())
        assert other.config["seed"] == 5
    assert len({other.config["learning_rate"] for other in others}) == 14


def test_a_default_outside_of_the_space_is_tried_all_the_same(opened):
    space = Space({**SPACE.searched, "rank": Choice((2, 4))})
    with opened(space=space) as study:
        some(study, 12)
        first, *others = study.finished
    assert first.config["rank"] == 8
    assert set(first.params) == {"learning_rate", "steps"}
    assert {other.config["rank"] for other in others} == {2, 4}


def test_it_finds_what_is_better_than_chance(opened):
    with opened() as study:
        some(study, 25)
        losses = [trial.value for trial in study.finished]
        assert study.importances()["learning_rate"] == max(study.importances().values())
    assert sum(losses[-10:]) / 10 < sum(losses[1:10]) / 9
    assert sum(study.importances().values()) == pytest.approx(1)


def test_what_was_killed_is_tried_again_and_the_rest_is_as_without_a_kill(opened, tmp_path):
    with open_study(tmp_path / "whole", SPACE, 0, IDENTITY, False) as study:
        some(study, 14)
        whole = [(trial.config, trial.value) for trial in study.finished]
    with opened() as study:
        study.ask(DEFAULT)  # and no more: as after SIGKILL
    with opened(resume=True) as study:
        some(study, 11)
        study.ask(DEFAULT)
    with opened(resume=True) as study:
        some(study, 3)
        finished = study.finished
    assert [(trial.config, trial.value) for trial in finished] == whole
    assert [trial.is_default for trial in finished] == [True] + [False] * 13


def test_trials_that_do_badly_end_early_but_never_the_default(opened):
    with opened() as study:
        for _ in range(6):
            number, _ = study.ask(DEFAULT)
            assert [study.go_on(number, step, 3.0 - step) for step in (1, 2)] == [True, True]
            study.completed(number, 1.0, 1.0)
        number, _ = study.ask(DEFAULT)
        assert study.go_on(number, 1, 9.0)  # the first validation decides nothing
        assert not study.go_on(number, 2, 9.0)
        assert not study.go_on(number, 2, 0.0)  # a job done again says the same; the first counts
        study.pruned(number, 1.0)
        (pruned,) = (one for one in study.finished if one.state == "pruned")
        assert (pruned.number, pruned.value) == (6, 9.0)


def test_failures_and_losses_that_are_none(opened):
    with opened() as study:
        for told in ("out of memory", None):
            number, _ = study.ask(DEFAULT)
            if told:
                study.failed(number, told)
            else:
                study.completed(number, math.nan, 1.0)
        states = [(one.state, one.value, one.reason) for one in study.finished]
    assert states == [("failed", None, "out of memory"), ("failed", None, "validation loss nan")]


def test_one_study_a_folder(opened, tmp_path):
    with pytest.raises(ConfigError, match="holds no study"), opened(resume=True):
        pass
    another = pytest.raises(ConfigError, match="another process works")
    with opened(), another, opened(resume=True):
        pass
    with pytest.raises(ConfigError, match=r"holds a study already.*--resume"), opened():
        pass
    with pytest.raises(ConfigError, match="changed: data"), opened(resume=True, data="x"):
        pass


def test_a_damaged_file_is_told(opened, tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / STUDY_FILE).write_bytes(b"nonsense" * 100)
    with pytest.raises(DataError, match=r"study\.db is damaged"), opened(resume=True):
        pass
    (tmp_path / "s" / STUDY_FILE).unlink()
    with sqlite3.connect(tmp_path / "s" / STUDY_FILE) as other:
        other.execute("CREATE TABLE studies (name TEXT)")
    other.close()
    with pytest.raises(DataError, match=r"study\.db is damaged"), opened(resume=True):
        pass
