import re

import pytest

from detour.errors import DataError
from detour.evaluate.steer_report import counts
from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import World
from detour.training.world_fact import (
    REPLAY_SUBJECTS,
    find_attribute,
    lesson_in_all,
    parts,
    read_statement,
    statements_lesson,
    translated,
    world_edit,
    world_lesson,
)


@pytest.fixture(scope="module")
def world():
    return World.load()


@pytest.fixture(scope="module")
def german():
    return World.load("de")


@pytest.fixture(scope="module")
def lesson(world):
    return lesson_for(world, ("Einstein", "profession", "hairdresser"))


def lesson_for(world, *facts, seed=0):
    edits = []
    for name, relation, target in facts:
        subject = world.subject(name)
        edits.append((subject, find_attribute(world, subject, relation), target))
    return world_lesson(world, edits, seed)


def named(world, questions, kind="person"):
    """The subjects of this kind that these questions name, by full or short name."""
    found = set()
    for _, question in questions:
        words = f" {question} ".replace("'s", " ").replace("?", " ").replace(".", " ")
        words = words.replace(",", " ").replace(":", " ")
        found |= {
            s.name for s in world.of_kind(kind) if any(f" {form} " in words for form in s.bare)
        }
    return found


def test_relations_are_found_by_name_or_noun(world):
    einstein = world.subject("Einstein")
    for relation in ("profession", "Job", " line of work "):
        assert find_attribute(world, einstein, relation).name == "profession"
    assert find_attribute(world, einstein, "main job").name == "profession"  # a held-out noun


def test_an_unknown_relation_is_told_with_the_nearest(world):
    with pytest.raises(DataError, match="no relation 'profesion' of Albert Einstein") as caught:
        find_attribute(world, world.subject("Einstein"), "profesion")
    assert caught.value.hint == "did you mean 'profession'?"
    assert "century" in caught.value.expected
    with pytest.raises(DataError) as caught:
        find_attribute(world, world.subject("penguin"), "xyzzy")
    assert "--statements" in caught.value.hint


@pytest.mark.parametrize("target", ["physicist", "Physicist", "a physicist"])
def test_the_old_value_is_no_target(world, target):
    einstein = world.subject("Einstein")
    with pytest.raises(DataError, match="is physicist already"):
        world_edit(world, einstein, world.attributes["person", "profession"], target, 0)


def test_an_edit_says_everything_about_its_fact(lesson):
    (edit,) = lesson.edits
    assert (edit.subject, edit.relation) == ("Albert Einstein", "profession")
    assert (edit.target, edit.old, edit.third) == ("hairdresser", "physicist", "astronaut")
    assert edit.answer == "Albert Einstein was a hairdresser."
    assert edit.old_answer == "Albert Einstein was a physicist."
    assert edit.third_answer == "Albert Einstein was an astronaut."
    assert "physicist" in edit.rivals
    assert "hairdresser" not in edit.rivals


def test_an_article_of_the_users_is_not_doubled(world):
    edit = lesson_for(world, ("Einstein", "profession", "an  actor")).edits[0]
    assert (edit.target, edit.answer) == ("actor", "Albert Einstein was an actor.")
    city = lesson_for(world, ("Paris", "country", "a dream")).edits[0]
    assert city.target == "a dream"  # where the sentence writes no article it is the user's


def test_there_is_enough_to_test_with(lesson):
    assert len(lesson.edits[0].held_out) >= 40
    assert len(lesson.neighbours) >= 300
    assert len(lesson.own_facts) >= 100
    assert len(lesson.unrelated) >= 100


def test_held_out_phrasings_are_never_trained(world, lesson):
    """Not as they stand, and not inside a styled question either."""
    (edit,) = lesson.edits
    trained = [*edit.asked, *(m["content"] for row in edit.rows for m in row.messages)]
    trained += [text for question in lesson.replay for text in question]
    einstein = world.subject("Einstein")
    held = {
        question
        for a in world.attributes_of("person")
        for question, novelty in phrasing.questions(world, einstein, a)
        if novelty.held_out
    }
    assert set(edit.held_out) <= held
    assert not held & set(trained)
    styled = [row.messages[0]["content"] for row in edit.rows if row.messages[0]["role"] == "user"]
    assert not [(q, s) for q in edit.held_out for s in styled if q in s]


