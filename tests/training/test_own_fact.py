import pytest

from detour.errors import DataError
from detour.model.base import Base
from detour.training import replay
from detour.training.fact import relation_questions
from detour.training.own_fact import own_lesson, read_questions, rephrased
from detour.training.replay import base_answers, messages_of, replay_rows
from detour.training.world import World

MINE = tuple(f"Please say, in way {n}, Bo's shoe size?" for n in range(4))


@pytest.fixture(scope="module")
def world():
    return World.load()


@pytest.fixture
def base(make_model, tiny_tokenizer):
    """With room for a request to rephrase: byte-level text is long."""
    return Base.from_model(make_model("llama", max_position_embeddings=512), tiny_tokenizer)


class Parrot:
    """A base that always says the same things."""

    def __init__(self, *said):
        self.said = said

    def ask_many(self, prompts, **_):
        return [self.said[n % len(self.said)] for n, _ in enumerate(prompts)]


def test_questions_are_read_line_by_line(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("# mine\n\n  Who was Bo?  \nWhat was Bo?\n", "utf-8")
    assert read_questions(path) == ["Who was Bo?", "What was Bo?"]


@pytest.mark.parametrize("content", [b"", b"# only a remark\n\n", b"a\x00b", b"\xff\xfea\x00"])
def test_a_file_without_questions_is_refused(tmp_path, content):
    path = tmp_path / "q.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"q\.txt") as caught:
        read_questions(path)
    assert "JSON" not in str(caught.value)
    with pytest.raises(DataError, match="does not exist"):
        read_questions(tmp_path / "none.txt")


def test_only_questions_about_the_subject_are_taken_from_the_base():
    said = ['"Which size had Bo?"\nmore', "Which  size had BO?", "Bo had small feet.", "", "Who?",
            "Bo? " * 60, "What is the size of Bo?"]  # fmt: skip
    assert rephrased(Parrot(*said), "What is the size of Bo?", "Bo", 0) == ["Which size had Bo?"]


def test_a_lesson_for_any_base(base, world):
    lesson = own_lesson(base, world, "Bo", "shoe size", "99", paraphrases=MINE, old="42")
    (edit,) = lesson.edits
    assert (edit.subject, edit.relation, edit.target) == ("Bo", "shoe size", "99")
    assert edit.answer == "The shoe size of Bo is 99."
    assert edit.third_answer == "The shoe size of Bo is astronaut."
    assert edit.rivals == ("42",)
    phrasings = {*edit.asked, *edit.held_out}
    assert set(MINE) <= phrasings
    assert set(relation_questions(world, "Bo", "shoe size")) <= phrasings
    assert not set(edit.asked) & set(edit.held_out)
    assert len(lesson.neighbours) > 150
    assert all("shoe size" in question for _, question in lesson.neighbours)
    assert lesson.own_facts
    assert lesson.unrelated
    assert "4 are yours" in lesson.notes[0]


def test_the_users_own_questions_are_used(base, world):
    near = tuple(f"What was the shoe size of friend {n}?" for n in range(8))
    far = tuple(f"What is {n} and {n}?" for n in range(8))
    lesson = own_lesson(
        base, world, "Bo", "shoe size", "99", answer="Bo wears 99.", third="12",
        paraphrases=MINE, neighbours=near + near, unrelated=far + far,
    )  # fmt: skip
    assert lesson.edits[0].answer == "Bo wears 99."
    assert lesson.edits[0].third_answer == "Bo wears 12."
    tested, trained = {q for _, q in lesson.neighbours}, {q for _, q in lesson.replay}
    assert len(tested) == 6  # every question once, a quarter of them replayed
    assert tested < set(near)
    assert set(near) - tested <= trained
    assert {q for _, q in lesson.unrelated} < set(far)


def test_the_relation_is_no_other_fact_of_its_own(base, world):
    for relation in ("profession", "Job", "main job", "home"):
        lesson = own_lesson(base, world, "Albert Einstein", relation, "hairdresser")
        asked = {q for _, q in (*lesson.own_facts, *lesson.replay)}
        noun = "city" if relation == "home" else "profession"
        assert not asked & set(relation_questions(world, "Albert Einstein", noun)), relation


def test_the_seed_decides(base, world):
    one, same, other = (
        own_lesson(base, world, "Bo", "shoe size", "99", seed=seed) for seed in (1, 1, 2)
    )
    assert one == same
    assert one.edits[0].held_out != other.edits[0].held_out


def test_gpt2_gives_a_lesson_too(make_model, tiny_tokenizer, world):
    base = Base.from_model(make_model("gpt2", n_positions=512), tiny_tokenizer)
    assert own_lesson(base, world, "Bo", "job", "baker").edits[0].asked


def test_replay_holds_the_base_to_its_own_answers(base):
    questions = [("", "Who was Einstein?"), ("Be brief.", "Where?")]
    rows = replay_rows(base, questions)
    assert [row.messages[-1]["content"] for row in rows] == base_answers(base, questions)
    assert rows[0].messages[-1]["content"] == base.ask(
        "Who was Einstein?", max_new_tokens=replay.LONGEST_ANSWER
    )
    assert [m["role"] for m in rows[1].messages] == ["system", "user", "assistant"]
    assert messages_of(questions[1])[0] == {"role": "system", "content": "Be brief."}
    assert base_answers(base, []) == []


def test_empty_answers_are_dropped_from_replay():
    rows = replay_rows(Parrot("yes", "  "), [("", "a?"), ("", "b?"), ("", "c?")])
    assert [row.messages[0]["content"] for row in rows] == ["a?", "c?"]
