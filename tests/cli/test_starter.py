"""`detour starter card` tells every bar of the packaged card."""

import json

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


def test_what_is_required_is_measured_and_reached(detour):
    told = detour("starter", "card", "--json").json
    for name, bar in told["required"].items():
        assert all(figure["value"] >= bar for figure in told["bars"][name].values()), name


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