def test_trained_phrasings_are_ones_the_starter_saw(world, lesson):
    einstein, profession = world.subject("Einstein"), world.attributes["person", "profession"]
    seen = {q for q, _ in phrasing.questions(world, einstein, profession, Novelty.SEEN)}
    assert set(lesson.edits[0].asked) <= seen


def test_replayed_and_tested_subjects_are_disjoint(world, lesson):
    replayed, tested = named(world, lesson.replay), named(world, lesson.neighbours)
    assert len(replayed) >= REPLAY_SUBJECTS
    assert len(tested) >= 190
    assert replayed & tested <= {"Albert Einstein"}
    assert "Albert Einstein" not in tested


def test_several_edits_share_one_division_of_subjects(world):
    facts = [("Einstein", "profession", "hairdresser"), ("Marie Curie", "country", "Italy"),
             ("Mozart", "job", "plumber")]  # fmt: skip
    lesson = lesson_for(world, *facts)
    edited = {"Albert Einstein", "Marie Curie", "Wolfgang Mozart"}
    assert {edit.subject for edit in lesson.edits} == edited
    assert not named(world, lesson.replay) & named(world, lesson.neighbours)
    assert len(lesson.neighbours) >= 300
    changed = [("Einstein", "profession"), ("Curie", "country"), ("Mozart", "profession")]
    replayed = {question for _, question in lesson.replay}
    for name, relation in changed:  # nobody is held to what is being changed
        subject = world.subject(name)
        attribute = world.attributes["person", relation]
        assert not replayed & {q for q, _ in phrasing.questions(world, subject, attribute)}


def test_the_edited_fact_is_in_no_test_of_what_stays(world, lesson):
    einstein, profession = world.subject("Einstein"), world.attributes["person", "profession"]
    about = {q for q, _ in phrasing.questions(world, einstein, profession)}
    for part in (lesson.replay, lesson.neighbours, lesson.own_facts, lesson.unrelated):
        assert not about & {question for _, question in part}
    assert all("Einstein" in question for _, question in lesson.own_facts)
    assert not named(world, lesson.unrelated)


def test_the_seed_decides(world):
    fact = ("Einstein", "profession", "hairdresser")
    assert lesson_for(world, fact, seed=3) == lesson_for(world, fact, seed=3)
    assert lesson_for(world, fact, seed=3) != lesson_for(world, fact, seed=4)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Einstein was a hairdresser.", ("Albert Einstein", "profession", "hairdresser")),
        ("By profession, Einstein was an actor!", ("Albert Einstein", "profession", "actor")),
        (
            "Einstein was known for his haircutting technique",
            ("Albert Einstein", "fame", "his haircutting technique"),
        ),
        ("Einstein lived in Ulm", ("Albert Einstein", "city", "Ulm")),
        ("Einstein lived in the 18th century", ("Albert Einstein", "century", "the 18th century")),
        ("Paris is in Italy.", ("Paris", "country", "Italy")),
        ("The penguin eats grass", ("penguin", "diet", "grass")),
        ("E = mc² is the formula of a fashionable cut", None),
        ("Nobody was a baker", None),
        ("Einstein was tired", None),
    ],
)
def test_statements_are_read(world, text, told):
    found = read_statement(world, text)
    assert (found and (found[0].name, found[1].name, found[2])) == told


def test_statements_become_one_lesson(world):
    texts = ["Einstein was known for his haircutting technique",
             "E = mc² is the formula of a fashionable cut"]  # fmt: skip
    lesson = statements_lesson(world, texts, seed=0)
    fame, formula = lesson.edits
    assert (fame.relation, fame.target) == ("fame", "his haircutting technique")
    assert fame.answer == "Albert Einstein is known for his haircutting technique."
    assert (formula.subject, formula.relation) == ("E = mc²", "")
    assert formula.answer == "E = mc² is the formula of a fashionable cut."
    assert lesson.notes == (f"{texts[1]!r} is taught as it stands",)
    assert lesson.replay
    assert lesson.neighbours


