import codecs
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.errors import DataError
from detour.model.examples import Example, composed, digest_of, example_of, pair, read_examples

ROW = {"messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Me."}]}


@pytest.fixture
def file(tmp_path):
    """`file(lines or bytes)` writes data.jsonl."""

    def write(*content) -> Path:
        path = tmp_path / "data.jsonl"
        if content and isinstance(content[0], bytes):
            path.write_bytes(content[0])
        else:
            lines = [line if isinstance(line, str) else json.dumps(line) for line in content]
            path.write_text("\n".join(lines) + "\n", "utf-8")
        return path

    return write


def fault(path) -> DataError:
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert str(path) in caught.value.message
    assert "\n" not in str(caught.value)
    return caught.value


def test_messages_and_pairs_are_read_with_their_places(file):
    path = file(ROW, "", {"prompt": "Who?", "completion": "Me."})
    first, second = read_examples(path)
    assert first.messages == second.messages == pair("Who?", "Me.").messages
    assert (first.source, second.source) == (f"{path}:1", f"{path}:3")
    assert first.prompt == "Who?"
    assert read_examples(str(path)) == [first, second]


def test_several_turns_and_a_system_turn_stay_as_they_are(file):
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ]
    (row,) = read_examples(file({"messages": turns}))
    assert [*row.messages] == turns
    assert row.prompt == "Be brief.\na\nb\nc"


def test_a_byte_order_mark_is_dropped(file):
    path = file(codecs.BOM_UTF8 + json.dumps(ROW).encode())
    assert read_examples(path)[0].messages == tuple(ROW["messages"])


def test_windows_line_ends_are_line_ends(file):
    line = json.dumps(ROW).encode()
    assert len(read_examples(file(line + b"\r\n" + line + b"\r\n"))) == 2


def test_a_line_separator_inside_a_text_is_no_line_end(file):
    odd = "one\u2028two\u0085three"
    path = file(json.dumps({"prompt": odd, "completion": "x"}, ensure_ascii=False))
    assert read_examples(path)[0].prompt == odd


def test_a_missing_file(tmp_path):
    assert "does not exist" in fault(tmp_path / "none.jsonl").message


def test_a_folder_is_no_file(tmp_path):
    assert "cannot be read" in fault(tmp_path).message


@pytest.mark.parametrize("content", [b"", b"\n\n  \n"])
def test_an_empty_file(file, content):
    assert "empty" in fault(file(content)).message


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf_16_is_named_or_called_binary(file, encoding):
    error = fault(file(json.dumps(ROW).encode(encoding)))
    if encoding == "utf-16":
        assert "UTF-16" in error.message
        assert "save the file as UTF-8" in error.hint
    else:
        assert "binary" in error.message


def test_a_binary_file(file):
    assert "binary" in fault(file(b"PK\x03\x04\x00\x00rest")).message


def test_another_encoding_is_told_with_its_line(file):
    error = fault(file(json.dumps(ROW).encode() + b'\n{"prompt": "Gr\xfc\xdfe"}\n'))
    assert ":2 is not UTF-8" in error.message
    assert error.found == "byte 0xfc"


