"""The command around the story; the story itself is told in tests/evaluate/test_starter_story."""

from dataclasses import dataclass, field
from functools import partial

import pytest

from detour.cli import demo as command
from detour.errors import WrongBase
from detour.evaluate.story import Scene


@dataclass
class Report:
    """What the command needs of a report."""

    adapter: str
    total_seconds: float = 61.0

    def to_json(self):
        return {"adapter": self.adapter, "notes": [], "latent": {"warning": ""}}


@dataclass
class ShortStory:
    """Two scenes, told at once."""

    base: object
    world: object
    folder: object
    seed: int = 0
    t: object = None
    report: object = None
    train_seconds: float = 20.0
    made: list = field(default_factory=list)

    def scenes(self, watcher):
        yield Scene("1  Before", "a physicist")
        adapter = str(self.folder / "einstein-hairdresser")
        self.report = Report(adapter)
        yield Scene("2  After", f"a hairdresser, seed {self.seed}")

    def to_json(self):
        return {"adapter": self.report.adapter, "chain": {"spec": "formal+pun"}}


@pytest.fixture
def stage(shelf, monkeypatch):
    monkeypatch.setattr("detour.evaluate.story.Story", ShortStory)
    monkeypatch.setattr("detour.model.base.Base.load", lambda name: name)
    monkeypatch.setattr(command, "write_report", lambda report, folder, fictional, t: folder / "r")
    return shelf


def test_the_scenes_are_told_in_order(detour, stage):
    told = detour("demo", "--seed", 4)
    assert told.code == 0
    places = [told.out.index(t) for t in ("1 Before", "a physicist", "2 After", "seed 4",
                                          "12 Now with your own")]  # fmt: skip
    assert places == sorted(places)
    assert "--chain einstein-hairdresser" in told.out
    assert "61 s, of which 20 s of training" in told.out
    assert "frozen" in told.err


def test_the_adapter_goes_to_the_library_or_where_one_says(detour, stage, tmp_path):
    assert detour("demo", "--json").json["adapter"] == str(stage / "einstein-hairdresser")
    told = detour("demo", "-o", tmp_path / "mine", "--json").json
    assert told["adapter"] == str(tmp_path / "mine" / "einstein-hairdresser")
    assert told["report"] == f"{told['adapter']}/r"


def test_json_is_one_object_and_nothing_else(detour, stage):
    told = detour("demo", "--json")
    assert set(told.json) == {"adapter", "chain", "report", "notes", "latent"}


def test_the_demo_speaks_german(detour, stage, monkeypatch):
    told = detour("demo", "--lang", "de")
    assert "12 Jetzt mit deinen eigenen Daten" in told.out
    assert "mein-adapter" in told.out
    assert "61 s, davon 20 s Training" in told.out
    assert "eingefroren" in told.err
    monkeypatch.setenv("DETOUR_LANG", "de")
    assert "Jetzt mit deinen eigenen" in detour("demo").out


def test_a_negative_seed_is_refused(fails, stage):
    assert "seed" in fails(2, "demo", "--seed", "-1")["error"]


@dataclass
class Broken(ShortStory):
    """Stopped in the scene after the measuring, or before it."""

    error: BaseException = field(default_factory=lambda: WrongBase("the styles do not fit"))

    def scenes(self, watcher):
        before, after = super().scenes(watcher)
        if self.seed == 0:
            self.report = None
            raise self.error
        yield before
        yield after
        raise self.error


@pytest.mark.parametrize(
    ("error", "code"), [(WrongBase("the styles do not fit"), 2), (KeyboardInterrupt(), 130)]
)
def test_what_was_measured_before_a_fault_is_kept(detour, stage, monkeypatch, error, code):
    written = []
    monkeypatch.setattr("detour.evaluate.story.Story", partial(Broken, error=error))
    monkeypatch.setattr(
        command, "write_report", lambda report, folder, *_, **__: written.append(folder) or folder
    )
    told = detour("demo", "--seed", 1)
    assert told.code == code
    assert written == [stage / "einstein-hairdresser"]
    assert "the report so far" in told.err
    assert detour("demo", "--seed", 0).code == code
    assert len(written) == 1  # nothing was measured yet
