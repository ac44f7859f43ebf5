"""`detour report`: a chain judged by edits, as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.evaluate.test_counterfact import edit

from detour.evaluate import full_report, steer_report
from detour.training import own_fact, replay


@pytest.fixture
def edits(tmp_path: Path) -> Path:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps([edit(n) for n in range(5)]))
    return path


def test_every_figure_has_its_interval(detour, keep, edits, tiny_folder):
    keep("mine", seed=1)
    told = detour("report", "mine:0.5", "--facts", edits, "--base", tiny_folder, "--json")
    assert told.code == 0, told.err
    found = told.json
    assert (found["chain"], found["edits"]) == ("mine:0.5", 5)
    for arm in ("base", "user_prompt", "system_prompt", "steered"):
        assert set(found[arm]) == {"ES", "PS", "NS", "S"}
        assert all(set(one) == {"value", "low", "high", "n"} for one in found[arm].values())
    few = detour("report", "mine", "--facts", edits, "--base", tiny_folder, "--limit", 2, "--json")
    assert few.json["base"]["ES"]["n"] == 2


def test_people_see_a_table_and_what_it_means(detour, keep, edits, tiny_folder):
    keep("mine", seed=1)
    told = detour("report", "mine", "--facts", edits, "--base", tiny_folder)
    assert told.code == 0, told.err
    assert "user prompt" in told.out
    assert "NS: the true one still wins for neighbours" in told.out
    german = detour("report", "mine", "--facts", edits, "--base", tiny_folder, "--lang", "de")
    assert "bei Nachbarn gewinnt weiter das wahre" in german.out


def test_a_file_that_is_none_is_told(fails, keep, tmp_path, tiny_folder):
    keep("mine", seed=1)
    told = fails(2, "report", "mine", "--facts", tmp_path / "no.json", "--base", tiny_folder)
    assert "does not exist" in told["error"]


@pytest.fixture
def baker(detour, tmp_path: Path, roomy_folder: Path, monkeypatch) -> Path:
    """Taught twice on a tiny base, by questions of its own."""
    for module, name, least in (
        (steer_report, "LONGEST", 6), (full_report, "LONGEST", 6), (replay, "LONGEST_ANSWER", 4),
        (own_fact, "SAMPLES", 1), (steer_report, "PROMPTED", 1), (full_report, "TRIED", 1),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, least)
    near, far = tmp_path / "near.txt", tmp_path / "far.txt"
    near.write_text("".join(f"Job of {number}?\n" for number in range(12)))
    far.write_text("".join(f"What is {number}?\n" for number in range(12)))
    told = detour(
        "teach", "--subject", "Bo", "--relation", "job", "--target", "baker", "--answer",
        "Bo is a baker.", "--neighbours", near, "--unrelated", far, "--base", roomy_folder,
        "--steps", 4, "-o", tmp_path / "bo", "--seeds", 2, "--json",
    )  # fmt: skip
    assert told.code == 0, told.err
    assert [one["seed"] for one in told.json["seeds"]] == [0, 1]
    assert told.json["worst_seed"] in (0, 1)
    assert "Taught with 2 seeds" in (tmp_path / "bo" / "report.html").read_text()
    return tmp_path / "bo"


def test_a_taught_chain_is_judged_by_what_its_card_says(detour, baker, roomy_folder, tmp_path):
    hops = tmp_path / "hops.jsonl"
    hops.write_text('{"question": "Where does Bo work?", "names": "bakery"}\n')
    call = ["report", baker, "--base", roomy_folder, "--limit", 4, "--hops", hops]
    told = detour(*call, "--json")
    assert told.code == 0, told.err
    assert told.json["change"] == "Bo is a baker."
    for arm in ("base", "user_prompt", "system_prompt", "steered"):
        assert {"efficacy", "paraphrases", "leak_ratio", "ES", "kl_p99"} <= set(told.json[arm])
        assert set(told.json[arm]["paraphrases"]) == {"value", "low", "high", "n"}
        assert told.json[arm]["portability_hops"]["n"] == 1
    german = detour(*call, "--lang", "de")
    assert "Was sie sonst berührt" in german.out
    assert "ungesehene Formulierungen" in german.out


def test_a_change_can_be_named_and_must_be_known(
    detour, fails, keep, baker, roomy_folder, tmp_path
):
    keep("mine", seed=1)
    named = detour("report", baker, "--subject", "Bo", "--relation", "job", "--target", "smith",
                   "--base", roomy_folder, "--limit", 2, "--json")  # fmt: skip
    assert named.code == 0, named.err
    assert named.json["change"] == "The job of Bo is smith."
    told = fails(2, "report", "mine", "--subject", "Bo", "--relation", "job", "--target", "smith",
                 "--base", roomy_folder)  # fmt: skip
    assert "another base" in told["error"]
    told = fails(2, "report", "mine", "--base", roomy_folder)
    assert "nothing says what was changed" in told["error"]
    assert "--facts" in told["hint"]
    hops = tmp_path / "hops.jsonl"
    hops.write_text('{"question": "Where?"}\n')
    told = fails(2, "report", baker, "--hops", hops, "--base", roomy_folder)
    assert "hops.jsonl:1 is no question" in told["error"]
    told = fails(2, "report", baker, "--facts", hops, "--subject", "Bo", "--base", roomy_folder)
    assert "--facts and --subject exclude each other" in told["error"]
