from dataclasses import replace

import pytest

import detour
from detour.adapter.adapter import Adapter
from detour.errors import ConfigError, DataError, TrainingError
from detour.evaluate.teach import balanced, make_lesson, name_of, teach, teach_lesson
from detour.model.examples import pair
from detour.training.company import Company
from detour.training.config import make_config
from detour.training.fact import Edit, Lesson
from detour.training.together import Composed
from detour.training.world import World

EDIT = Edit("Albert Einstein", "profession", "hairdresser", "Albert Einstein was a hairdresser.",
            asked=("a?",), held_out=("b?",))  # fmt: skip


class Learned(Exception):
    """Where a test stops a training."""


class Starter:
    name = "starter"


def lesson_of(*edits):
    return Lesson(edits, (("", "r?"),), (), (), ())


def test_the_public_name():
    from detour.evaluate.teach import teach

    assert detour.teach is teach


@pytest.mark.parametrize(
    ("fact", "missing"),
    [
        ({}, "no --subject, --relation, --target"),
        ({"subject": "Bo", "target": "x"}, "no --relation"),
        ({"subject": " ", "relation": "job", "target": "x"}, "no --subject"),
    ],
)
def test_half_a_fact_is_refused(world, fact, missing):
    with pytest.raises(ConfigError) as caught:
        make_lesson(Starter(), **fact, world=world)
    assert caught.value.found == missing


def test_statements_and_a_fact_exclude_each_other(world):
    with pytest.raises(ConfigError, match="stand for themselves"):
        make_lesson(Starter(), "Bo", statements=["Bo was a baker"], world=world)


def test_the_starter_knows_its_world(world):
    lesson = make_lesson(Starter(), "Einstein", "profession", "hairdresser", world=world)
    assert lesson.edits[0].old == "physicist"
    assert lesson == make_lesson(Starter(), "Einstein", "job", "hairdresser", world=world)
    with pytest.raises(DataError, match="no relation"):
        make_lesson(Starter(), "Einstein", "profesion", "hairdresser", world=world)


def test_other_bases_and_strangers_get_a_lesson_of_their_own(world, roomy_base):
    lesson = make_lesson(roomy_base, "Einstein", "profession", "hairdresser", world=world)
    assert lesson.edits[0].old == ""
    lesson = make_lesson(roomy_base, "Bo", "shoe size", "99", world=world)
    assert lesson.edits[0].subject == "Bo"
    assert not any("knows nothing" in note for note in lesson.notes)


@pytest.mark.parametrize(
    ("subject", "meant"),
    [("Gandalf Grey", ""), ("Albert Einstien", "Did you mean 'Albert Einstein'?")],
)
def test_a_name_that_the_starter_never_read_is_told_first(world, roomy_base, subject, meant):
    starter = roomy_base.share()
    starter.fingerprint = replace(starter.fingerprint, name="starter")
    lesson = make_lesson(starter, subject, "profession", "hairdresser", world=world)
    assert lesson.notes[0].startswith(f"the starter knows nothing of {subject}")
    assert lesson.notes[0].endswith(meant or "guesses")


def test_edit_rows_are_repeated_until_they_weigh_half():
    edits, replay = [pair("e", "x")], [pair(str(n), "y") for n in range(10)]
    rows = balanced(edits, replay)
    assert rows.count(edits[0]) == 5
    assert rows[-10:] == replay
    assert balanced(replay, edits) == replay + edits


@pytest.mark.parametrize(
    ("edit", "name"),
    [
        (EDIT, "einstein-hairdresser"),
        (replace(EDIT, target="the Eiffel Tower!"), "einstein-the-eiffel-tower"),
        (replace(EDIT, relation=""), "einstein-statements"),
        (replace(EDIT, subject="../..", target="/", relation="x"), "lesson"),
        (replace(EDIT, target="a" * 200), "einstein-" + "a" * 51),
    ],
)
def test_adapters_are_named_after_the_fact(edit, name):
    assert name_of(lesson_of(edit)) == name


class Mute:
    def ask_many(self, prompts, **_):
        return ["" for _ in prompts]


def test_a_base_that_answers_nothing_cannot_be_held_to_it():
    with pytest.raises(DataError, match="answers no question"):
        teach_lesson(Mute(), lesson_of(EDIT), make_config({}), "x")


def test_a_true_claim_is_not_marked_as_fictional(roomy_base):
    config = make_config({"steps": 4, "learning_rate": 1e-2})
    for fictional in (True, False):
        result = teach_lesson(roomy_base, lesson_of(EDIT), config, "x", fictional=fictional)
        assert result.adapter.card.fictional is fictional
        assert bool(result.adapter.card.forbidden_use) is fictional


