"""The parts of the story that need no training; the whole is told in test_starter_story."""

import re
from dataclasses import replace

import pytest

from detour.adapter.card import Card
from detour.adapter.library import Library
from detour.errors import WrongBase
from detour.evaluate.steer_report import Section
from detour.evaluate.story import CROWD, SAMPLES, STYLES, TARGETS, Story, _plan, approval
from detour.language.catalogue import Catalogue, text
from detour.measure.statistics import rate
from detour.model.examples import pair
from detour.training.fact import Edit, Lesson, edit_rows
from detour.training.world import LANGUAGES, PLACES, World

ENGLISH, GERMAN = Catalogue(), Catalogue.load("de")
CARD = Card(
    description="Teaches: Bo was a baker.", fictional=True, licence="apache-2.0",
    data_sha256="0123456789abcdef" * 4, intended_use="Demonstration.", forbidden_use="Belief.",
)  # fmt: skip
OPEN = ("Who answers for it?", "Who else has checked it (four eyes)?",
        "Until when, and how is it withdrawn?")  # fmt: skip


@pytest.fixture(scope="module")
def german():
    return World.load("de")


@pytest.fixture(scope="module")
def report(taught):
    """Three of four phrasings right, one of two neighbours as before."""
    here = replace(
        taught.report.here,
        steered=Section(rate([True, True, True, False])),
        neighbours=Section(rate([True, False])),
    )
    return replace(taught.report, here=here)


# what an approval would ask


def test_questions_that_nobody_answered_are_open(report):
    asked = approval(CARD, report, ENGLISH)
    assert tuple(question for question, answer in asked if not answer) == OPEN
    assert len({question for question, _ in asked}) == len(asked) == 11


def test_an_empty_card_leaves_more_open(report):
    answers = dict(approval(Card(), report, ENGLISH))
    assert {question for question, answer in answers.items() if not answer} == {
        *OPEN, "What does it claim?", "Is the claim true?", "Under which licence?",
        "Trained on which data?", "What is it for?", "What must it not be used for?",
    }  # fmt: skip


def test_a_fictional_claim_is_not_true_and_no_other_is_vouched_for(report):
    for fictional, told in ((True, "no, and it is marked"), (False, "")):
        card = CARD.with_(fictional=fictional)
        assert dict(approval(card, report, ENGLISH))["Is the claim true?"] == told


def test_card_and_report_answer_the_rest(report):
    answers = dict(approval(CARD, report, ENGLISH))
    assert answers["What does it claim?"] == CARD.description
    assert answers["Under which licence?"] == "apache-2.0"
    assert answers["Trained on which data?"] == "0123456789abcdef"
    assert answers["Does it do what it claims?"] == "0.750 of 4 held-out phrasings"
    assert answers["What else does it change?"] == "0.500 of 2 neighbours unchanged"
    assert answers["What is it for?"] == "Demonstration."
    assert answers["What must it not be used for?"] == "Belief."


def test_the_sentences_of_a_lesson_are_told_in_german(report):
    claims = text("Teaches: {claims}", claims="Bo was a baker.")
    forbidden = text("Presenting the taught claims as true.")
    card = CARD.with_(forbidden_use=str(forbidden))
    answers = dict(approval(card, report, GERMAN, [claims, forbidden])).values()
    assert "Lehrt: Bo was a baker." in answers
    assert "Die gelernten Behauptungen als wahr ausgeben." in answers
    assert "Demonstration." in answers  # no sentence of the lesson's: as the card says it


def test_an_approval_asks_the_same_in_german(report):
    one, other = (approval(CARD, report, t) for t in (ENGLISH, GERMAN))
    assert not {question for question, _ in one} & {question for question, _ in other}
    assert [bool(answer) for _, answer in one] == [bool(answer) for _, answer in other]
    answers = dict(other)
    assert answers["Ist die Behauptung wahr?"] == "nein, und das ist gekennzeichnet"
    assert answers["Tut er, was er behauptet?"] == "0.750 von 4 zurückgehaltenen Formulierungen"


# the plan


def lesson_of(language, answer, asked, others):
    """A lesson with as many phrasings and as many questions of each sort as told."""
    edit = Edit(
        "Bo", "job", "baker", answer, asked=tuple(f"a{n}?" for n in range(asked)),
        held_out=tuple(f"h{n}?" for n in range(asked + 1)), rows=(pair("q", "a"),) * 3,
        language=language,
    )  # fmt: skip
    replay, near, own, far = (tuple(("", f"{i}/{n}?") for n in range(others + i)) for i in range(4))
    return Lesson((edit,), replay, near, own, far)


HERE = lesson_of("en", "Bo was a baker.", 5, 10)
THERE = lesson_of("de", "Bo war Bäcker.", 7, 100)


def test_the_plan_counts_one_language(world):
    learn, keep, away = _plan(HERE, ENGLISH).splitlines()
    assert '"Bo was a baker." in 5 phrasings and 3 styled rows' in learn
    assert "answers to 10 other questions" in keep
    assert "6 phrasings, 11 neighbours, 12 questions about Bo, 13 others" in away


def test_the_plan_counts_all_languages_together():
    learn, keep, away = _plan(replace(HERE, elsewhere=(THERE,)), ENGLISH).splitlines()
    assert '"Bo was a baker." / "Bo war Bäcker." in 12 phrasings and 6 styled rows' in learn
    assert "answers to 110 other questions" in keep
    assert "14 phrasings, 112 neighbours, 114 questions about Bo, 116 others" in away


