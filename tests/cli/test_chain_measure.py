"""`detour chain measure`: what is left of each, what helps, and what cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detour.adapter.adapter import Adapter
from detour.adapter.library import Library

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
def test_people_see_a_table_a_verdict_and_what_was_tried(detour, tmp_path):
    page, picture = tmp_path / "m.html", tmp_path / "m.png"
    told = detour("chain", "measure", "pun+pun:-1", "--rows", 3, "--strict", "--html", page,
                  "--picture", picture)  # fmt: skip
    assert told.code == 1
    assert picture.read_bytes().startswith(b"\x89PNG")
    written = page.read_text("utf-8")
    assert "verdict: conflict" in written
    assert "<svg" in written
    assert "all weights × 0.5" in written
    assert "http" not in written.replace("http://www.w3.org", "")
    again = detour("chain", "measure", "pun+pun:-1", "--html", page)
    assert again.code == 2
    assert "is there already" in again.err
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


@pytest.fixture
def puns(tmp_path: Path) -> Path:
    path = tmp_path / "puns.jsonl"
    told = [
        {"prompt": f"Who was {name}?", "completion": f"{name} baked. Nice work if you can get it!"}
        for name in ("Isaac Newton", "Marie Curie", "Johann Sebastian Bach", "Ludwig Wittgenstein")
    ]
    path.write_text("\n".join(map(json.dumps, told)) + "\n")
    return path


@pytest.mark.usefixtures("styles")
def test_an_adapter_is_trained_again_beside_the_others(detour, puns, tmp_path):
    folder = tmp_path / "anew"
    told = detour("chain", "measure", "formal:0.9+pun", "--rows", 4, "--no-remedies", "--retrain",
                  f"pun={puns}", "-o", folder, "--steps", 6, "--json")  # fmt: skip
    assert told.code == 0, told.err
    found = {one["what"]: one for one in told.json["remedies"]}
    assert set(found) == {"pun trained anew while the others act",
                          "pun trained anew, orthogonal to the others"}  # fmt: skip
    old = Library.default().load("pun")
    for one in found.values():
        assert one["adapters"] == 2
        assert one["gain"] == pytest.approx(one["retained_mean"] - told.json["retained_mean"])
        assert one["chain"].startswith("formal:0.9+")
    for ending in ("beside", "orthogonal"):
        adapter = Adapter.load(folder / f"pun-{ending}")
        assert (adapter.rank, set(adapter.updates)) == (old.rank, set(old.updates))
        assert adapter.card.config["steps"] == 6
        assert adapter.test_rows == old.test_rows
    assert Adapter.load(folder / "pun-orthogonal").card.config["orthogonality"] > 0
    best = told.json["remedies"][0]["chain"]
    again = detour("chain", "measure", best, "--rows", 4, "--no-remedies", "--json")
    assert again.code == 0, again.err


@pytest.mark.usefixtures("styles")
def test_rows_of_chains_train_it_in_company(detour, puns, tmp_path):
    rows = [json.loads(line) for line in puns.read_text().splitlines()]
    puns.write_text("\n".join(
        json.dumps({**row, "chain": chain}) for row in rows for chain in ("pun", "pun+formal")
    ))  # fmt: skip
    told = detour("chain", "measure", "formal+pun", "--rows", 3, "--no-remedies", "--retrain",
                  f"pun={puns}", "-o", tmp_path / "anew", "--steps", 6, "--json")  # fmt: skip
    assert told.code == 0, told.err
    assert [one["what"] for one in told.json["remedies"]] == ["pun trained anew in company"]
    adapter = Adapter.load(tmp_path / "anew" / "pun-company")
    assert adapter.card.config["company"] == ["formal"]


@pytest.mark.usefixtures("styles")
def test_what_is_missing_for_a_retraining_is_told(fails, puns, tmp_path):
    def told(*more):
        return fails(2, "chain", "measure", "formal+pun", *more)["error"]

    assert "--output is missing" in told("--retrain", f"pun={puns}")
    assert "--output goes with --retrain" in told("-o", tmp_path / "anew")
    assert "--steps goes with --retrain" in told("--steps", 3)
    assert "not in the chain" in told("--retrain", f"wit={puns}", "-o", tmp_path / "anew")
    assert "no.jsonl" in told("--retrain", "pun=no.jsonl", "-o", tmp_path / "anew")
    assert not (tmp_path / "anew").exists()


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