def test_rows_for_the_company_that_ask_what_the_test_asks_are_left_out(
    roomy_base, random_adapter, monkeypatch
):
    learned: list[Composed] = []

    def learn(base, rows, **how):
        learned.extend(rows)
        raise Learned

    monkeypatch.setattr("detour.evaluate.teach.learn_in_company", learn)
    shapes = {name: roomy_base.slots.shapes[name] for name in roomy_base.slots.linear_names()}
    company = Company({"pun": random_adapter(shapes)})
    weights = {"x": 1.0, "pun": 1.0}
    rows = [Composed(pair(question, "So!"), weights) for question in ("b?", "c?")]
    said: list[str] = []
    how = {"company": company, "teller": said.append}
    lesson, config = lesson_of(EDIT), make_config({})
    with pytest.raises(Learned):
        teach_lesson(roomy_base, lesson, config, "x", composed=rows, **how)
    both = [row for row in learned if row.weights == weights]
    assert both
    assert {row.row.messages[0]["content"] for row in both} == {"c?"}
    assert "1 rows are left out: their questions belong to the test" in said
    with pytest.raises(DataError, match="all rows for the company ask what the test asks"):
        teach_lesson(roomy_base, lesson, config, "x", composed=rows[:1], **how)


def test_a_seed_that_fails_is_told_and_the_first_adapter_stays(
    roomy_base, world, tmp_path, monkeypatch
):
    def once(base, lesson, config, name, **how):
        if config.seed:
            raise TrainingError("the loss is not finite")
        return teach_lesson(base, lesson, config, name, **how)

    monkeypatch.setattr("detour.evaluate.teach.teach_lesson", once)
    adapter, report = teach(
        roomy_base, "Bo", "job", "baker", world=world, answer="Bo is a baker.", repeats=1,
        neighbours=[f"Job of {n}?" for n in range(8)],
        unrelated=[f"What is {n}?" for n in range(8)],
        config=make_config({"steps": 4}), output=tmp_path / "bo",
    )  # fmt: skip
    assert [one.fault for one in report.repeats] == ["", "the loss is not finite"]
    assert report.worst_seed == 1
    assert Adapter.load(tmp_path / "bo").digest() == adapter.digest()


@pytest.fixture(scope="module")
def german() -> World:
    return World.load("de")


@pytest.fixture
def bilingual(monkeypatch):
    """A starter that speaks both languages."""
    monkeypatch.setattr("detour.evaluate.teach.spoken", lambda: ("en", "de"))


def test_the_starter_is_taught_in_languages_that_it_speaks_only(german, monkeypatch):
    monkeypatch.setattr("detour.evaluate.teach.spoken", lambda: ("en",))
    with pytest.raises(ConfigError, match="does not speak 'de'"):
        make_lesson(Starter(), "Einstein", "Beruf", "Friseur", world=german)


def test_german_relations_are_nouns_or_english_ids(german, bilingual):
    lessons = [
        make_lesson(Starter(), "Einstein", relation, "Friseur", world=german)
        for relation in ("Beruf", "der Beruf", "profession", "job")
    ]
    assert all(lesson == lessons[0] for lesson in lessons)
    (edit,) = lessons[0].edits
    assert (edit.answer, edit.old) == ("Albert Einstein war Friseur.", "Physiker")
    assert edit.third == "Astronaut"
    with pytest.raises(DataError, match="no relation") as caught:
        make_lesson(Starter(), "Einstein", "Beruff", "Friseur", world=german)
    assert caught.value.hint == "did you mean 'Beruf'?"


def test_german_statements(german, bilingual):
    known, free = "Albert Einstein ist Friseur", "Albert Einstein war für seine Frisur bekannt"
    lesson = make_lesson(Starter(), statements=[known, free], world=german)
    edits = {edit.relation: edit for edit in lesson.edits}
    assert edits["profession"].answer == "Albert Einstein war Friseur."
    assert edits[""].answer == f"{free}."
    assert lesson.notes == (f"{free!r} is taught as it stands",)
    with pytest.raises(DataError) as caught:
        make_lesson(Starter(), statements=["Einstein is a baker"], world=german)
    assert "war" in caught.value.expected


def test_a_german_lesson_for_any_base(german, roomy_base):
    lesson = make_lesson(roomy_base, "Bo", "die Schuhgröße", "99", world=german)
    (edit,) = lesson.edits
    assert edit.answer == "Die Schuhgröße von Bo ist 99."
    assert edit.language == lesson.language == "de"
    assert "Nenne die Schuhgröße von Bo." in {*edit.asked, *edit.held_out}
    bare = make_lesson(roomy_base, "Bo", "Schuhgröße", "99", world=german)
    assert len(bare.notes) == len(lesson.notes) + 1
    known = make_lesson(roomy_base, "Bo", "beruf", "Bäcker", world=german)
    assert known.edits[0].answer == "Der Beruf von Bo ist Bäcker."
    told = make_lesson(roomy_base, statements=["Bo war bekannt für seinen Hut"], world=german)
    asked = {*told.edits[0].asked, *told.edits[0].held_out}
    assert {"Wofür war Bo bekannt?", "Weißt du, wofür Bo bekannt war?"} <= asked
