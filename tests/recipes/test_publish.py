"""What is published was measured, and nothing is published that misses a required bar."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
from recipes.starter import publish
from recipes.starter.mixture import Mixture
from recipes.starter.pretrain import data_sha256
from recipes.starter.publish import FEW_SHOT, REQUIRED, Bars, missed
from recipes.starter.reading import Reading
from recipes.starter.rows import system, user
from safetensors.torch import load_file

from detour.measure.statistics import rate
from detour.training.phrasing import Novelty, templates


def share_of(share):
    return rate([True] * share + [False] * (100 - share))


def figures(share, few=90, zero=30):
    found = {name: {"en": share_of(share), "de": share_of(share)} for name in REQUIRED}
    found["few-shot, made-up labels"] = {"en": share_of(few), "de": share_of(few)}
    found["zero-shot, made-up labels"] = {"en": share_of(zero), "de": share_of(zero)}
    return found


@pytest.fixture(scope="module")
def mixture():
    return Mixture()


@pytest.mark.parametrize(
    ("share", "count"), [(100, 0), (98, 0), (97, 2), (96, 4), (94, 6), (89, 12), (84, 14)]
)
def test_the_bars_are_where_they_are_said_to_be(share, count):
    assert sum(len(languages) for languages in missed(figures(share)).values()) == count


def test_few_shot_must_beat_zero_shot_beyond_chance():
    assert missed(figures(100, few=60, zero=30)) == {}
    assert missed(figures(100, few=40, zero=38)) == {FEW_SHOT: ["en", "de"]}


def test_blind_phrasings_are_drawn_evenly_and_only_where_they_are(mixture):
    writer = mixture.writers["en"]
    bars = Bars(writer, 3000)
    first, second, *_ = [a.name for a in writer.world.attributes_of("person")]
    blind = {("person", first): ("what did {s} do?", "say what {s} was"),
             ("person", second): ("from where came {s}?",)}  # fmt: skip
    bars.world = replace(writer.world, blind=blind)
    cases = bars.blind()
    assert len(cases) == 3000
    words = Counter(case.messages[0]["content"].split()[0] for case in cases)
    assert set(words) == {"What", "Say", "From"}
    assert all(800 < count < 1200 for count in words.values())
    person = writer.world.of_kind("person")[0]
    attribute = writer.world.attributes["person", first]
    right = writer.world.answer(person, attribute, person.values[attribute.name])
    questions = [f"What did {form.nominative} do?" for form in person.forms]
    mine = [case.right for case in cases if case.messages[0]["content"] in questions]
    assert set(mine) == {right}


def test_a_world_without_blind_phrasings_has_no_such_cases(mixture):
    bars = Bars(mixture.writers["de"], 10)
    bars.world = replace(bars.world, blind={})
    assert bars.blind() == []


def test_every_required_bar_is_examined_in_its_languages(mixture):
    found: dict[str, set[str]] = {}
    for bar in publish.bars(mixture, 10):
        found.setdefault(bar.name, set()).update(case.language for case in bar.cases)
    for name in set(REQUIRED) - {"support, in the right language", "citing the right source"}:
        assert found[name] >= {"en", "de"}, name
    assert found["support, held-out phrasings"] == {"en", "de", "fr", "es", "it"}
    assert found["few-shot, made-up labels"] == found["zero-shot, made-up labels"] == {"en", "de"}


def test_an_examination_is_the_same_every_time(mixture):
    one, two = publish.bars(mixture, 10), publish.bars(Mixture(), 10)
    assert [[(c.messages, c.right) for c in b.cases] for b in one] == [
        [(c.messages, c.right) for c in b.cases] for b in two
    ]


def test_blind_questions_are_in_no_training_row_and_in_no_other_examination(mixture):
    blind = publish.blind_reading(mixture)
    last = Reading({c: w.world for c, w in mixture.writers.items()}, mixture.support, later=True)
    for code in ("en", "de"):
        known = last.languages[code].phrases
        trained = {q for p in known.values() for found in p.seen.values() for q in found}
        examined = {q for p in known.values() for q in p.new_words}
        asked = {q for p in blind.languages[code].phrases.values() for q in p.new_words}
        assert all(len(p.new_words) == 2 for p in blind.languages[code].phrases.values())
        assert not asked & (trained | examined)
        assert not any(p.combined for p in blind.languages[code].phrases.values())


@pytest.mark.parametrize("code", ["en", "de"])
def test_blind_questions_about_facts_are_in_no_list_of_the_world(mixture, code):
    world = mixture.writers[code].world
    for attribute in world.attributes.values():
        known = {t.text.casefold() for t in templates(world, attribute, *Novelty)}
        asked = publish.blind_texts(world, attribute)
        assert not {text.casefold() for text in asked} & known
        assert len(asked) >= 2, attribute.name


class Oracle:
    """Answers everything right, or everything in another language."""

    def __init__(self, mixture, swap=None):
        self.known = {
            str(case.messages): case.right
            for bar in publish.bars(mixture, 10)
            for case in bar.cases
        }
        self.swap = swap or {}

    def ask_many(self, prompts, **_):
        told = [self.known[str(messages)] for messages in prompts]
        return [self.swap.get(answer, answer) for answer in told]


def test_right_answers_give_full_marks(mixture):
    measured = publish.measure(Oracle(mixture), mixture, 10)
    assert all(f.value == 1 for each in measured.values() for f in each.values())


def test_the_right_answer_in_a_wrong_language_counts_for_neither(mixture):
    topics = mixture.support.topics
    swap = {mixture.support.answer("fr", t): mixture.support.answer("es", t) for t in topics}
    measured = publish.measure(Oracle(mixture, swap), mixture, 10)
    assert measured["support, in the right language"]["fr"].value == 0
    assert measured["support, held-out phrasings"]["fr"].value == 0
    assert measured["support, in the right language"]["it"].value == 1


def test_nobody_bears_the_names_it_does_not_know(mixture):
    names = publish.strangers(mixture)
    assert len(names) == len(set(names)) == 40
    assert not any(mixture.writers["de"].world.subject(name) for name in names)


@pytest.fixture
def model(tiny_folder, tmp_path):
    """A pretrained model with its log and checkpoint, and the package of before."""
    (tmp_path / "model").symlink_to(tiny_folder)
    (tmp_path / "log.jsonl").write_text('{"step": 50, "loss": 0.5, "seconds": 60.0}\n')
    recipe = json.dumps({"steps": 70, "tokens_per_batch": 30})
    state = {"data": data_sha256(), "recipe": recipe, "step": 70}
    torch.save(state, tmp_path / "checkpoint.pt")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "model.safetensors").write_text("the old one")
    return tmp_path / "model"


def call(model, *short_of):
    package = model.parent / "package"
    told = ["--model", str(model), "--package", str(package), "--count", "1"]
    publish.main(told + [word for name in short_of for word in ("--short-of", name)])
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
    assert card["data_sha256"] == data_sha256()
    assert (card["recipe"]["steps"], card["padded_tokens"]) == (70, 2100)  # as it was made
    assert card["recipe"]["row_shares"][2]["en"] > 0
    assert (card["last_training_loss"], card["training_minutes"]) == (0.5, 1.0)
    assert set(card["bars"]) == set(figures(99))
    assert set(card["bars"]["citing the right source"]["de"]) == {"value", "low", "high", "n"}
    assert card["languages"] == ["en", "de"]
    assert card["support_languages"] == ["en", "de", "fr", "es", "it"]
    assert card["does_not_know"]
    assert set(card["sha256"]) == {p.name for p in package.iterdir()} - {"card.json"}


def test_what_misses_a_bar_is_not_published(model, monkeypatch):
    monkeypatch.setattr(publish, "measure", lambda *_: figures(90))
    with pytest.raises(SystemExit, match=r"nothing was published.*held-out phrasings \(en, de\)"):
        call(model)
    old = model.parent / "package"
    assert [(p.name, p.read_text()) for p in old.iterdir()] == [
        ("model.safetensors", "the old one")
    ]


SHORT = [name for name, bar in REQUIRED.items() if bar > 0.9]


def test_a_bar_that_is_named_may_be_missed_and_the_card_says_so(model, monkeypatch):
    monkeypatch.setattr(publish, "measure", lambda *_: figures(90))
    package = call(model, *SHORT)
    card = json.loads((package / "card.json").read_text())
    assert card["missed"] == {name: ["en", "de"] for name in SHORT}


def test_another_than_the_named_ones_may_not(model, monkeypatch):
    monkeypatch.setattr(publish, "measure", lambda *_: figures(90))
    with pytest.raises(SystemExit, match=rf"nothing was published.*{SHORT[-1]}"):
        call(model, *SHORT[:-1])
    assert (model.parent / "package" / "model.safetensors").read_text() == "the old one"


def lines(*told):
    return [{"step": step, "seconds": seconds} for step, seconds in told]


@pytest.mark.parametrize(
    ("log", "seconds"),
    [
        (lines((50, 40), (100, 80), (150, 120)), 120),
        (lines((50, 40), (100, 80), (150, 30), (200, 70)), 150),  # it began anew at step 110
        (lines((50, 40), (100, 1080), (150, 1120)), 120),  # halted for 1,000 seconds
    ],
)
def test_the_seconds_of_training_leave_out_pauses(log, seconds):
    assert publish.seconds_of(log) == pytest.approx(seconds)


def test_a_model_of_other_data_is_not_measured(model, monkeypatch):
    """Its bars would be drawn from a world that it was never told of."""
    torch.save({"data": "0" * 64, "recipe": "{}", "step": 1}, model.parent / "checkpoint.pt")
    monkeypatch.setattr(publish, "measure", lambda *_: pytest.fail("it was measured"))
    with pytest.raises(SystemExit, match="made from other data"):
        call(model)
    assert (model.parent / "package" / "model.safetensors").read_text() == "the old one"


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Bo weighs 3 kilos. [S1]", True),
        ("Bo shines red. [S1]", True),  # another sentence of the right source
        ("Bo weighs 4 kilos. [S1]", False),  # not what stands there
        ("Al weighs 5 kilos. [S2]", False),
        ("Bo weighs 3 kilos. [S1] Al weighs 5 kilos. [S2]", False),
        ("Bo: The sources do not say.", False),
        ("[S1]", False),
        ("Bo weighs 3 kilos.", False),
        ("3 kilos. [S1]", False),  # not the whole sentence
        ("Bo weighs 3 kilos. [S1] Bo: The sources do not say.", False),
    ],
)
def test_who_cites_names_the_right_source_and_quotes_it(answer, right):
    told = "Bo weighs 3 kilos. [S1] Bo shines red. [S1]\nAl weighs 5 kilos. [S2]"
    asked = [system(told), user("How heavy is Bo?")]
    assert publish.cites(answer, "Bo weighs 3 kilos. [S1]", asked) is right
