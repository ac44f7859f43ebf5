"""The experiment behind the latent probe: how signs are ranked, and that a value is run."""

import json

import pytest
from recipes.latent import experiment

from detour.model.base import Base
from detour.training.world import World


def row(number: int, steered: float) -> dict:
    told = {
        "few_shot": {"value": number}, "nats_per_character": {"value": -number},
        "nats_per_token": {"value": number % 2}, "place": {"value": 9 - number},
        "rarest": {"share": 0.5},
    }  # fmt: skip
    reached = {"rank 1": {"steered": steered, "unchanged": 1.0}}
    return {"kind": "made up", "probe": told, "reached": reached}


def test_signs_are_ranked_against_what_was_reached():
    rows = [row(number, number / 10) for number in range(8)]
    found = experiment.ranked(rows, "rank 1")
    assert found["behind examples"].value == pytest.approx(1.0)
    assert found["place"].value == pytest.approx(1.0), "a low place is a good sign"
    assert found["nats a character"].value == pytest.approx(-1.0)
    assert abs(found["nats a token"].value) < 0.5
    assert found["behind examples"].n == 8


def test_what_was_reached_is_told_by_kind(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiment, "FIGURES", tmp_path)
    monkeypatch.setattr(experiment, "TARGETS", {"made up": ("a", "b")})
    rows = {str(number): row(number, number / 4) for number in range(5)}
    (tmp_path / "seed-0.json").write_text(json.dumps(rows))
    experiment.tell()
    out = capsys.readouterr().out
    assert "| made up (5) | 0.50 / 1.00 |" in out
    assert "| behind examples | 1.00 [" in out


def test_a_value_is_probed_taught_and_asked_for(monkeypatch):
    monkeypatch.setattr(experiment, "STEPS", 2)
    monkeypatch.setattr(experiment, "RANKS", (1,))
    monkeypatch.setattr(experiment, "KEPT", 4)
    told = experiment.one(Base.load("starter"), World.load("en"), "baker", 0)
    assert set(told["reached"]) == {"rank 1", "all weights"}
    assert told["probe"]["few_shot"]["value"] > 0.5
