"""`detour chain measure`: what is left of each, what helps, and what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

RETAINED = {"share", "low", "high", "n", "base", "alone", "chain"}


@pytest.fixture
def styles(monkeypatch: pytest.MonkeyPatch) -> None:
    """The packaged adapters, not those of the shelf."""
    monkeypatch.delenv("DETOUR_HOME", raising=False)


@pytest.mark.usefixtures("styles")
def test_two_styles_of_other_places(detour):
    told = detour("chain", "measure", "formal+pun", "--rows", 5, "--json")
    assert told.code == 0, told.err
    assert told.json["chain"] == "formal+pun"
    assert set(told.json["retained"]) == {"formal", "pun"}
    assert set(told.json["retained"]["pun"]) == RETAINED
    assert told.json["retained"]["pun"]["n"] == 5
    assert set(told.json["leave_one_out"]["pun"]) == {"formal"}
    assert told.json["broken_text_rate"]["n"] == 10
    assert told.json["kl_to_base"] > 0
    assert told.json["verdict"] in ("degraded", "conflict")  # five tests prove nothing more
    assert {"what", "retained_mean"} <= set(told.json["remedies"][0])
    assert "40 answers to 10 tests of 2 adapters" in told.err


@pytest.mark.usefixtures("styles")
def test_people_see_a_table_a_verdict_and_what_was_tried(detour):
    told = detour("chain", "measure", "pun+pun:-1", "--rows", 3, "--strict")
    assert told.code == 1
    assert "verdict: conflict" in told.out
    assert "harmed most by" in told.out
    assert "pun (2)" in told.out
    assert "all weights × 0.5" in told.out
    german = detour("chain", "measure", "pun+pun:-1", "--rows", 3, "--no-remedies", "--lang", "de")
    assert ": Konflikt: von einem" in german.out
    assert "× 0.5" not in german.out


@pytest.fixture
def tests_of_pun(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    asked = [{"role": "user", "content": "Who was Albert Einstein?"}]
    row = {"messages": asked, "checks": {"ends": "Nice work if you can get it!"}, "about": "job"}
    path.write_text(json.dumps(row) + "\n")
    return path


@pytest.mark.usefixtures("styles")
def test_questions_of_ones_own(detour, tests_of_pun):
    told = detour(
        "chain", "measure", "formal+pun", "--tests", f"pun={tests_of_pun}", "--rows", 2,
        "--no-remedies", "--json",
    )  # fmt: skip
    assert told.json["retained"]["pun"]["n"] == 1
    assert told.json["retained"]["formal"]["n"] == 2


def test_what_cannot_be_measured_is_told(fails, keep, tiny_folder, tests_of_pun):
    keep("formal", seed=1)
    keep("pun", seed=2)
    on = ("--base", str(tiny_folder))

    def told(spec, *more):
        return fails(2, "chain", "measure", spec, *more, *on)["error"]

    assert "no adapter of formal+pun has tests" in told("formal+pun")
    assert "a single adapter" in told("pun", "--tests", f"pun={tests_of_pun}")
    assert "does not name" in told("formal+pun", "--tests", "pun")
    assert "not in the chain" in told("formal+pun", "--tests", f"wit={tests_of_pun}")
    assert "no.jsonl" in told("formal+pun", "--tests", "pun=no.jsonl")


def test_adapters_that_do_no_more_than_the_base(detour, keep, tiny_folder, tests_of_pun):
    keep("formal", seed=1)
    keep("pun", seed=2)
    told = detour(
        "chain", "measure", "formal+pun", "--tests", f"pun={tests_of_pun}", "--max-tokens", 8,
        "--base", tiny_folder,
    )  # fmt: skip
    assert told.code == 0, told.err
    assert "not measured" in told.out
    assert "not surely more" in told.err


@pytest.mark.usefixtures("styles")
def test_stress_tells_a_curve(detour, tmp_path):
    picture = tmp_path / "limit.png"
    told = detour(
        "chain", "stress", "pun+formal", "--rows", 4, "--counts", "1, 2", "--picture", picture,
        "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert [(one["count"], one["layers"]) for one in told.json["curve"]] == [
        (1, "same"), (2, "same"), (2, "disjoint"),
    ]  # fmt: skip
    assert set(told.json["curve"][0]) == {
        "count", "layers", "retained", "broken_text_rate", "chains",
    }  # fmt: skip
    assert picture.read_bytes().startswith(b"\x89PNG")
    again = detour("chain", "stress", "pun+formal", "--picture", picture)
    assert again.code == 2
    assert "is there already" in again.message
    wrong = detour("chain", "stress", "pun+formal", "--counts", "1,x")
    assert wrong.code == 2
    assert "--counts holds" in wrong.message
