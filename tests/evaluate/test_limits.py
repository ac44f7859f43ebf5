"""The two limits on tiny random bases: what is measured, and that nothing is made better."""

import json
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.evaluate import limits, stacking
from detour.evaluate.limits import (
    COUNTS,
    WISHES,
    NotLatent,
    not_latent,
    ten_adapters,
)
from detour.evaluate.probability import answer_log_probabilities
from detour.evaluate.stacking import Asked
from detour.evaluate.steer_report import Section
from detour.evaluate.story import CROWD
from detour.measure.metrics import mentions
from detour.measure.statistics import rate
from detour.training.phrasing import Novelty, questions
from detour.training.world import World
from detour.training.world_fact import read_statement, statements_lesson

FIGURE = {"value", "low", "high", "n"}
TOLD, FORGOTTEN, NEVER = "Who was it?", "What was it?", "Which was it?"


@pytest.fixture(scope="module")
def asked(world):
    """Three questions about one changed fact."""
    einstein, profession = world.subject("Einstein"), world.attributes["person", "profession"]
    return [Asked(einstein, profession, q, "hairdresser") for q in (TOLD, FORGOTTEN, NEVER)]


@pytest.fixture(scope="module")
def ten(random_adapter):
    """The fact's adapter and nine styles, on a layer of their own."""
    names = ("fact", *CROWD)
    return [
        random_adapter({"layer": (4, 4)}, seed).with_(name=name) for seed, name in enumerate(names)
    ]


@dataclass
class Choir:
    """A base that tells the fact by the adapters' names and weights, and bears the first style.

    Alone the fact is told at two questions of three. In the whole chain one of them falls silent,
    and the third is answered rightly by accident.
    """

    world: World
    chains: list[Chain] = field(default_factory=list)

    def ask_many(self, prompts, chain, **_):
        self.chains.append(chain)
        return [self.answer(prompt, chain) for prompt in prompts]

    def answer(self, prompt, chain):
        names = [term.adapter.name for term in chain.terms]
        strong = min(term.weight for term in chain.terms) > 0.2
        whole = len(names) == COUNTS[-1] and strong
        if whole and prompt == FORGOTTEN:
            return "  "
        right = strong and (prompt != NEVER or whole)
        value = "hairdresser" if right else "physicist"
        einstein = self.world.subject("Einstein")
        profession = self.world.attributes["person", "profession"]
        return self.world.answer(einstein, profession, value, names[1:2])


@pytest.fixture(scope="module")
def choir(world):
    return Choir(world)


@pytest.fixture(scope="module")
def sung(choir, world, ten, asked):
    return ten_adapters(choir, world, ten[0], ten[1:], asked)


def test_retained_counts_only_what_the_fact_alone_told(sung):
    """Not the answer that turned right by accident; so one of two, not two of three."""
    assert sung.retained == rate([True, False])
    assert sung.by_count[0].fact == rate([True, True, False])
    assert sung.by_count[-1].fact == rate([True, False, True])


def test_what_was_never_told_cannot_be_retained(world, ten, asked):
    told = ten_adapters(Choir(world), world, ten[0], ten[1:], asked[2:])
    assert told.retained.n == 0
    assert told.to_json()["retained"]["value"] is None


def test_the_chain_grows_adapter_by_adapter(sung, choir, ten):
    assert [crowd.adapters for crowd in sung.by_count] == list(COUNTS)
    grown = [chain for chain in choir.chains if len(chain.terms) > 1][: len(COUNTS) - 1]
    assert [[term.adapter for term in chain.terms] for chain in grown] == [
        ten[:count] for count in COUNTS[1:]
    ]
    assert {term.weight for chain in grown for term in chain.terms} == {1}


def test_markers_are_pooled_over_the_styles_in_the_chain(sung):
    """The choir bears its first style only; a silent answer bears none."""
    alone, *crowds = [crowd.markers for crowd in sung.by_count]
    assert alone.n == 0
    assert [figure.n for figure in crowds] == [3 * (count - 1) for count in COUNTS[1:]]
    assert crowds[0].value == 1
    assert crowds[1].value == pytest.approx(1 / 3)
    assert list(sung.markers) == list(CROWD)
    assert sung.markers[CROWD[0]] == rate([True, False, True])
    assert sung.markers["json"].value == 0


def test_divided_weights_are_measured_too(sung, choir):
    assert list(sung.scaled) == ["1/√10", "1/10"]
    for chain, weight in zip(choir.chains[-2:], (1 / math.sqrt(10), 0.1), strict=True):
        assert [term.weight for term in chain.terms] == [pytest.approx(weight)] * 10
    assert [crowd.adapters for crowd in sung.scaled.values()] == [10, 10]
    assert sung.scaled["1/√10"].fact == rate([True, False, True])
    assert sung.scaled["1/10"].fact == rate([False, False, False])


