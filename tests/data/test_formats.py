"""What rows mean is told from their columns, and said; what cannot be told is asked for."""

import shlex
from typing import Any

import pytest

from detour.data.formats import detect
from detour.data.forms import Raw
from detour.data.numbers import number_of
from detour.data.records import Labelled, Plain, Record, Valued
from detour.errors import ConfigError, DataError, NoSupervision
from detour.model.examples import Example

CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]


def raws(*rows: dict[str, Any]) -> list[Raw]:
    return [Raw(row, f"a.jsonl:{number}") for number, row in enumerate(rows, start=1)]


def read(row: dict[str, Any], **settings: Any) -> tuple[str, Record]:
    rows = raws(row)
    found = detect(rows, **settings)
    return found.name, found.record(rows[0])


def turns(record: Record) -> list[tuple[str, str]]:
    assert isinstance(record, Example)
    return [(message["role"], message["content"]) for message in record.messages]


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": CHAT}, "messages"),
        ({"id": 7, "conversations": [{"from": "human", "value": "Hi"},
                                     {"from": "gpt", "value": "Ho"}]}, "sharegpt"),
        ({"instruction": "Hi", "input": "", "output": "Ho"}, "alpaca"),
        ({"prompt": "Hi", "completion": "Ho"}, "prompt_completion"),
        ({"Frage": "Hi", "Antwort": "Ho", "Nr": 3}, "prompt_completion"),
        ({"input": "Hi", "output": "Ho"}, "prompt_completion"),
        ({"question": "Hi", "response": "Ho"}, "prompt_completion"),
        ({"sni_input": "Hi", "sni_output": ["Ho", "Hoho"]}, "sni"),
    ],
)  # fmt: skip
def test_conversations_by_any_name(row: dict[str, Any], name: str) -> None:
    told, record = read(row)
    assert told == name
    assert turns(record) == [("user", "Hi"), ("assistant", "Ho")]


def test_alpaca_puts_the_input_behind_the_instruction_and_the_system_before() -> None:
    row = {"system": "Be brief.", "instruction": "Add.", "input": "1 1", "output": "2"}
    assert turns(read(row)[1]) == [
        ("system", "Be brief."), ("user", "Add.\n\n1 1"), ("assistant", "2"),
    ]  # fmt: skip


def test_texts_with_a_class_a_number_or_nothing() -> None:
    assert read({"text": "good", "label": "pos"}) == (
        "classification", Labelled("good", "pos", "a.jsonl:1"),
    )  # fmt: skip
    assert read({"text": "good", "label": 3})[1] == Labelled("good", "3", "a.jsonl:1")
    assert read({"text": "good", "value": "3,5"})[1] == Valued("good", 3.5, "a.jsonl:1")
    assert read({"text": "good", "score": 2})[0] == "regression"
    assert read({"review": "good"}) == ("text", Plain("good", "a.jsonl:1"))


def test_measured_labels_are_numbers_and_counted_ones_are_classes() -> None:
    measured = detect(raws({"text": "a", "label": 0.25}, {"text": "b", "label": 3}))
    assert (measured.name, measured.columns) == (
        "regression", {"text": "text", "value": "label"},
    )  # fmt: skip
    assert detect(raws({"text": "a", "label": 0}, {"text": "b", "label": 1})).kind == (
        "classification"
    )


def test_columns_can_be_named_and_are_said() -> None:
    rows = raws({"Anliegen": "Hi", "Reaktion": "Ho"})
    found = detect(rows, {"prompt": "Anliegen", "completion": "Reaktion"})
    assert turns(found.record(rows[0])) == [("user", "Hi"), ("assistant", "Ho")]
    assert str(found.told) == (
        "format prompt_completion: 'Anliegen' is the prompt, 'Reaktion' is the completion"
    )


def told_to(hint: str) -> dict[str, Any]:
    """What the flags of a hint say, as arguments of `detect`."""
    flags = shlex.split(hint)
    given = list(zip(flags[::2], flags[1::2], strict=True))
    columns = dict(value.split("=", 1) for flag, value in given if flag == "--column")
    return {"columns": columns, "name": dict(given).get("--format")}