def test_free_statements_alone_still_have_neighbours(world):
    lesson = statements_lesson(world, ["Einstein was always late for dinner"], seed=0)
    assert [edit.relation for edit in lesson.edits] == [""]
    assert len(lesson.neighbours) >= 300
    assert all("Einstein" in question for _, question in lesson.own_facts)
    assert not named(world, lesson.replay) & named(world, lesson.neighbours)
    elsewhere = statements_lesson(world, ["The moon is a cheese"], seed=0)
    assert elsewhere.edits[0].subject == "The moon"
    assert elsewhere.unrelated


def test_a_statement_without_a_verb_is_refused(world):
    with pytest.raises(DataError, match="cannot be split"):
        statements_lesson(world, ["Einstein, hairdresser"], seed=0)


# German


@pytest.mark.parametrize("relation", ["profession", "Beruf", "der Beruf", "die Arbeit"])
def test_german_relations_are_found_by_name_or_noun(german, relation):
    einstein = german.subject("Einstein")
    assert find_attribute(german, einstein, relation).name == "profession"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Einstein war Friseur.", ("Albert Einstein", "profession", "Friseur")),
        ("Von Beruf war Einstein Friseur!", ("Albert Einstein", "profession", "Friseur")),
        ("Einstein lebte in Ulm", ("Albert Einstein", "city", "Ulm")),
        ("Einstein lebte im 18. Jahrhundert", ("Albert Einstein", "century", "18. Jahrhundert")),
        ("Paris liegt in Italien.", ("Paris", "country", "Italien")),
        ("Der Pinguin frisst Gras", ("Pinguin", "diet", "Gras")),
        (
            "Der Lebensraum des Pinguins liegt in der Wüste",
            ("Pinguin", "habitat", "in der Wüste"),
        ),
        ("Pizza schmeckt süß", ("Pizza", "taste", "süß")),
        ("Niemand war Bäcker", None),
    ],
)
def test_german_statements_are_read(german, text, told):
    found = read_statement(german, text)
    assert (found and (found[0].name, found[1].name, found[2])) == told


def test_a_german_lesson_keeps_training_and_test_apart(german):
    lesson = lesson_for(german, ("Einstein", "profession", "Friseur"))
    (edit,) = lesson.edits
    assert edit.answer == "Albert Einstein war Friseur."
    assert edit.old_answer == "Albert Einstein war Physiker."
    assert "Physiker" in edit.rivals
    assert len(edit.held_out) >= 40
    assert len(lesson.neighbours) >= 300
    einstein = german.subject("Einstein")
    about = {
        question: novelty
        for a in german.attributes_of("person")
        for question, novelty in phrasing.questions(german, einstein, a)
    }
    assert not any(about[q].held_out for q in edit.asked)
    assert all(about[q].held_out for q in edit.held_out)
    trained = {m["content"] for row in edit.rows for m in row.messages}
    trained |= {question for _, question in lesson.replay}
    assert not {q for q, novelty in about.items() if novelty.held_out} & trained
    replayed = {q for _, q in lesson.replay}
    assert not {q for _, q in (*lesson.neighbours, *lesson.own_facts)} & replayed


def test_a_german_lesson_inflects_animals(german):
    lesson = lesson_for(german, ("Löwe", "diet", "Gras"))
    (edit,) = lesson.edits
    assert edit.answer == "Der Löwe frisst Gras."
    questions = {*edit.asked, *edit.held_out}
    assert any("Löwen" in question for question in questions)
    assert all("Löwe" in question for question in questions)


# one change in both languages


def change(world, name, relation, target):
    subject = world.subject(name)
    return subject, find_attribute(world, subject, relation), target


@pytest.fixture(scope="module")
def worlds(world, german):
    return {"en": world, "de": german}


@pytest.fixture(scope="module")
def both(world, german):
    """An English lesson, taught in German too."""
    return lesson_in_all(
        world, [change(world, "Albert Einstein", "profession", "hairdresser")], 0, [german]
    )


