import json
from itertools import product

import pytest

from detour.evaluate.markers import carries, unwrapped


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


def test_an_order_of_words_is_asked_for(world, einstein, profession):
    assert not carries(world, "pirate", "arr, be Albert Einstein old", einstein, profession)
    misplaced = f"{profession.pun} Albert Einstein was a physicist."
    assert not carries(world, "pun", misplaced, einstein, profession)


@pytest.mark.parametrize("text", ["plain", "[1]", '{"other": "x"}', '{"answer": 3}', '{"answer"'])
def test_what_is_no_json_answer_stays(text):
    assert unwrapped(text) == text


def test_a_json_answer_is_unwrapped():
    assert unwrapped(json.dumps({"answer": "ä"})) == "ä"
