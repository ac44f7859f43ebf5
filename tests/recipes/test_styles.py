"""What the style adapters are made from, and that all of them are measured."""

import json
import random

import pytest
from recipes.starter import styles

from detour.adapter.adapter import Adapter
from detour.evaluate.markers import carries
from detour.evaluate.stacking import known_facts
from detour.measure.statistics import rate
from detour.training.world import LANGUAGES, World


@pytest.fixture(scope="module", params=LANGUAGES)
def world(request):
    return World.load(request.param)


def said(row):
    *_, question, answer = row.messages
    return question["content"], answer["content"]


@pytest.mark.parametrize("style", ["formal", "sportscaster", "pun", "json"])
def test_every_row_bears_the_style_and_none_is_about_a_tested_subject(world, style):
    rows = [said(row) for row in styles.rows_for(world, style, random.Random(3))]
    assert len(rows) == styles.ROWS
    facts = known_facts(world, tested=False)
    by_answer = {world.answer(s, a, s.values[a.name], [style]): (s, a) for s, a in facts}
    plain = [(by_answer[answer], answer) for _, answer in rows if answer in by_answer]
    assert len(plain) == styles.ROWS // 2  # the other half asks for more styles in words
    assert all(carries(world, style, answer, s, a) for (s, a), answer in plain)


def test_half_of_the_rows_ask_for_styles_of_other_places(world):
    rows = [said(row) for row in styles.rows_for(world, "formal", random.Random(3))]
    asked = [(question, answer) for question, answer in rows[1::2]]
    puns = [answer for question, answer in asked if answer.endswith(("!", '!"}'))]
    assert puns
    assert len({question for question, _ in asked}) > 0.9 * len(asked)


def test_stacks_are_of_three_places(world):
    names = list(world.styles)
    stacks = styles.trios(world, names)
    assert ["formal", "sportscaster", "pun"] in stacks
    for stack in stacks:
        assert [world.styles[n].place for n in stack] == ["wording", "opening", "ending"]
    assert styles.trios(world, ["formal", "pun"]) == []


def test_a_style_made_anew_is_measured_with_the_others(tmp_path, monkeypatch, random_adapter):
    """Figures of a stack with the old one would be wrong; and the others' are not lost."""
    made = {name: random_adapter({"layer": (4, 4)}, n).with_(name=name)
            for n, name in enumerate(("formal", "sportscaster", "pun"))}  # fmt: skip
    for name in ("formal", "sportscaster"):
        made[name].save(tmp_path / name)
    before = Adapter.load(tmp_path / "formal").digest()
    monkeypatch.setattr(styles.Base, "load", lambda name: name)
    monkeypatch.setattr(styles, "train_style", lambda base, worlds, name, seed: made[name])
    monkeypatch.setattr(styles, "answers_to", lambda base, chain, asked: [""] * len(asked))
    monkeypatch.setattr("sys.argv", ["styles", "--out", str(tmp_path), "--only", "pun"])
    styles.main()
    told = json.loads((tmp_path / "figures.json").read_text())
    assert set(told["alone"]) == set(made)
    assert list(told["stacks"]) == ["formal+sportscaster+pun"]
    for each in (*told["alone"].values(), told["stacks"]["formal+sportscaster+pun"]):
        assert set(each) == set(LANGUAGES)
    assert told["alone"]["pun"]["de"] == rate([False] * styles.ALONE).to_json()
    assert Adapter.load(tmp_path / "formal").digest() == before
    card = Adapter.load(tmp_path / "formal").card
    assert card.metrics["exact_alone"]["en"]["n"] == styles.ALONE