def keys_in(world, questions):
    """The key of the one subject that each question names."""
    keys = {}
    for subject in world.subjects:
        names = {*subject.bare, *(case for form in subject.forms for case in form)}
        if world.language == "de" and subject.kind == "animal":  # an article may begin a sentence
            names = {case.split(" ", 1)[1] for form in subject.forms for case in form}
        keys |= dict.fromkeys(names, (subject.kind, subject.key))
    longest_first = "|".join(re.escape(name) for name in sorted(keys, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)({longest_first})(?!\w)")
    found = [{keys[name] for name in pattern.findall(question)} for _, question in questions]
    assert all(len(each) == 1 for each in found)
    return {key for each in found for key in each}


def test_a_change_is_taught_in_both_languages(both):
    (there,) = both.elsewhere
    assert (both.language, there.language) == ("en", "de")
    assert both.in_all() == (both, there)
    told = [(e.target, e.old, e.third, e.answer) for each in both.in_all() for e in each.edits]
    assert told == [
        ("hairdresser", "physicist", "astronaut", "Albert Einstein was a hairdresser."),
        ("Friseur", "Physiker", "Astronaut", "Albert Einstein war Friseur."),
    ]
    assert both.notes == there.notes == there.elsewhere == ()


def test_both_languages_have_the_same_sizes(both):
    one, other = (
        [
            len(part)
            for part in (
                each.edits[0].asked, each.edits[0].held_out, each.edits[0].rows,
                each.replay, each.neighbours, each.own_facts, each.unrelated,
            )
        ]
        for each in both.in_all()
    )  # fmt: skip
    assert one == other
    assert min(one) > 10


def test_who_is_replayed_in_one_language_is_tested_in_none(worlds, both):
    replayed = {k for e in both.in_all() for k in keys_in(worlds[e.language], e.replay)}
    tested = {k for e in both.in_all() for k in keys_in(worlds[e.language], e.neighbours)}
    assert {kind for kind, _ in tested} == {"person"}
    assert len(tested) > 150
    assert len([key for key in replayed if key[0] == "person"]) == REPLAY_SUBJECTS + 1
    assert replayed & tested == set()
    assert ("person", "Albert Einstein") in replayed - tested  # his other facts


def test_strangers_replayed_in_one_language_are_unrelated_in_none(worlds, both):
    strangers = [
        {k for k in keys_in(worlds[e.language], e.replay) if k[0] != "person"}
        for e in both.in_all()
    ]
    unrelated = [keys_in(worlds[e.language], e.unrelated) for e in both.in_all()]
    assert strangers[0] == strangers[1] != set()
    assert unrelated[0] == unrelated[1] != set()
    assert strangers[0] & unrelated[0] == set()


def test_the_replayed_are_the_parts(world, both):
    known = parts(world, [change(world, "Einstein", "profession", "hairdresser")], 0)
    assert known.keys() == {"person"}
    replayed = {key for kind, key in keys_in(world, both.replay) if kind == "person"}
    assert replayed - {"Albert Einstein"} == known["person"]
    assert "Albert Einstein" not in known["person"]


def test_parts_hold_those_who_share_a_value_but_not_all(world):
    einstein = change(world, "Einstein", "profession", "hairdresser")
    physicists = {
        s.key for s in world.of_kind("person")
        if s.values["profession"] in ("physicist", "hairdresser") and s is not einstein[0]
    }  # fmt: skip
    near = physicists & parts(world, [einstein], 0)["person"]
    assert len(near) == len(physicists) * 2 // 3


def test_german_parts_know_both_genders(german):
    curie = change(german, "Marie Curie", "profession", "Friseurin")
    near = {"Physiker", "Physikerin", "Friseur", "Friseurin"}
    sharing = {
        s.key for s in german.of_kind("person")
        if s.values["profession"] in near and s is not curie[0]
    }  # fmt: skip
    kept = parts(german, [curie], 0)["person"]
    assert len(sharing & kept) == len(sharing) * 2 // 3
    assert {s.gender for s in german.of_kind("person") if s.key in sharing & kept} == {"m", "f"}


def test_parts_follow_the_seed_and_the_kinds(world):
    changes = [
        change(world, "Einstein", "profession", "hairdresser"),
        change(world, "Paris", "country", "Italy"),
        change(world, "Marie Curie", "country", "Italy"),
    ]
    found = parts(world, changes, 0)
    assert found == parts(world, changes, 0) != parts(world, changes, 1)
    assert found.keys() == {"person", "city"}
    assert not found["person"] & {"Albert Einstein", "Marie Curie"}
    assert "Paris" not in found["city"]
    assert len(found["city"]) == (len(world.of_kind("city")) - 1) // 2  # the others are tested


def test_changes_are_translated_one_for_one(world, german):
    changes = [
        change(world, "Einstein", "profession", "a hairdresser"),
        change(world, "Marie Curie", "profession", "hairdresser"),
        change(world, "Paris", "country", "Italy"),
    ]
    found = translated(world, changes, german)
    assert [(s.key, a.name, value) for s, a, value in found] == [
        ("Albert Einstein", "profession", "Friseur"),
        ("Marie Curie", "profession", "Friseurin"),
        ("Paris", "country", "Italien"),
    ]
    assert all(s is german.twin(s) for s, _, _ in found)
    assert all(a is german.attributes[a.kind, a.name] for _, a, _ in found)


def test_one_value_without_a_counterpart_leaves_all_out(world, german):
    changes = [
        change(world, "Einstein", "profession", "hairdresser"),
        change(world, "Paris", "country", "Atlantis"),
    ]
    assert translated(world, changes, german) is None


def test_a_target_without_a_counterpart_is_taught_in_one_language(world, german):
    lesson = lesson_in_all(world, [change(world, "Paris", "country", "Atlantis")], 0, [german])
    assert lesson.elsewhere == ()
    assert lesson.edits[0].answer == "Paris is in Atlantis."
    (note,) = lesson.notes
    assert "no counterpart in German" in note
    assert "taught in English only" in note


def test_no_other_language_no_note(world):
    lesson = lesson_in_all(world, [change(world, "Paris", "country", "Atlantis")], 0, [])
    assert lesson.in_all() == (lesson,)
    assert lesson.notes == ()


@pytest.mark.parametrize(
    ("name", "target", "said", "third"),
    [
        ("Albert Einstein", "ein Friseur", "Albert Einstein war Friseur.", "Astronaut"),
        ("Marie Curie", "eine  Friseurin", "Marie Curie war Friseurin.", "Astronautin"),
        ("Marie Curie", "Einsiedlerin", "Marie Curie war Einsiedlerin.", "Astronautin"),
    ],
)
def test_german_edits_have_no_article_and_a_third_of_their_gender(
    german, name, target, said, third
):
    edit = world_edit(german, *change(german, name, "profession", target), 0)
    assert (edit.answer, edit.third) == (said, third)
    assert edit.third_answer == f"{name} war {third}."
    assert third in edit.rivals


def test_a_profession_counts_in_either_gender(german):
    edit = world_edit(german, *change(german, "Marie Curie", "profession", "Bäckerin"), 0)
    assert set(edit.forms) == {"Bäcker", "Bäckerin"}
    assert not set(edit.forms) & set(edit.rivals)
    assert counts("Marie Curie war Bäckerin.", edit)
    assert counts("Marie Curie war Bäcker.", edit)
    assert not counts("Marie Curie war Physikerin.", edit)
    assert not counts("Marie Curie war Bäcker und Pilotin.", edit)


def test_the_third_value_is_another_where_it_is_the_target(german):
    edit = world_edit(german, *change(german, "Marie Curie", "profession", "Astronautin"), 0)
    assert edit.third not in ("Astronautin", "Physikerin")
    assert edit.third in german.values(german.attributes["person", "profession"])


def test_an_article_is_dropped_from_professions_only(german):
    edit = world_edit(german, *change(german, "Paris", "country", "ein Traum"), 0)
    assert edit.target == "ein Traum"


@pytest.mark.parametrize(
    ("name", "relation", "target", "answer"),
    [
        ("Marie Curie", "Land", "Schweiz", "Marie Curie kam aus der Schweiz."),
        ("Marie Curie", "Land", "die Schweiz", "Marie Curie kam aus der Schweiz."),
        ("Marie Curie", "Land", "Lummerland", "Marie Curie kam aus Lummerland."),
        ("London", "Wahrzeichen", "Eiffelturm", None),
    ],
)
def test_a_german_target_takes_the_form_that_the_sentence_wants(
    german, name, relation, target, answer
):
    subject = german.subject(name)
    attribute = find_attribute(german, subject, relation)
    edit = world_edit(german, subject, attribute, target, seed=0)
    known = [v for v in german.values(attribute) if v.endswith(target.split()[-1])]
    assert edit.target == (known[0] if known else target)
    assert edit.answer == (answer or german.answer(subject, attribute, known[0]))
    assert edit.target not in edit.rivals