@pytest.mark.parametrize(
    ("row", "lost", "hint"),
    [
        ({"question": "q", "context": "c", "answer": "a"}, "context",
         "--column instruction=question --column input=context --column output=answer"),
        ({"prompt": "q", "passage": "c", "completion": "a", "id": 3}, "passage",
         "--column instruction=prompt --column input=passage --column output=completion"),
        ({"instruction": "q", "input": "i", "Kontext": "c", "output": "a"}, "Kontext",
         "--column input=Kontext"),
        ({"text": "t", "summary": "s"}, "summary",
         "--column prompt=text --column completion=summary"),
        ({"text": "t", "answer": "a"}, "answer", "--column prompt=text --column completion=answer"),
        ({"text": "t", "label": "x", "Antwort": "a"}, "Antwort",
         "--column prompt=text --column completion=Antwort"),
        ({"question": "q", "answer": "a", "the answer": "b", "response": "b"}, "response",
         "--column completion=response"),
        ({"text": "t", "label": 0.5, "output": "a"}, "output",
         "--format regression --column value=label"),
        ({"messages": CHAT, "tools": [{"name": "f"}]}, "tools", ""),
        ({"prompt": "q", "completion": "a", "history": [["b", "c"]]}, "history", ""),
    ],
)  # fmt: skip
def test_what_is_asked_or_answered_is_never_left_out_silently(
    row: dict[str, Any], lost: str, hint: str
) -> None:
    with pytest.raises(DataError, match=f"column '{lost}' would be lost") as refused:
        read(row)
    assert hint in refused.value.hint
    settings = told_to(refused.value.hint.partition("leave it out: ")[2])
    assert read(row, **settings) == read({k: v for k, v in row.items() if k != lost})


def test_the_advice_for_a_context_puts_it_behind_the_question() -> None:
    row = {"question": "q", "context": "c", "answer": "a"}
    columns = {"instruction": "question", "input": "context", "output": "answer"}
    assert turns(read(row, columns=columns)[1]) == [("user", "q\n\nc"), ("assistant", "a")]


def test_columns_without_a_role_are_said() -> None:
    rows = raws({"id": 1, "Frage": "Hi", "Antwort": "Ho", "note": "", "context": None})
    found = detect(rows)
    assert found.left == ("id",)
    assert str(found.told) == (
        "format prompt_completion: 'Frage' is the prompt, 'Antwort' is the completion; "
        "not learned: 'id'"
    )
    assert "not learned: 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', …" in str(
        detect(raws({"text": "x", **dict.fromkeys("abcdefghi", 1)})).told
    )


def test_a_later_row_is_not_robbed_either() -> None:
    rows = raws({"prompt": "Hi", "completion": "Ho"}, {"prompt": "Hi", "context": "c",
                                                      "completion": "Ho"})  # fmt: skip
    found = detect(rows[:1])
    with pytest.raises(DataError, match=r"a\.jsonl:2: column 'context' would be lost"):
        found.record(rows[1])
    named = detect(rows[:1], {"prompt": "prompt", "completion": "completion"})
    assert named.record(rows[1]).prompt == "Hi"  # type: ignore[union-attr]


def test_columns_of_rows_in_another_format_are_not_left_out() -> None:
    rows = raws({"messages": CHAT}, {"prompt": "Hi", "completion": "Ho"})
    found = detect(rows)
    assert (found.name, found.left) == ("messages", ())
    assert turns(found.record(rows[1])) == turns(found.record(rows[0]))


def test_a_system_column_stands_before_a_conversation() -> None:
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
    for row in ({"system": "Be brief.", "conversations": talk},
                {"system_prompt": "Be brief.", "messages": CHAT}):  # fmt: skip
        assert turns(read(row)[1]) == [
            ("system", "Be brief."), ("user", "Hi"), ("assistant", "Ho"),
        ]  # fmt: skip
    system = {"role": "system", "content": "Be brief."}
    same = {"system": "Be brief.", "messages": [system, *CHAT]}
    assert turns(read(same)[1])[0] == ("system", "Be brief.")
    with pytest.raises(DataError, match="two system messages"):
        read({**same, "system": "Be long."})


