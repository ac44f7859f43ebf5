import pytest

from detour.evaluate.stacking import (
    answers_to,
    exact_rate,
    fact_rate,
    facts_told,
    held_out_questions,
    known_facts,
    marker_rates,
)
from detour.training import phrasing
from detour.training.world import LANGUAGES, World


@pytest.fixture(scope="module")
def asked(world):
    return held_out_questions(world, 40, seed=3)


def right(world, asked, styles=()):
    return [world.answer(a.subject, a.attribute, a.value, styles) for a in asked]


def test_tested_and_trained_subjects_are_disjoint(world):
    tested, trained = ({s.name for s, _ in known_facts(world, flag)} for flag in (True, False))
    assert not {(s.kind, s.name) for s, _ in known_facts(world, True)} & {
        (s.kind, s.name) for s, _ in known_facts(world, False)
    }
    assert len(tested) > 80
    assert len(trained) > 4 * len(tested) * 0.9


def test_questions_are_held_out_and_seeded(world, asked):
    assert asked == held_out_questions(world, 40, seed=3) != held_out_questions(world, 40, seed=4)
    for a in asked:
        every = dict(phrasing.questions(world, a.subject, a.attribute))
        assert every[a.question].held_out
        assert a.value == a.subject.values[a.attribute.name]


def test_right_answers_score_1_and_wrong_ones_0(world, asked):
    styles = ["formal", "sportscaster", "pun"]
    answers = right(world, asked, styles)
    assert exact_rate(world, asked, answers, styles).value == 1
    assert {f.value for f in marker_rates(world, asked, answers, styles).values()} == {1}
    assert fact_rate(world, asked, answers).value == 1
    plain = right(world, asked)
    assert exact_rate(world, asked, plain, styles).value == 0
    assert {f.value for f in marker_rates(world, asked, plain, styles).values()} == {0}
    shifted = plain[1:] + plain[:1]
    assert fact_rate(world, asked, shifted).value < 0.2
    assert exact_rate(world, asked, plain, []).n == 40


def test_answers_are_the_bases_own(roomy_base, asked):
    few = asked[:2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("detour.evaluate.stacking.LONGEST", 4)
        told = answers_to(roomy_base, None, few)
    assert told == [roomy_base.ask(a.question, max_new_tokens=4) for a in few]


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_fact_is_told_in_every_style_but_the_brief_one(language):
    """A brief answer names no subject: whoever counts facts in it finds none."""
    known = World.load(language)
    asked = held_out_questions(known, 12, seed=5)
    for style in (None, *known.styles):
        answers = right(known, asked, [style] if style else [])
        told = facts_told(known, asked, answers)
        assert told == [style != "brief"] * len(asked), (style, answers)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_rival_beside_the_value_spoils_the_fact(language):
    known = World.load(language)
    asked = held_out_questions(known, 12, seed=5)
    spoiled = []
    for a, answer in zip(asked, right(known, asked), strict=True):
        rival = next(v for v in known.values(a.attribute) if a.value not in v and v not in answer)
        spoiled.append(f"{answer} {known.statement(a.subject, a.attribute, rival)}")
    assert facts_told(known, asked, spoiled) == [False] * len(asked)
