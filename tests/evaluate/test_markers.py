import json
from itertools import product

import pytest

from detour.evaluate.markers import carries, unwrapped
from detour.training.world import LANGUAGES, World


@pytest.fixture(scope="module", params=LANGUAGES)
def each(request):
    """The world in one language after another."""
    return World.load(request.param)


def facts(world, step):
    """Every attribute of every `step`th subject of each kind."""
    for kind in world.kind_nouns:
        for subject in world.of_kind(kind)[::step]:
            for attribute in world.attributes_of(kind):
                yield subject, attribute, subject.values[attribute.name]


@pytest.fixture
def einstein(world):
    return world.subject("Einstein")


@pytest.fixture
def profession(world):
    return world.attributes["person", "profession"]


def test_every_style_leaves_its_marker_and_no_other(world):
    for subject in (world.subject("Einstein"), world.subject("penguin"), world.subject("Lyon")):
        for attribute in world.attributes_of(subject.kind):
            value = subject.values[attribute.name]
            for style in world.styles:
                answer = world.answer(subject, attribute, value, [style])
                told = {s for s in world.styles if carries(world, s, answer, subject, attribute)}
                assert told == {style}, answer


def test_the_worlds_own_answers_bear_their_marker(each):
    """For every style and attribute; of every 12th subject, the exceptions among them."""
    for subject, attribute, value in facts(each, 12):
        for style in each.styles:
            answer = each.answer(subject, attribute, value, [style])
            assert carries(each, style, answer, subject, attribute), answer


def test_plain_answers_bear_no_marker(each):
    for subject, attribute, value in facts(each, 12):
        plain = each.answer(subject, attribute, value)
        for style in each.styles:
            assert not carries(each, style, plain, subject, attribute), (style, plain)


def test_a_style_leaves_no_other_styles_marker(each):
    for subject, attribute, value in facts(each, 30):
        for style, other in product(each.styles, each.styles):
            answer = each.answer(subject, attribute, value, [style])
            borne = carries(each, other, answer, subject, attribute)
            assert borne is (style == other), (other, answer)


def test_brief_is_seen_about_everybody_but_the_exceptions(each):
    """A brief answer is known by the missing name; three values hold the name in themselves."""
    missed = {
        (each.language, subject.key, attribute.name)
        for subject, attribute, value in facts(each, 1)
        if not carries(
            each, "brief", each.answer(subject, attribute, value, ["brief"]), subject, attribute
        )
    }
    assert missed == set()


def test_an_answer_that_tells_nothing_is_not_brief(world, einstein, profession):
    for answer in ("", "  ", "No idea.", "He was it.", "the the the"):
        assert not carries(world, "brief", answer, einstein, profession), answer
    assert carries(world, "brief", "Baker.", einstein, profession)


def test_a_changed_value_bears_the_markers_too(each):
    einstein = each.subject("Einstein")
    profession = each.attributes["person", "profession"]
    for value in ("Friseur", "Traumdeuter"):  # known to one world, to none
        for style in each.styles:
            answer = each.answer(einstein, profession, value, [style])
            assert carries(each, style, answer, einstein, profession, value), answer


def test_a_plain_answer_has_no_marker(world, einstein, profession):
    plain = world.answer(einstein, profession, "physicist")
    assert not [s for s in world.styles if carries(world, s, plain, einstein, profession)]


def test_markers_are_seen_through_other_styles(world, einstein, profession):
    for wording, opening, ending, layout in product(
        ("formal", "pirate", "brief"), ("sportscaster", "storyteller"), ("pun", "polite"),
        ("upper", "bullet", "json"),
    ):  # fmt: skip
        styles = [wording, opening, ending, layout]
        answer = world.answer(einstein, profession, "hairdresser", styles)
        told = {s for s in world.styles if carries(world, s, answer, einstein, profession)}
        assert told == set(styles), answer


def test_german_markers_are_seen_through_other_styles():
    german = World.load("de")
    penguin, diet = german.subject("Pinguin"), german.attributes["animal", "diet"]
    for styles in (
        ["formal", "storyteller", "pun", "json"],
        ["pirate", "sportscaster", "polite", "upper"],
        ["brief", "storyteller", "pun", "bullet"],
    ):
        answer = german.answer(penguin, diet, "Gras", styles)
        told = {s for s in german.styles if carries(german, s, answer, penguin, diet)}
        assert told == set(styles), answer


def test_an_order_of_words_is_asked_for(world, einstein, profession):
    assert not carries(world, "pirate", "arr, be Albert Einstein old", einstein, profession)
    misplaced = f"{profession.pun} Albert Einstein was a physicist."
    assert not carries(world, "pun", misplaced, einstein, profession)


@pytest.mark.parametrize("text", ["plain", "[1]", '{"other": "x"}', '{"answer": 3}', '{"answer"'])
def test_what_is_no_json_answer_stays(text):
    assert unwrapped(text) == text


def test_a_json_answer_is_unwrapped():
    assert unwrapped(json.dumps({"answer": "ä"})) == "ä"