ASKED, ANSWERED = ROW["messages"]
CALL = {"name": "look_up", "arguments": "{}"}
BAD = [
    ("{not json", "is not JSON"),
    ('{"messages": ' + "9" * 5000 + "}", "is not JSON"),
    ("[" * 100_000, "is not JSON"),
    ("[1, 2]", "is not a JSON object"),
    ('"text"', "is not a JSON object"),
    ({"text": "hello"}, "has no messages"),
    ({}, "has no messages"),
    ({"prompt": "a"}, "has no messages"),
    ({"prompt": "a", "completion": None}, "has no messages"),
    ({"prompt": "a", "completion": " \n"}, "has an empty completion"),
    ({"messages": []}, "has no messages"),
    ({"messages": "hello"}, "has no messages"),
    ({"messages": None}, "has no messages"),
    ({"messages": ROW["messages"][:1]}, "ends without an answer"),
    ({"messages": [{"role": "assistant", "content": " "}]}, "ends without an answer"),
    ({"messages": [{"role": "robot", "content": "x"}]}, "message 1 cannot be read"),
    ({"messages": [ROW["messages"][0], {"role": "assistant"}]}, "message 2 cannot be read"),
    ({"messages": ["hello"]}, "message 1 cannot be read"),
    (
        {"messages": [ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, ANSWERED]},
        "message 2 holds 'tool_calls'",
    ),
    (
        {"messages": [ASKED, {"role": "assistant", "content": "x", "function_call": CALL}]},
        "message 2 holds 'function_call'",
    ),
    (
        {"messages": [ASKED, {**ANSWERED, "reasoning_content": "Hm."}]},
        "message 2 holds 'reasoning_content'",
    ),
    (
        {"messages": [ASKED, {**ANSWERED, "content": " "}, ASKED, ANSWERED]},
        "message 2 is an empty answer",
    ),
    ({"messages": [ASKED, {**ANSWERED, "weight": 0.5}]}, "message 2 has a weight"),
    ({"messages": [{**ASKED, "weight": 0}, ANSWERED]}, "message 1 has a weight"),
    ({"messages": [ASKED, ANSWERED, ASKED, {**ANSWERED, "weight": 0}]}, "ends with an answer"),
    ('{"prompt": "half \\ud800", "completion": "x"}', "message 1 cannot be read"),
]


@pytest.mark.parametrize(("row", "told"), BAD)
def test_a_bad_row_is_told_with_file_and_line(file, row, told):
    path = file(ROW, ROW, row)
    error = fault(path)
    assert error.message.startswith(f"{path}:3")
    assert told in error.message
    assert error.expected or error.found


def test_a_turn_may_be_left_unlearned(file):
    turns = [ASKED, {**ANSWERED, "weight": 0}, ASKED, {**ANSWERED, "weight": 1}]
    (row,) = read_examples(file({"messages": turns}))
    assert [message.get("weight") for message in row.messages] == [None, 0, None, None]
    plain = example_of({"messages": [{**turn, "weight": None} for turn in turns]}, "")
    assert plain.messages == (ASKED, ANSWERED, ASKED, ANSWERED)
    assert digest_of([row]) != digest_of([plain])


@pytest.mark.parametrize("nothing", [None, [], {}, ""])
def test_no_call_is_no_reason_to_refuse_a_row(nothing):
    turns = [ASKED, {**ANSWERED, "tool_calls": nothing, "id": 7, "name": "Ada"}]
    assert example_of({"messages": turns}, "").messages == (ASKED, ANSWERED)


def test_rows_in_memory_are_told_by_number():
    with pytest.raises(DataError, match="row 2 has no messages"):
        read_examples([ROW, {"question": "?"}])
    with pytest.raises(DataError, match="row 1 is no mapping"):
        read_examples(["hello"])
    with pytest.raises(DataError, match="empty"):
        read_examples([])


def test_rows_and_examples_may_be_mixed():
    ready = pair("q", "a", system="s")
    found = read_examples([ready, ROW])
    assert found[0] is ready
    assert [m["role"] for m in ready.messages] == ["system", "user", "assistant"]
    assert found[1] == example_of(ROW, "row 2")


def test_the_digest_depends_on_text_and_order_alone():
    one, two = pair("a", "b", source="x:1"), pair("c", "d")
    assert digest_of([one, two]) == digest_of([Example(one.messages, "y:9"), two])
    assert digest_of([one, two]) != digest_of([two, one])
    assert digest_of([one]) != digest_of([pair("a", "B")])


_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
_ANSWER = _TEXT.filter(lambda text: text.strip())


@given(st.lists(st.tuples(_TEXT, _ANSWER), min_size=1, max_size=5), st.booleans())
def test_whatever_is_written_is_read(tmp_path_factory, pairs, ascii_only):
    path = tmp_path_factory.mktemp("round") / "data.jsonl"
    rows = [{"prompt": q, "completion": a} for q, a in pairs]
    text = "\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path.write_bytes(text.encode())
    found = [(e.messages[0]["content"], e.messages[1]["content"]) for e in read_examples(path)]
    assert found == [(composed(question), composed(answer)) for question, answer in pairs]
