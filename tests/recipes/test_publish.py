"""What is published was measured, and nothing is published that misses a required bar."""

import json
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from recipes.starter import publish
from recipes.starter.pretrain import data_sha256
from recipes.starter.publish import REQUIRED, Bars, missed
from safetensors.torch import load_file

from detour.measure.statistics import rate
from detour.training.world import World


def figures(share):
    return {name: rate([True] * share + [False] * (100 - share)) for name in REQUIRED}


@pytest.mark.parametrize(("share", "count"), [(100, 0), (97, 0), (96, 1), (80, 1), (79, 2)])
def test_the_bars_are_where_they_are_said_to_be(share, count):
    assert len(missed(figures(share))) == count


class FewBlind:
    """The world, with blind phrasings for two attributes."""

    def __init__(self, world):
        person = world.of_kind("person")[0]
        self.attributes = [a.name for a in world.attributes_of("person")][:2]
        self.blind = {
            ("person", self.attributes[0]): ("what did {s} do?", "say what {s} was"),
            ("person", self.attributes[1]): ("from where came {s}?",),
        }
        self.answer, self.person = world.answer, person


def test_blind_phrasings_are_drawn_evenly_and_only_where_they_are():
    world = World.load()
    bars = Bars(world, 3000)
    bars.world = FewBlind(world)
    cases = bars.blind()
    assert len(cases) == 3000
    words = Counter(messages[0]["content"].split()[0] for messages, _ in cases)
    assert set(words) == {"What", "Say", "From"}
    assert all(800 < count < 1200 for count in words.values())
    person = bars.world.person
    attribute = world.attributes["person", bars.world.attributes[0]]
    right = world.answer(person, attribute, person.values[attribute.name])
    questions = [f"What did {form} do?" for form in person.forms]
    mine = [answer for messages, answer in cases if messages[0]["content"] in questions]
    assert set(mine) == {right}


def test_a_world_without_blind_phrasings_has_no_such_bar():
    bars = Bars(World.load(), 10)
    bars.world = SimpleNamespace(blind={})
    assert bars.blind() == []


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A pretrained model with its log and checkpoint, and the package of before."""
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "log.jsonl").write_text('{"step": 50, "loss": 0.5, "seconds": 60.0}\n')
    torch.save({"data": "abc"}, tmp_path / "checkpoint.pt")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "model.safetensors").write_text("the old one")
    return tmp_path / "model"


def call(model):
    package = model.parent / "package"
    publish.main(["--model", str(model), "--package", str(package), "--count", "1"])
    return package


def test_what_passes_is_published_with_its_card(model, monkeypatch, tiny_folder):
    measured = []
    monkeypatch.setattr(
        publish, "measure", lambda base, *_: measured.append(base.sha256()) or figures(99)
    )
    package = call(model)
    weights = load_file(package / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert (package / "tokenizer.json").exists()
    assert measured == [publish.Base.load(str(package)).sha256()]  # what ships is what was measured
    card = json.loads((package / "card.json").read_text())
    assert card["trained_on_sha256"] == "abc"
    assert card["measured_on_sha256"] == data_sha256()
    assert set(card["figures"]) == set(REQUIRED)
    assert set(card["sha256"]) == {p.name for p in package.iterdir()} - {"card.json"}


def test_what_misses_a_bar_is_not_published(model, monkeypatch):
    monkeypatch.setattr(publish, "measure", lambda *_: figures(90))
    with pytest.raises(SystemExit, match=r"nothing was published.*held-out phrasings: 0\.900"):
        call(model)
    old = model.parent / "package"
    assert [(p.name, p.read_text()) for p in old.iterdir()] == [
        ("model.safetensors", "the old one")
    ]


def test_an_old_checkpoint_does_not_say_its_data(tmp_path):
    assert publish.trained_on(tmp_path / "none.pt") is None
    torch.save({"step": 3}, tmp_path / "old.pt")
    assert publish.trained_on(tmp_path / "old.pt") is None