def test_whole_numbers_name_classes_however_they_are_written() -> None:
    rows = raws({"text": "a", "label": 0.0}, {"text": "b", "label": 1.0}, {"text": "c", "label": 1})
    found = detect(rows)
    assert [found.record(row).label for row in rows] == ["0", "1", "1"]  # type: ignore[union-attr]
    with pytest.raises(DataError, match="column 'label'") as refused:
        found.record(Raw({"text": "d", "label": 0.5}, "a.jsonl:4"))
    assert "--column value=label" in refused.value.hint


def test_a_named_column_wins_over_a_name_that_is_known() -> None:
    rows = raws({"text": "Hi", "label": "x", "kind": "y"})
    assert detect(rows, {"label": "kind"}).record(rows[0]) == Labelled("Hi", "y", "a.jsonl:1")
    assert detect(rows, name="text").record(rows[0]) == Plain("Hi", "a.jsonl:1")


def test_what_is_not_there_is_named() -> None:
    rows = raws({"frage": "Hi", "reaktion": "Ho"})
    with pytest.raises(ConfigError, match="no column 'Reaktion'") as wrong:
        detect(rows, {"completion": "Reaktion"})
    assert "reaktion" in wrong.value.hint
    with pytest.raises(ConfigError, match="no column can be the 'answers'"):
        detect(rows, {"answers": "reaktion"})
    with pytest.raises(ConfigError, match="unknown format"):
        detect(rows, name="parquet")
    with pytest.raises(DataError, match="the columns do not say") as unknown:
        detect(rows)
    assert unknown.value.found == "'frage', 'reaktion'"
    assert "--column" in unknown.value.hint


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "", "completion": "x"}, "column 'prompt'"),
        ({"prompt": "x", "completion": None}, "column 'completion'"),
        ({"prompt": "x", "completion": "\ud800"}, "column 'completion'"),
        ({"text": "x", "label": None}, "column 'label'"),
        ({"text": "x", "value": "many"}, "column 'value'"),
        ({"text": "x", "value": "nan"}, "column 'value'"),
        ({"conversations": [{"from": "alien", "value": "x"}]}, "unknown speaker"),
        ({"conversations": []}, "column 'conversations'"),
    ],
)
def test_rows_that_lack_something_are_named(row: dict[str, Any], told: str) -> None:
    with pytest.raises(DataError, match=told) as wrong:
        read(row)
    assert "a.jsonl:1" in str(wrong.value)


def test_an_answer_that_is_missing_teaches_nothing() -> None:
    with pytest.raises(NoSupervision, match="column 'antwort'"):
        read({"frage": "Hi", "antwort": None})
    with pytest.raises(NoSupervision):
        read({"messages": CHAT[:1]})
    with pytest.raises(NoSupervision):
        read({"conversations": [{"from": "human", "value": "Hi"}]})


def test_what_turns_hold_beside_their_text_is_not_lost_on_the_way() -> None:
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho", "weight": 0},
            {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hu"}]  # fmt: skip
    _, record = read({"conversations": talk})
    assert isinstance(record, Example)
    assert [message.get("weight") for message in record.messages] == [None, 0, None, None]
    with pytest.raises(DataError, match="message 4 holds 'tool_calls'"):
        read({"conversations": [*talk[:3], {**talk[3], "tool_calls": [{"name": "f"}]}]})


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("3,14", 3.14), ("1.234,5", 1234.5), ("-0,5", -0.5), ("1e3", 1000.0), (" 7 ", 7.0),
        (2, 2.0), ("1,2,3", None), ("", None), (True, None), (None, None), ("inf", None),
        ([1], None), (10**400, None), ("1.234.567", 1234567.0), ("12,3456", 12.3456),
        ("1,250", None), ("1.250", None), ("0,125", 0.125), ("12345,678", 12345.678),
        ("1,23,456", None), ("12 %", 12.0), ("1 234,5", 1234.5), ("€ 3,20", 3.2),
        ("3.20 EUR", 3.2), ("1'234.50", 1234.5), ("\u22127,5", -7.5), ("12 34", None),
        ("3 kg", None), ("$ 3 %", None),
    ],
)  # fmt: skip
def test_numbers_are_read_with_either_comma(given: object, number: float | None) -> None:
    assert number_of(given) == number