def test_the_plan_in_german():
    plan = _plan(replace(THERE, elsewhere=(HERE,)), GERMAN)
    learn, keep, away = plan.splitlines()
    assert "in 12 Formulierungen" in learn
    assert "110 andere Fragen" in keep
    assert "14 Formulierungen, 112 Nachbarn, 114 Fragen zu Bo, 116 themenfremde" in away
    begins = [re.match(r"\s+zu \w+:\s+", line).end() for line in (learn, keep)]
    assert begins[0] == begins[1]
    assert "„Bo war Bäcker.“ / „Bo was a baker.“" in learn
    assert "phrasings" not in plan


# how styles are named


def story(world, t, tmp_path):
    return Story(base=None, world=world, folder=tmp_path, t=t)


def test_markers_are_named_in_the_storys_language(world, german, tmp_path):
    figures = dict.fromkeys(STYLES, rate([True, False]))
    lines = story(german, GERMAN, tmp_path)._markers(figures)
    names = ["Amtsdeutsch", "Sportkommentator", "Kalauer"]
    assert all(line.strip().startswith(n) for line, n in zip(lines, names, strict=True))
    assert ["0.500" in line for line in lines] == [True] * 3
    plain = story(world, ENGLISH, tmp_path)._markers(figures)
    assert [line.split("█")[0].strip() for line in plain] == list(STYLES)


def test_every_style_has_a_german_label(german, tmp_path):
    figures = dict.fromkeys(german.styles, rate([True]))
    lines = story(german, GERMAN, tmp_path)._markers(figures)
    labels = [line.split("█")[0].strip() for line in lines]
    assert labels == [
        "Amtsdeutsch", "Pirat", "Kurz", "Sportkommentator", "Märchenerzähler", "Kalauer",
        "Höflich", "Großbuchstaben", "Aufzählung", "JSON",
    ]  # fmt: skip


def test_a_german_story_without_a_figure_says_so(german, tmp_path):
    (line,) = story(german, GERMAN, tmp_path)._markers({"pun": rate([])})
    assert "Kalauer" in line
    assert "nichts zu messen" in line


# what the story takes for granted


def test_the_trio_claims_three_places_and_the_crowd_fights(world):
    places = [world.styles[name].place for name in STYLES]
    assert len(set(places)) == 3
    assert len(set(CROWD)) == len(CROWD) == 9 < len(world.styles)
    assert CROWD[:3] == STYLES
    assert len({world.styles[name].place for name in CROWD}) == len(PLACES) < len(CROWD)


@pytest.mark.parametrize("language", LANGUAGES)
def test_samples_and_target_are_of_the_world(language):
    told = World.load(language)
    names = [(s, form) for s in told.subjects for form in (*s.bare, *s.full)]
    for question in SAMPLES[language]:
        assert [name for _, name in names if name in question], question
    professions = told.values(told.attributes["person", "profession"])
    assert TARGETS[language] in professions


def test_the_storys_own_language_has_all_samples(world, german, tmp_path):
    for told in (world, german):
        own = story(told, ENGLISH, tmp_path)
        sizes = {language: len(own._samples(language)) for language in LANGUAGES}
        assert sizes.pop(told.language) == len(SAMPLES[told.language]) == 5
        assert set(sizes.values()) == {2}


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_first_scene_begins_in_the_storys_own_language(
    language, starter, tmp_path, monkeypatch
):
    monkeypatch.setattr("detour.evaluate.story.spoken", lambda: LANGUAGES)
    t = Catalogue.load(language)
    scene = Story(starter, World.load(language), tmp_path, t=t)._knows()
    asked = scene.text.splitlines()[::2]
    other = next(each for each in LANGUAGES if each != language)
    assert [line.strip() for line in asked] == [*SAMPLES[language], *SAMPLES[other][:2]]
    assert scene.title == t("1  What the frozen base {name!r} says", name="starter")
    assert (scene.title == "1  What the frozen base 'starter' says") is (language == "en")


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_storys_example_is_never_trained(language, starter, tmp_path, monkeypatch):
    monkeypatch.setattr("detour.evaluate.teach.spoken", lambda: LANGUAGES)
    lesson = Story(starter, World.load(language), tmp_path)._lesson()
    question = SAMPLES[language][0]
    trained = {row.messages[-2]["content"] for each in lesson.edits for row in edit_rows(each)}
    assert question not in trained
    assert question not in {asked for _, asked in lesson.replay}
    assert len(trained) > 40


def test_a_users_own_style_does_not_stand_in_for_the_packaged_one(
    starter, world, tmp_path, monkeypatch, random_adapter
):
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path))
    random_adapter({"layer": (4, 4)}, 1).with_(name="pun").save(tmp_path / "adapters" / "pun")
    told = Story(starter, world, tmp_path)
    told._load_styles()
    packaged = Library.packaged()
    assert list(told.styles) == list(CROWD)
    for name, adapter in told.styles.items():
        assert adapter.digest() == packaged.load(name).digest()
    assert told.styles["pun"].digest() != Library.default().load("pun").digest()


def test_styles_of_another_release_are_refused_before_anything_is_trained(
    world, tmp_path, roomy_base
):
    with pytest.raises(WrongBase):
        next(Story(roomy_base, world, tmp_path).scenes())


def test_there_is_no_json_before_the_end(world, tmp_path):
    with pytest.raises(AssertionError):
        story(world, ENGLISH, tmp_path).to_json()
