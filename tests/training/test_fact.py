from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.errors import DataError
from detour.model.examples import pair
from detour.training.fact import (
    FEWEST_PHRASINGS,
    Edit,
    Lesson,
    divide,
    edit_rows,
    parse_sentence,
    relation_questions,
    statement_edit,
    statement_questions,
)
from detour.training.world import World


@pytest.mark.parametrize(
    ("sentence", "parts"),
    [
        ("Einstein was a hairdresser.", ("Einstein", "was", "a hairdresser")),
        ("E = mc² is the formula of a cut", ("E = mc²", "is", "the formula of a cut")),
        ("  The  Beatles were\ta band!", ("The Beatles", "were", "a band")),
        ("What is is is.", ("What", "is", "is is")),
    ],
)
def test_sentences_are_split_at_the_verb(sentence, parts):
    assert parse_sentence(sentence) == parts


@pytest.mark.parametrize(
    "text", ["", "Einstein", "Einstein is", "was a baker", "He painted.", "Curie became a nurse"]
)
def test_what_has_no_verb_is_refused(text):
    with pytest.raises(DataError, match="cannot be split") as caught:
        parse_sentence(text)
    assert "--relation" in caught.value.hint


def test_a_statement_becomes_an_edit():
    edit = statement_edit("Einstein was known for his haircutting technique")
    assert (edit.subject, edit.relation) == ("Einstein", "")
    assert edit.answer == "Einstein was known for his haircutting technique."
    assert edit.target == "known for his haircutting technique"
    questions = {*edit.asked, *edit.held_out}
    assert "What was Einstein known for?" in questions
    assert "What do you know about Einstein?" in questions
    assert not set(edit.asked) & set(edit.held_out)
    assert statement_edit("the moon is a cheese").answer == "The moon is a cheese."


def test_a_formula_is_a_subject_too():
    edit = statement_edit("E = mc² is the formula of a fashionable cut")
    assert edit.subject == "E = mc²"
    assert "What is E = mc²?" in {*edit.asked, *edit.held_out}


def test_own_paraphrases_join_the_general_ones():
    mine = [f"Way {n} to ask?" for n in range(9)]
    edit = statement_edit("The moon is a cheese", mine)
    assert {*edit.asked, *edit.held_out} >= {*mine, "What is The moon?"}


@given(st.lists(st.integers(0, 30), min_size=1, max_size=60), st.integers(0, 3))
def test_a_third_is_kept_for_the_test(numbers, seed):
    questions = [f" Question {n}? " for n in numbers]
    distinct = {question.strip() for question in questions}
    if len(distinct) < FEWEST_PHRASINGS:
        with pytest.raises(DataError, match="too few phrasings"):
            divide(questions, seed)
        return
    asked, held = divide(questions, seed)
    assert {*asked, *held} == distinct
    assert len(asked) + len(held) == len(distinct)
    assert len(held) == max(2, len(distinct) // 3)
    assert divide(questions, seed) == (asked, held)


EDIT = Edit("Bo", "job", "baker", "Bo was a baker.", asked=("a?", "b?"), held_out=("c?",))


def test_rows_are_every_phrasing_with_the_answer():
    extra = pair("x", "y")
    rows = edit_rows(replace(EDIT, rows=(extra,)))
    assert rows == [pair("a?", "Bo was a baker."), pair("b?", "Bo was a baker."), extra]


@pytest.mark.parametrize(
    "changes",
    [
        {"neighbours": (("", "a?"),)},
        {"own_facts": (("", "b?"),)},
        {"unrelated": (("", "r?"),)},
        {"replay": (("", "c?"),)},
    ],
)
def test_a_question_on_both_sides_is_refused(changes):
    lesson = Lesson((EDIT,), (("", "r?"),), (("", "n?"),), (), ())
    assert lesson.check() is lesson
    with pytest.raises(DataError, match="for training and for the test"):
        replace(lesson, **changes).check()


def test_an_edit_without_phrasings_is_refused():
    for edit in (replace(EDIT, asked=()), replace(EDIT, held_out=())):
        with pytest.raises(DataError, match="too few phrasings for Bo") as caught:
            Lesson((edit,), (), (), (), ()).check()
        assert "--paraphrases" in caught.value.hint


def test_relations_are_asked_in_general_frames():
    asked = relation_questions(World.load(), "Bo", "shoe size")
    assert "What was the shoe size of Bo?" in asked
    assert "Bo's shoe size, please." in asked
    assert len(set(asked)) == len(asked) >= 20
    assert not any(set("~+{}") & set(question) for question in asked)


def test_a_german_subject_with_an_article_is_asked_in_its_case():
    asked = statement_questions("Der Eiffelturm", "ist", "aus Holz", "de")
    assert {"Was ist der Eiffelturm?", "Was weißt du über den Eiffelturm?"} <= set(asked)
    assert {"Sag mir, was der Eiffelturm ist.", "Der Eiffelturm?"} <= set(asked)
    asked = statement_questions("Eine Biene", "ist", "ein Fisch", "de")
    assert {"Was ist eine Biene?", "Was sagt man über eine Biene?"} <= set(asked)
    asked = statement_questions("Derrida", "war", "bekannt für seine Hüte", "de")
    assert {"Was weißt du über Derrida?", "Wofür war Derrida bekannt?"} <= set(asked)