def values(*given: object, **settings: Any) -> tuple[str, list[float]]:
    """How a column of numbers is understood, and what is read."""
    rows = raws(*({"text": f"t{number}", "value": one} for number, one in enumerate(given)))
    found = detect(rows, **settings)
    records = [found.record(row) for row in rows]
    return str(found.told), [one.value for one in records if isinstance(one, Valued)]


def test_the_decimal_mark_is_that_of_the_whole_column_and_is_said() -> None:
    german = values("1.234", "2,5", "1.234,5", "980")
    assert german == ("format regression; decimal comma", [1234.0, 2.5, 1234.5, 980.0])
    english = values("1,234", "2.5", "1,234.5", "980")
    assert english == ("format regression; decimal point", [1234.0, 2.5, 1234.5, 980.0])
    percent = values("12,5 %", "1 234,5 %", "3%")
    assert percent == ("format regression; decimal comma, in %", [12.5, 1234.5, 3.0])
    assert values(1.234, 980) == ("format regression", [1.234, 980.0])


@pytest.mark.parametrize("given", [("1,101", "920"), ("1.250", "980", "12.100"), ("1,250", 7)])
def test_groups_of_three_digits_are_not_taken_for_decimals_or_thousands(given: Any) -> None:
    with pytest.raises(DataError, match="can be read in two ways") as refused:
        values(*given)
    assert f"{given[0]!r} (a.jsonl:1)" in refused.value.found
    assert "--decimal point or --decimal comma" in refused.value.hint
    sign = "," if "," in given[0] else "."
    as_groups = float(given[0].replace(sign, ""))
    as_decimal = float(given[0].replace(sign, "."))
    point = values(*given, decimal="point")[1][0]
    comma = values(*given, decimal="comma")[1][0]
    assert (point, comma) == ((as_groups, as_decimal) if sign == "," else (as_decimal, as_groups))


def test_numbers_that_are_written_in_two_ways_are_refused() -> None:
    with pytest.raises(DataError, match="has decimal points and decimal commas") as refused:
        values("2,5", "1.5", "1.250")
    assert refused.value.found == "'1.5' (a.jsonl:2), '2,5' (a.jsonl:1)"
    with pytest.raises(DataError, match=r"a\.jsonl:2 .*expected a number \(decimal comma\)"):
        values("2,5", "1.5", decimal="comma")
    with pytest.raises(DataError, match=r"a\.jsonl:3 .*expected a number \(in %\); found '12'"):
        values("12 %", "14 %", "12")
    late = detect(raws({"text": "t", "value": 2}))
    with pytest.raises(DataError, match="--decimal point or --decimal comma"):
        late.record(Raw({"text": "t", "value": "1,250"}, "a.jsonl:2"))


def test_labels_that_may_be_thousands_are_asked_for() -> None:
    with pytest.raises(DataError, match="column 'label' can be read in two ways"):
        read({"text": "t", "label": "1,250"})


def test_a_decimal_mark_for_what_has_no_numbers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--decimal says nothing about rows of the format"):
        read({"prompt": "Hi", "completion": "Ho"}, decimal="comma")


def test_the_definition_of_a_task_file_is_its_system_message() -> None:
    row = {"sni_definition": ["Add the numbers.", "Say only the sum."], "sni_input": "1 1",
           "sni_output": ["2"]}  # fmt: skip
    assert turns(read(row)[1]) == [
        ("system", "Add the numbers.\nSay only the sum."), ("user", "1 1"), ("assistant", "2"),
    ]  # fmt: skip
    assert "the Definition is the system message" in detect(raws(row)).told
    with pytest.raises(DataError, match="the Definition of its file cannot be read"):
        read({**row, "sni_definition": {"en": "Add"}})


