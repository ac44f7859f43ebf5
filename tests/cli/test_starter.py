"""`detour starter card` tells every bar of the packaged card."""

import json

from detour.model.starter_card import starter_folder

FIGURE = {"value", "low", "high", "n"}


def test_every_bar_is_a_figure_in_each_language(detour):
    told = detour("starter", "card", "--json").json
    assert set(told) >= {"bars", "required", "does_not_know", "languages", "sha256", "parameters"}
    for name, each in told["bars"].items():
        assert each, name
        for figure in each.values():
            assert set(figure) == FIGURE, name
            assert figure["low"] <= figure["value"] <= figure["high"]
            assert figure["n"] > 0


def test_what_is_required_is_measured_and_what_is_missed_is_named(detour):
    told = detour("starter", "card", "--json").json
    for name, bar in told["required"].items():
        low = [language for language, f in told["bars"][name].items() if f["value"] < bar]
        assert low == told["missed"].get(name, []), name


def test_the_table_marks_what_is_missed(detour, monkeypatch, tmp_path):
    card = json.loads((starter_folder() / "card.json").read_text())
    name = "facts, held-out phrasings"
    (tmp_path / "card.json").write_text(json.dumps(card | {"missed": {name: ["de"]}}))
    monkeypatch.setattr("detour.model.starter_card.starter_folder", lambda: tmp_path)
    lines = [line for line in detour("starter", "card").out.splitlines() if name in line]
    assert ["missed" in line for line in lines] == [" de " in line for line in lines]
    assert any("missed" in line for line in lines)


def test_people_get_a_table(detour):
    told = detour("starter", "card")
    assert told.code == 0
    assert "facts, held-out phrasings" in told.out
    assert "does not know names that nobody bears" in told.out


def test_a_missing_card_is_told(fails, tmp_path, monkeypatch):
    monkeypatch.setattr("detour.model.starter_card.starter_folder", lambda: tmp_path)
    error = fails(1, "starter", "card")
    assert "card cannot be read" in error["error"]
    (tmp_path / "card.json").write_text(json.dumps([]))
    assert "doctor" in fails(1, "starter", "card")["hint"]