def test_silence_is_broken_text(sung):
    assert sung.broken == rate([False, True, False])


def test_the_example_is_the_whole_chains(sung):
    assert sung.question == TOLD
    assert "exercised the profession of hairdresser" in sung.answer
    assert sung.spec == "+".join(("fact", *CROWD))


@pytest.mark.parametrize("count", [0, 8, 10])
def test_another_number_of_styles_is_refused(world, ten, asked, count):
    styles = (ten * 2)[:count]
    with pytest.raises(ValueError, match=f"expected 9 styles, found {count}"):
        ten_adapters(Choir(world), world, ten[0], styles, asked)


def check_figures(told, *names):
    for name in names:
        assert set(told[name]) == FIGURE, name


def test_the_json_form_of_ten_adapters_is_complete(sung):
    told = sung.to_json()
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert set(told) == {
        "spec", "example", "retained", "markers", "broken_text", "by_count", "scaled",
    }  # fmt: skip
    assert told["example"] == {"question": sung.question, "answer": sung.answer}
    check_figures(told, "retained", "broken_text")
    check_figures(told["markers"], *CROWD)
    assert len(told["by_count"]) == len(COUNTS)
    for crowd in (*told["by_count"], *told["scaled"].values()):
        assert set(crowd) == {"adapters", "fact", "markers"}
        check_figures(crowd, "fact", "markers")
    assert told["by_count"][0]["markers"] == {"value": None, "low": 0.0, "high": 1.0, "n": 0}


def test_ten_random_adapters_act_on_a_real_base(roomy_base, world, random_adapter, asked):
    made = [
        random_adapter(roomy_base.slots.shapes, seed, strength=0.2).with_(name=name)
        for seed, name in enumerate(("fact", *CROWD))
    ]
    before = roomy_base.sha256()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stacking, "LONGEST", 4)
        told = ten_adapters(roomy_base, world, made[0], made[1:], asked[:2])
    whole = Chain(tuple(term for adapter in made for term in Chain.of(adapter).terms))
    assert told.answer == roomy_base.ask(TOLD, whole, max_new_tokens=4)
    assert told.answer != roomy_base.ask(TOLD, made[0], max_new_tokens=4)
    assert told.retained.n == 0  # a random adapter tells no fact
    assert told.broken.n == 2
    assert json.loads(json.dumps(told.to_json(), allow_nan=False))["spec"] == told.spec
    assert roomy_base.sha256() == before


# a wish that is not latent


@pytest.fixture(scope="module", params=sorted(WISHES))
def wish(request):
    return WISHES[request.param]


def test_a_wish_names_its_words_and_parts(wish):
    for word in (*wish.words, *(part for part, _ in wish.parts)):
        assert mentions(wish.sentence, word), word


def test_no_question_gives_its_part_away(wish):
    for part, questions_after_it in wish.parts:
        assert len(questions_after_it) >= 4
        assert not [question for question in questions_after_it if mentions(question, part)]


@pytest.mark.parametrize("language", sorted(WISHES))
def test_a_wish_is_no_fact_of_the_world(language):
    """It is taught as it stands; no value of the world holds the wish's first part."""
    world = World.load(language)
    wish = WISHES[language]
    assert read_statement(world, wish.sentence) is None
    assert world.subject("Albert Einstein").name in wish.sentence
    known = [value for a in world.attributes.values() for value in world.values(a)]
    part, _ = wish.parts[0]
    assert not [value for value in known if mentions(value, part)]


def test_questions_after_a_part_are_not_trained(world):
    lesson = statements_lesson(world, [WISHES["en"].sentence], 0)
    trained = {*lesson.edits[0].asked, *(question for _, question in lesson.replay)}
    asked = {q for _, questions_after_it in WISHES["en"].parts for q in questions_after_it}
    assert not trained & asked


class Letters:
    """A tokenizer with a token for every letter, and one for the space before a word."""

    def encode(self, text, add_special_tokens=True):
        return [*map(ord, text), *([0] if add_special_tokens else [])]


@dataclass
class Spelling:
    tokenizer: Letters = field(default_factory=Letters)


def test_pieces_are_counted_inside_a_sentence():
    assert limits._pieces(Spelling(), ("hair", "moon", "a")) == {"hair": 5, "moon": 5, "a": 2}
    assert limits._pieces(Spelling(), ()) == {}


def test_pieces_join_to_the_word(roomy_base):
    pieces = limits._pieces(roomy_base, ("hair", "Saturn"))
    tokenizer = roomy_base.tokenizer
    for word, count in pieces.items():
        ids = tokenizer.encode(f" {word}", add_special_tokens=False)
        assert (tokenizer.decode(ids), len(ids)) == (f" {word}", count)
    assert pieces["hair"] < pieces["Saturn"]  # one stands in what the tokenizer was made from


