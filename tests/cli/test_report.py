"""`detour report`: a chain judged by edits, as people and programs call it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.evaluate.test_counterfact import edit


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
    assert "told before the prompt" in told.out
    assert "NS: the true one still wins for neighbours" in told.out
    german = detour("report", "mine", "--facts", edits, "--base", tiny_folder, "--lang", "de")
    assert "bei Nachbarn gewinnt weiter das wahre" in german.out


def test_a_file_that_is_none_is_told(fails, keep, tmp_path, tiny_folder):
    keep("mine", seed=1)
    told = fails(2, "report", "mine", "--facts", tmp_path / "no.json", "--base", tiny_folder)
    assert "does not exist" in told["error"]
