import pytest

from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import World


@pytest.fixture(scope="module")
def world():
    return World.load()


def texts(world, attribute, *novelty):
    return {template.text for template in phrasing.templates(world, attribute, *novelty)}


def test_the_three_degrees_of_novelty_are_disjoint(world):
    for attribute in world.attributes.values():
        sorts = [texts(world, attribute, novelty) for novelty in Novelty]
        assert all(sorts)
        assert sum(map(len, sorts)) == len(set.union(*sorts)), attribute.name
        assert set.union(*sorts) == texts(world, attribute)


def test_held_out_templates_stay_held_out_when_filled(world):
    """No held-out question about a person is, by another way of making it, a seen one."""
    einstein = world.subject("Einstein")
    for attribute in world.attributes_of("person"):
        seen = {q for q, _ in phrasing.questions(world, einstein, attribute, Novelty.SEEN)}
        held = {q for q, n in phrasing.questions(world, einstein, attribute) if n.held_out}
        assert not seen & held
        assert len(held) >= 40


def test_marks_and_hash_decide():
    assert phrasing.novelty("{q}", "~What?") is Novelty.NEW_WORDS
    assert phrasing.novelty("~{q}", "What?").held_out
    assert not Novelty.SEEN.held_out
    parts = [("Tell me {c}.", f"what {n}", "person") for n in range(4000)]
    share = sum(phrasing.novelty(*p) is Novelty.NEW_COMBINATION for p in parts) / 4000
    assert 0.10 < share < 0.15
    assert phrasing.novelty("a", "b") is phrasing.novelty("a", "b")


def test_a_late_phrase_is_seen_but_marked(world):
    late = [t for a in world.attributes.values() for t in phrasing.templates(world, a) if t.late]
    assert late
    assert not any(template.text.startswith("+") for template in late)
    assert phrasing.novelty("+a", "b") is phrasing.novelty("a", "b")
    assert (phrasing.bare("~a"), phrasing.bare("+a"), phrasing.bare("a")) == ("a", "a", "a")


def test_no_mark_and_no_open_slot_is_left(world):
    for subject in (world.subject("Einstein"), world.subject("penguin"), world.subject("Paris")):
        for attribute in world.attributes_of(subject.kind):
            for question, _ in phrasing.questions(world, subject, attribute):
                assert not set("~+{}") & set(question)
                assert not question[0].islower()


def test_questions_come_in_every_form_of_the_name(world):
    einstein = world.subject("Einstein")
    asked = [q for q, _ in phrasing.questions(world, einstein, world.attributes["person", "city"])]
    assert "Where did Einstein live?" in asked
    assert "Where did Albert Einstein live?" in asked


def test_tasks_name_the_kind(world):
    found = phrasing.tasks(world, world.attributes["person", "profession"], Novelty.SEEN)
    assert len(found) >= 20
    assert all("person" in task.text and task.novelty is Novelty.SEEN for task in found)
    held = phrasing.tasks(world, world.attributes["person", "profession"], Novelty.NEW_WORDS)
    assert held
    assert not {t.text for t in held} & {t.text for t in found}


def test_style_requests_and_frames_are_divided(world):
    for style in world.styles:
        seen = set(phrasing.style_requests(world, style))
        held = set(phrasing.style_requests(world, style, held_out=True))
        assert seen
        assert held
        assert not seen & held
    for name in ("styled_question", "styled_system"):
        seen = set(phrasing.styled_frames(world, name))
        assert not seen & set(phrasing.styled_frames(world, name, held_out=True))
    assert not set(phrasing.note_frames(world)) & set(phrasing.note_frames(world, held_out=True))


def test_requests_are_joined_as_people_speak():
    assert phrasing.join_requests(["formally"]) == "formally"
    assert phrasing.join_requests(["formally", "with a pun"]) == "formally and with a pun"
    joined = phrasing.join_requests(["formally", "and end with a pun"])
    assert joined == "formally and end with a pun"
    assert phrasing.join_requests([]) == ""
