"""Rows that say who acts on them."""

import json

import pytest

from detour.errors import DataError
from detour.model.examples import Plain
from detour.training.composed import composed_of, names_in, read_composed

ROW = {"prompt": "Who?", "completion": "A baker."}


def test_rows_of_every_form():
    one = composed_of({**ROW, "chain": "formal + pun:0.6"}, "x:1")
    assert one.weights == {"formal": 1.0, "pun": 0.6}
    assert one.row.prompt == "Who?"
    plain = composed_of({"text": "So be it.", "chain": "formal:0.5+formal:0.5"}, "x:2")
    assert plain.row == Plain("So be it.", "x:2")
    assert plain.weights == {"formal": 1.0}
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert composed_of({"messages": turns, "chain": "pun"}, "x:3").row.messages == tuple(turns)
    assert names_in([plain, one]) == ["formal", "pun"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (ROW, "does not say which adapters act"),
        ({**ROW, "chain": " "}, "does not say which adapters act"),
        ({**ROW, "chain": ["formal"]}, "does not say which adapters act"),
        ({**ROW, "chain": "formal+"}, "x:9: "),
        ({**ROW, "chain": "formal@2"}, "not known here"),
        ({**ROW, "chain": "formal{layers.0=1}"}, "not known here"),
        ({"chain": "formal"}, "has no messages"),
    ],
)
def test_a_row_that_says_too_little_is_told(row, told):
    with pytest.raises(DataError, match=told) as fault:
        composed_of(row, "x:9")
    assert "x:9" in str(fault.value.message)


def test_files(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**ROW, "chain": "pun"}) + "\n\n")
    assert len(read_composed(path)) == 1
    path.write_text(json.dumps({**ROW, "prompt": "a\u2028b", "chain": "pun"}, ensure_ascii=False))
    assert read_composed(path)[0].row.prompt == "a\u2028b"
    path.write_text("\n")
    with pytest.raises(DataError, match="is empty"):
        read_composed(path)
