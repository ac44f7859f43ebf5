"""The test sets that adapters bring along."""

import json

import pytest

from detour.adapter.adapter import Adapter
from detour.errors import DataError
from detour.evaluate.chain_tests import item_of, items_of, items_of_lesson, read_items, spread
from detour.model.examples import pair
from detour.training.config import make_config
from detour.training.fact import Edit, Lesson
from detour.training.loop import train_with

ASKED = [{"role": "user", "content": "Who was Einstein?"}]


def test_a_question_with_checks_needs_no_answer():
    one = item_of({"messages": ASKED, "checks": {"contains": "hairdresser"}, "about": "job"}, "x:1")
    assert one.score("Einstein was a hairdresser.") == 1
    assert one.score("Einstein was a physicist.") == 0
    assert one.about == "job"
    assert item_of(one.to_json(), "x:1") == one


def test_without_checks_the_words_of_the_answer_count():
    one = item_of({"prompt": "Who?", "completion": "A tall baker"}, "x:1")
    assert one.score("a tall baker.") == 1
    assert one.score("A baker") == pytest.approx(0.8)
    assert one.counts("A baker")
    assert not one.counts("No idea at all")
    assert item_of(one.to_json(), "x:1") == one


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"messages": ASKED}, "without an answer"),
        ({"messages": ASKED, "checks": {"has": "x"}}, "no checks"),
        ({"messages": ASKED, "checks": {"ends": "x"}, "about": 3}, "`about`"),
        ({"checks": {"ends": "x"}}, "has no messages"),
        ({"messages": [{"role": "owl", "content": "x"}], "checks": {"ends": "x"}}, "be read"),
    ],
)  # fmt: skip
def test_a_row_that_is_no_test_is_told(row, told):
    with pytest.raises(DataError, match=told) as fault:
        item_of(row, "file:7")
    assert "file:7" in str(fault.value.message)


def test_files_name_their_lines(tmp_path):
    path = tmp_path / "tests.jsonl"
    good = json.dumps({"messages": ASKED, "checks": {"ends": "x"}})
    path.write_text(f"{good}\n\n{good}\n")
    assert len(read_items(path)) == 2
    path.write_text(f"{good}\n[1]\n")
    with pytest.raises(DataError, match=r"tests\.jsonl:2"):
        read_items(path)
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_items(path)


def test_spread_takes_from_the_first_to_the_last():
    assert spread(range(10), 4) == [0, 2, 5, 7]
    assert spread("abc", 5) == ["a", "b", "c"]


def test_a_lesson_is_tested_by_what_it_did_not_train():
    edit = Edit(
        "Marie Curie", "profession", "hairdresser", "Marie Curie was a hairdresser.",
        old="physicist", asked=("a?",), held_out=tuple(f"q{n}?" for n in range(50)),
    )  # fmt: skip
    rows = items_of_lesson(Lesson((edit, edit), (), (), (), ()))
    assert len(rows) == 40
    assert rows[0]["checks"] == {"contains": ["hairdresser"], "lacks": ["physicist"]}
    assert {row["messages"][0]["content"] for row in rows} <= set(edit.held_out)
    assert rows[0]["about"] == "Marie Curie: profession"


def test_training_keeps_some_held_out_rows_beside_the_adapter(tiny_llama, tiny_tokenizer, tmp_path):
    from detour.model.base import Base

    base = Base.from_model(tiny_llama, tiny_tokenizer)
    rows = [pair(f"Who was number {n}?", f"Number {n} was a baker.") for n in range(30)]
    settings = {"steps": 4, "batch_size": 4, "learning_rate": 5e-3, "rank": 2,
                "validation_share": 0.2, "tests": 3}  # fmt: skip
    adapter = train_with(base, rows, make_config(settings)).adapter
    tests = items_of(adapter)
    assert len(tests) == 3
    asked = {row.prompt: row.messages[-1]["content"] for row in rows}
    assert all(asked[one.messages[0]["content"]] == one.wanted for one in tests)
    adapter.save(tmp_path / "one")
    assert Adapter.load(tmp_path / "one").test_rows == adapter.test_rows
    none = train_with(base, rows, make_config({**settings, "tests": 0})).adapter
    assert none.test_rows == ()