def test_the_json_form_of_a_wish_is_complete():
    told = NotLatent(
        "Bo flew.", -3.14159, -0.5, {"flew": 3}, rate([True]), rate([False]), rate([]),
        (("Who flew?", "Al."), ("When?", "")), 80, 1.23456,
    ).to_json()  # fmt: skip
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told == {
        "wish": "Bo flew.",
        "log_probability_per_token": -3.142,
        "taught_fact_log_probability_per_token": -0.5,
        "tokens_per_word": {"flew": 3},
        "recited": rate([True]).to_json(),
        "understood": rate([False]).to_json(),
        "own_other_facts_unchanged": {"value": None, "low": 0.0, "high": 1.0, "n": 0},
        "samples": [
            {"question": "Who flew?", "answer": "Al."},
            {"question": "When?", "answer": ""},
        ],
        "train_steps": 80,
        "train_seconds": 1.23,
    }


def short_lesson(world, texts, seed):
    """The same lesson with fewer questions to replay."""
    lesson = statements_lesson(world, texts, seed)
    return replace(lesson, replay=lesson.replay[:12])


@pytest.fixture(scope="module")
def tried(roomy_base, world):
    """Three steps on a random base: it learns nothing, and that must come out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(limits, "STEPS", 3)
        patch.setattr(limits, "KEPT", 4)
        patch.setattr(limits, "statements_lesson", short_lesson)
        patch.setattr("detour.evaluate.steer_report.LONGEST", 4)
        patch.setattr("detour.training.replay.LONGEST_ANSWER", 2)
        return not_latent(roomy_base, world, "Albert Einstein was a baker.", seed=0)


def test_a_wish_is_tried_and_asked_for_its_parts(tried, world):
    wish = WISHES["en"]
    assert tried.wish == wish.sentence
    assert list(tried.pieces) == list(wish.words)
    asked = [q for _, questions_after_it in wish.parts for q in questions_after_it]
    assert [question for question, _ in tried.samples][1:] == asked
    assert (tried.understood.n, tried.own_facts.n) == (len(asked), 4)
    assert tried.understood.value == tried.recited.value == 0
    (edit,) = statements_lesson(world, [wish.sentence], 0).edits
    assert tried.recited.n == len(edit.held_out) > 5
    assert tried.samples[0][0] == edit.held_out[0]
    assert tried.steps == 3
    assert tried.seconds > 0


def test_probabilities_are_of_the_base_before_training(tried, roomy_base):
    question = tried.samples[0][0]  # the same general one for both
    for sentence, told in (
        (tried.wish, tried.log_probability),
        ("Albert Einstein was a baker.", tried.compared),
    ):
        (whole,) = answer_log_probabilities(roomy_base, [(question, sentence)])
        ids = roomy_base.tokenizer.encode(sentence, add_special_tokens=False)
        assert told == pytest.approx(whole / (len(ids) + 1), rel=1e-5)


def test_own_facts_kept_are_held_out_questions(world):
    lesson = statements_lesson(world, [WISHES["en"].sentence], 0)
    einstein = world.subject("Einstein")
    seen = {
        q
        for a in world.attributes_of("person")
        for q, _ in questions(world, einstein, a, Novelty.SEEN)
    }
    own = {q for _, q in lesson.own_facts}
    assert len(own) >= limits.KEPT
    assert not own & seen


def test_the_other_facts_asked_are_of_every_attribute(world, monkeypatch):
    """The questions stand in the order of the attributes: the first sixty would miss the last."""
    monkeypatch.setattr(limits, "nats_per_token", lambda *_: -1.0)
    monkeypatch.setattr(limits, "_pieces", lambda *_: {})
    made = SimpleNamespace(adapter=Adapter({}, "none"), seconds=1.0)
    monkeypatch.setattr(limits, "teach_lesson", lambda *_, **__: made)
    monkeypatch.setattr(limits, "steered_section", lambda *_: (Section(rate([])), []))
    kept = []

    def unchanged(_, asked, __):
        kept.extend(q for _, q in asked)
        return Section(rate([])), [], []

    monkeypatch.setattr(limits, "unchanged", unchanged)
    base = SimpleNamespace(ask=lambda *_: "", ask_many=lambda asked, _: [""] * len(asked))
    not_latent(base, world, "Albert Einstein was a baker.", seed=0)
    einstein = world.subject("Einstein")
    for attribute in world.attributes_of("person"):
        every = {q for q, _ in questions(world, einstein, attribute)}
        assert every & set(kept), attribute.name
