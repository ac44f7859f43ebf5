"""Writing rows: each once, whole files to one side, all or nothing."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detour.data.collect.rows import LeftOut, Reader, Row
from detour.data.collect.sources import File
from detour.data.collect.writing import Collected, write
from detour.data.reading import read_data
from detour.errors import ConfigError, DataError
from detour.model.examples import Plain, pair


def files(count: int) -> list[File]:
    return [File(Path(f"here/{n}.txt"), f"{n}.txt") for n in range(count)]


def reader(counts: list[int]) -> Reader:
    """File n holds so many rows."""

    def read(path: Path) -> Iterator[Row | LeftOut]:
        for n in range(counts[int(path.stem)]):
            yield Row(Plain(f"text {n} of {path}", f"{path}:{n}"))

    return read


def sources(path: Path) -> list[str]:
    return [json.loads(line)["source"] for line in path.read_text("utf-8").splitlines()]


@given(
    counts=st.lists(st.integers(0, 20), min_size=2, max_size=12).filter(
        lambda counts: sum(count > 0 for count in counts) > 1
    ),
    share=st.floats(0.05, 0.95),
)
def test_no_file_is_on_both_sides(tmp_path_factory, counts, share):
    output = tmp_path_factory.mktemp("split") / "rows"
    told = write(files(len(counts)), reader(counts), output, share)
    train, test = (sources(output / f"{split}.jsonl") for split in ("train", "test"))
    sides = [{place.rpartition(":")[0] for place in side} for side in (train, test)]
    assert not sides[0] & sides[1]
    assert len(train) + len(test) == sum(counts)
    assert (len(train), len(test)) == (told.rows["train"], told.rows["test"])
    smallest = min(count for count in counts if count)
    assert len(test) <= max(share * sum(counts), smallest)


def test_the_share_is_met_and_the_same_files_test_again(tmp_path: Path) -> None:
    counts = [3, 5, 2, 4, 1, 6, 3, 2, 4, 5] * 4
    for name in ("a", "b"):
        write(files(len(counts)), reader(counts), tmp_path / name, 0.25)
    test = sources(tmp_path / "a" / "test.jsonl")
    assert test == sources(tmp_path / "b" / "test.jsonl")
    assert 0.23 * sum(counts) <= len(test) <= 0.25 * sum(counts)
    loaded = read_data(tmp_path / "a")
    assert (len(loaded.train), len(loaded.parts["test"])) == (sum(counts) - len(test), len(test))


def of(folder: Path, rows: list[list[Row | LeftOut]], share: float | None = None) -> Collected:
    output = folder / ("rows" if share else "rows.jsonl")
    return write(files(len(rows)), lambda path: iter(rows[int(path.stem)]), output, share)


def test_rows_are_written_once(tmp_path: Path) -> None:
    rows: list[list[Row | LeftOut]] = [
        [Row(pair("Why?", "So.", source="a:1"), "good"), LeftOut("bad", "a:2")],
        [Row(pair("WHY?", " so.", source="b:1"), "good"), LeftOut("bad", "b:2"),
         Row(pair("Why?", "No.", source="b:3"), "corrected")],
    ]  # fmt: skip
    told = of(tmp_path, rows)
    assert told.to_json() == {
        "files": 2,
        "files_used": {"train": 2},
        "files_unused": [],
        "rows": {"train": 2},
        "kinds": {"good": 1, "corrected": 1},
        "left_out": {"bad": {"count": 2, "first": "a:2"}, "repeated": {"count": 1, "first": "b:1"}},
    }
    lines = (tmp_path / "rows.jsonl").read_text("utf-8").splitlines()
    assert json.loads(lines[0]) == {
        "messages": [
            {"role": "user", "content": "Why?"},
            {"role": "assistant", "content": "So."},
        ],
        "source": "a:1",
        "kind": "good",
    }


def test_a_question_of_train_is_no_test(tmp_path: Path) -> None:
    def rows(n: int) -> list[Row | LeftOut]:
        asked = (("Why?", f"So {n}."), (f"Where is {n}?", "There."))
        return [Row(pair(q, a, source=f"{n}"), "good") for q, a in asked]

    told = of(tmp_path, [rows(n) for n in range(3)], 0.4)
    assert told.left_out == {"in_train": 1}
    test = [json.loads(line) for line in (tmp_path / "rows/test.jsonl").read_text().splitlines()]
    assert [row["messages"][0]["content"][:5] for row in test] == ["Where"]


def test_nothing_is_written_where_nothing_can_be_learned(tmp_path: Path) -> None:
    left: list[list[Row | LeftOut]] = [[LeftOut("unrated", "a:1"), LeftOut("unrated", "a:2")]]
    with pytest.raises(DataError, match="nothing in these files") as caught:
        of(tmp_path, left)
    assert caught.value.found == "unrated 2 (a:1)"
    assert "--column rating=" in caught.value.hint
    with pytest.raises(DataError, match="not two with rows"):
        of(tmp_path, [*left, [Row(Plain("text", "b:1"))]], 0.5)
    with pytest.raises(DataError, match="nothing of test is left"):
        of(tmp_path, [[Row(Plain("text", "a:1"))], [Row(Plain("text", "b:1"))]], 0.5)
    assert list(tmp_path.iterdir()) == []


def test_a_file_may_have_any_name(tmp_path: Path) -> None:
    path = os.fsdecode(b"gr\xf6\xdfe.txt")
    of(tmp_path, [[Row(Plain("text", f"{path}:1"))]])
    assert sources(tmp_path / "rows.jsonl") == ["gr\\udcf6\\udcdfe.txt:1"]


def test_an_error_in_the_middle_leaves_nothing_behind(tmp_path: Path) -> None:
    def read(path: Path) -> Iterator[Row | LeftOut]:
        yield Row(Plain("text", "a:1"))
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        write(files(1), read, tmp_path / "rows.jsonl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "share", "told"),
    [
        ("rows", None, "would not be known as JSONL"),
        ("rows.csv", None, "would not be known as JSONL"),
        ("rows.jsonl", 0.2, "two files are written, into a folder"),
        ("there.jsonl", None, "there.jsonl is there already"),
        ("there", 0.2, "there is there already"),
    ],
)
def test_names_that_do_not_suit(tmp_path: Path, name: str, share: float | None, told: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match=told):
        write(files(2), reader([1, 1]), tmp_path / name, share)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "there.jsonl"]
    assert (tmp_path / "there.jsonl").read_text() == "mine"