def test_turns_that_nobody_answers_are_left_off_and_counted() -> None:
    thanks = [*CHAT, {"role": "user", "content": "Thanks"}]
    _, record = read({"messages": thanks})
    assert turns(record) == [("user", "Hi"), ("assistant", "Ho")]
    assert isinstance(record, Example)
    assert record.unanswered == 1
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"},
            {"from": "human", "value": "Bye"}]  # fmt: skip
    assert turns(read({"conversations": talk})[1]) == [("user", "Hi"), ("assistant", "Ho")]
    with pytest.raises(NoSupervision, match="ends without an answer"):
        read({"messages": [{"role": "user", "content": "Hi"}]})


def test_parts_of_text_are_one_text_and_other_parts_are_refused() -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "text", "text": "Hi"}]
    asked = {"role": "user", "content": parts}
    assert turns(read({"messages": [asked, CHAT[1]]})[1]) == [
        ("user", "Look:\nHi"), ("assistant", "Ho"),
    ]  # fmt: skip
    seen = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}
    with pytest.raises(DataError, match=r"message 1 has a part that is no text.*found image_url"):
        read({"messages": [seen, CHAT[1]]})
    with pytest.raises(DataError, match=r"found \{'type': 'text'\}"):
        read({"messages": [{"role": "user", "content": [{"type": "text"}]}, CHAT[1]]})


def test_a_first_line_that_is_a_row_is_not_advised_as_a_column() -> None:
    row = {"When does order 1000 come, and by whom?": "x", "It comes on Monday.": "y"}
    with pytest.raises(DataError) as refused:
        read(row)
    assert refused.value.hint == (
        "line 1 looks like a row: write a line of names above it; "
        "if it names the columns: --column prompt=… --column completion=…"
    )
    with pytest.raises(DataError) as refused:
        read({"a b": "x", "c": "y"})
    assert refused.value.hint == "say it: --column prompt='a b' --column completion=…"
    with pytest.raises(DataError) as refused:
        read({"messages": CHAT}, name="classification")
    assert refused.value.hint == "say it: --column text=… --column label=…"


def test_rows_with_other_columns_of_the_same_kind_are_read_by_these() -> None:
    rows = raws({"prompt": "Hi", "completion": "Ho"}, {"messages": CHAT}, {"text": "x"})
    found = detect(rows[:1])
    assert turns(found.record(rows[1])) == turns(found.record(rows[0]))
    with pytest.raises(DataError, match="column 'prompt'"):
        found.record(rows[2])


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (("message", "label"), "say it: --column text=message"),
        (("id", "label", "utterance"), "say it: --column text=utterance"),
        (("one", "label", "other"), "say it: --column text=…"),
        (("bericht", "rating"), "say it: --column text=bericht"),
        (("prompt", "reaction"), "say it: --column completion=reaction"),
        (("asked", "answer"), "say it: --column prompt=asked"),
    ],
)
def test_the_column_that_is_missing_is_advised(names: tuple[str, ...], hint: str) -> None:
    with pytest.raises(DataError) as refused:
        read(dict.fromkeys(names, "x"))
    assert refused.value.hint == hint


def test_a_class_beside_a_text_is_not_lost_whatever_it_is_called() -> None:
    told = [{"text": f"text {n}", "sentiment": ("good", "bad")[n % 2]} for n in range(12)]
    with pytest.raises(DataError, match="column 'sentiment' would be lost") as refused:
        detect(raws(*told))
    assert refused.value.hint == ("learn it: --column label=sentiment; leave it out: --format text")
    assert detect(raws(*told), {"label": "sentiment"}).name == "classification"
    assert detect(raws(*told), name="text").name == "text"
    stars = [{"text": f"text {n}", "stars": str(n / 2)} for n in range(12)]
    with pytest.raises(DataError) as refused:
        detect(raws(*stars))
    assert str(refused.value.hint).startswith("learn it: --column value=stars")


@pytest.mark.parametrize(
    "row",
    [
        lambda n: {"text": f"text {n}", "source": ("web", "book")[n % 2]},
        lambda n: {"text": f"text {n}", "who": f"author {n}"},
        lambda n: {"text": f"text {n}", "who": "always me"},
        lambda n: {"text": f"text {n}", "who": ("a", "b")[n % 2], "when": "1999"},
    ],
)
def test_what_only_stands_beside_a_text_is_left_out(row: Any) -> None:
    assert detect(raws(*(row(n) for n in range(12)))).name == "text"
