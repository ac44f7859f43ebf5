"""Rows out of every kind of file, each with its place; and all the ways a file can be wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from detour.data.forms import Fault, Raw
from detour.data.table import Table, hub_table, open_table
from detour.errors import ConfigError, DataError, WrongEncoding

ROWS = [
    {"prompt": "Wie heißt du?", "completion": "Größe; „Öl“"},
    {"prompt": "a,b", "completion": "c"},
]


def values(path: Path, split: str = "train") -> list[object]:
    return [dict(row.values) for row in open_table(path).strictly(split)]


def sources(path: Path) -> list[str]:
    return [row.source for row in open_table(path).rows()]


def write_jsonl(path: Path, rows: list[dict[str, str]], start: bytes = b"") -> Path:
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(start + lines.encode())
    return path


def write_csv(path: Path, rows: list[dict[str, str]], delimiter: str) -> Path:
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_every_form_gives_the_same_rows(tmp_path: Path) -> None:
    paths = [
        write_jsonl(tmp_path / "a.jsonl", ROWS),
        write_jsonl(tmp_path / "bom.ndjson", ROWS, b"\xef\xbb\xbf"),
        write_jsonl(tmp_path / "lines.json", ROWS),
        *(write_csv(tmp_path / f"{n}.csv", ROWS, sign) for n, sign in enumerate(",;|")),
        write_csv(tmp_path / "a.tsv", ROWS, "\t"),
        tmp_path / "a.json",
        tmp_path / "data.json",
        tmp_path / "a.parquet",
    ]
    (tmp_path / "a.json").write_text(json.dumps(ROWS), "utf-8")
    (tmp_path / "data.json").write_text(json.dumps({"data": ROWS}), "utf-8")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    for path in paths:
        assert values(path) == ROWS, path


@given(
    st.lists(
        st.fixed_dictionaries({k: st.text(min_size=1) for k in ("a", "b")}), min_size=1, max_size=5
    ),
    st.sampled_from(",;\t|"),
)
def test_any_text_comes_back_out_of_a_csv_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], delimiter: str
) -> None:
    """The writer quotes; nothing but the header decides the columns."""
    clean = [{k: v.replace("\x00", "") or "x" for k, v in row.items()} for row in rows]
    clean = [{k: v.encode("utf-8", "ignore").decode() or "x" for k, v in r.items()} for r in clean]
    path = write_csv(tmp_path_factory.mktemp("csv") / "a.csv", clean, delimiter)
    assert values(path) == clean


def test_places_are_lines_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a;b\n"one\nof two lines";x\ny;z\n', "utf-8")
    assert sources(path) == [f"{path}:2", f"{path}:4"]
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"a": 1}\n\n{"a": "\u2028"}\n', "utf-8")
    assert sources(lines) == [f"{lines}:1", f"{lines}:3"]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_empty_lines_above_the_rows_are_none(tmp_path: Path, start: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(start + b"\n" * 30 + b"  \n" + b'a;"b;c"\n1,5;2\n3;4\n')
    assert values(path) == [{"a": "1,5", "b;c": "2"}, {"a": "3", "b;c": "4"}]
    assert sources(path) == [f"{path}:33", f"{path}:34"]
    lines = tmp_path / "a.jsonl"
    lines.write_bytes(start + b"\n" * 30 + b'{"a": 1}\n')
    assert values(lines) == [{"a": 1}]


def test_paragraphs_of_a_text_stand_between_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("\n\nfirst\nline\n \nsecond\n\n\nthird", "utf-8")
    assert values(path) == [{"text": "first\nline"}, {"text": "second"}, {"text": "third"}]
    assert sources(path) == [f"{path}:3", f"{path}:6", f"{path}:9"]


def test_a_row_that_cannot_be_read_does_not_hide_the_next(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a": \n[1]\n{"a": "\xe4"}\n{"a": 2}\n')
    rows = list(open_table(path).rows())
    assert [isinstance(row, Fault) for row in rows] == [False, True, True, True, False]
    assert [row.source.rpartition(":")[2] for row in rows] == ["1", "2", "3", "4", "5"]
    latin = rows[3]
    assert isinstance(latin, Fault)
    assert latin.error.hint == '--encoding cp1252, in which it reads \'{"a": "ä"}\''
    with pytest.raises(DataError, match=r"a\.jsonl:2 is not JSON"):
        list(open_table(path).strictly())


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "txt"])
@pytest.mark.parametrize("encoding", ["cp1252", "cp850", "utf-16"])
def test_other_encodings_are_read_where_they_are_named(
    ending: str, encoding: str, tmp_path: Path
) -> None:
    told = {
        "jsonl": '{"text": "Öl für Gerät"}\n\n{"text": "b"}\n',
        "json": '[{"text": "Öl für Gerät"}, {"text": "b"}]',
        "csv": "text;more\r\nÖl für Gerät;x\r\nb;y\r\n", "txt": "Öl für Gerät\n\nb\n",
    }[ending]  # fmt: skip
    path = tmp_path / f"a.{ending}"
    path.write_bytes(told.encode(encoding))
    assert [row["text"] for row in values_in(path, encoding)] == ["Öl für Gerät", "b"]


def values_in(path: Path, encoding: str) -> list[Any]:
    return [row.values for row in open_table(path, encoding).strictly()]


@pytest.mark.parametrize(("encoding", "byte"), [("cp1252", "0xfc"), ("cp850", "0x81")])
def test_the_encoding_in_which_a_line_reads_well_is_advised(
    encoding: str, byte: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text;label\nDas ist für dich;x\n".encode(encoding))
    with pytest.raises(WrongEncoding, match=r"a\.csv:2 is not UTF-8") as refused:
        values(path)
    assert refused.value.found == f"byte {byte}"
    assert refused.value.hint == (
        f"--encoding {encoding}, in which it reads 'Das ist für dich;x'"
    )  # fmt: skip


def test_encodings_that_cannot_be_are_errors(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text;label\nfür;x\n".encode("cp850"))
    with pytest.raises(WrongEncoding, match="cannot be read as cp1252; found byte 0x81"):
        values_in(path, "cp1252")
    with pytest.raises(ConfigError, match="there is no encoding 'windows'"):
        values_in(path, "windows")
    with pytest.raises(ConfigError, match="there is no encoding 'base64'"):
        values_in(path, "base64")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("a.xlsx", "save the table as CSV in UTF-8: a.csv"),
        ("a.jsonl.gz", "unpack it first: gunzip a.jsonl.gz"),
        ("my data.zip", "unpack it first: unzip 'my data.zip'"),
        ("a.pdf", "make rows of it: detour collect a.pdf -o a.jsonl"),
        ("a.docx", "save it as text in UTF-8: a.txt"),
        ("a.data", "give it the ending of what it holds"),
    ],
)
def test_what_cannot_be_read_is_met_with_what_helps(
    name: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(b"x")
    with pytest.raises(DataError, match="an ending that says nothing") as refused:
        open_table(name)
    assert refused.value.hint == hint


def test_a_line_that_breaks_off_is_said_to(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": "b"}\n{"a": "breaks off\n{"a": "c"}\n', "utf-8")
    _, bad, _ = open_table(path).rows()
    assert isinstance(bad, Fault)
    assert bad.error.found == "Unterminated string starting at column 7"


def test_a_row_with_other_columns_is_a_fault_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n1,2,3\n4,5\n", "utf-8")
    good, bad, last = open_table(path).rows()
    assert isinstance(good, Raw)
    assert isinstance(last, Raw)
    assert isinstance(bad, Fault)
    assert bad.source == f"{path}:3"
    assert "another number of columns" in str(bad.error)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.jsonl", b"", "holds no row"),
        ("a.csv", b"\n\n", "holds no row"),
        ("a.csv", b"a;b\n", "holds no row"),
        ("a.csv", b"\xef\xbb\xbf", "holds no row"),
        ("a.csv", b"\xef\xbb\xbf\n \n", "holds no row"),
        ("a.csv", b"," * 4 + b"\n", "does not name its columns"),
        ("a.jsonl", b"\xef\xbb\xbf", "holds no row"),
        ("a.json", b"\xef\xbb\xbf\n", "holds no row"),
        ("a.txt", b"\xef\xbb\xbf\n", "holds no row"),
        ("a.csv", b"a;a\n1;2\n", "does not name its columns"),
        ("a.csv", b"a;b\n\xe4;2\n", r"a.csv:2 is not UTF-8"),
        ("a.csv", b'a;b\n1;"2\n', "is no row of a CSV file.*a line above"),
        ("a.csv", b"sep=;\na;b\n1;2\n", "delete line 1, which only Excel reads"),
        ("a.jsonl", b'[{"a": 1}]\n', "is one list of rows.*name it a.json"),
        ("a.jsonl", b'[\n{"a": 1}\n]\n', "is one list of rows.*name it a.json"),
        ("a.jsonl", b"\xff\xfe{\x00", "UTF-16"),
        ("a.jsonl", b'{"a"\x00: 1}', "binary"),
        ("a.json", b"[]", "holds no row"),
        ("a.json", b'{"a": 1}', "holds no list of rows"),
        ("a.json", b"[1,", "is not JSON.*mend it there"),
        ("a.json", b'[{"a": "\xe4"}]', "is not UTF-8"),
        ("a.parquet", b"nothing", "is no Parquet file"),
        ("a.xlsx", b"PK", "has an ending"),
        ("a.txt", b"  \n\n", "holds no row"),
    ],
)
def test_files_that_are_wrong_as_a_whole_are_told(
    tmp_path: Path, name: str, content: bytes, told: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=told):
        list(open_table(tmp_path / name).strictly())


def test_a_line_of_cells_is_a_fault_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('["q", "a"]\n{"a": 1}\n')
    first, second = open_table(tmp_path / "a.jsonl").rows("train")
    assert isinstance(first, Fault)
    assert isinstance(second, Raw)


def test_a_folder_holds_its_splits_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "validation", "data/test"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    (tmp_path / "README.md").write_text("about the data")
    table = open_table(tmp_path)
    assert table.splits == ("train", "validation", "test")
    shards = [row.values["text"] for row in table.strictly()]
    assert shards == ["train-00000-of-00002", "train-00001-of-00002"]
    assert [row.values["text"] for row in table.strictly("test")] == ["data/test"]


def test_folders_that_say_too_little_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no file to train on.*put a file of rows into it: \.jsonl"
    ):
        open_table(tmp_path)
    write_jsonl(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(DataError, match=r"no file to train on.*name one of the files itself"):
        open_table(tmp_path)
    (tmp_path / "test.jsonl").rename(tmp_path / "rows.jsonl")
    assert values(tmp_path) == ROWS  # one file alone needs no name
    write_jsonl(tmp_path / "more.jsonl", ROWS)
    with pytest.raises(DataError, match="no file to train on"):
        open_table(tmp_path)
    write_jsonl(tmp_path / "train.jsonl", ROWS)
    write_csv(tmp_path / "test.csv", ROWS, ",")
    with pytest.raises(DataError, match="mixes forms"):
        open_table(tmp_path)


def test_what_was_read_and_what_not_is_said(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name in ("train", "train_old", "train.backup", "data/test", "notes"):
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": name}])
    table = open_table(tmp_path)
    assert [row.values["text"] for row in table.strictly()] == ["train"]
    assert str(table.told) == (
        "train: train.jsonl; test: data/test.jsonl; "
        "not read: notes.jsonl, train.backup.jsonl, train_old.jsonl"
    )


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (("train.jsonl", "data/train.jsonl"), "several files could be train"),
        (("train.jsonl", "train.csv"), "several files could be train"),
        (("train.jsonl", "train-00000-of-00001.jsonl"), "several files could be train"),
        (("train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl"), "several files"),
        (("train.jsonl", "val.jsonl", "valid.jsonl"), "several files could be validation"),
        (("train.jsonl", "test_old.jsonl"), "no file is named test"),
        (("train_a.jsonl", "train_b.jsonl"), "no file is named train"),
        (("train-0.jsonl", "train-1.jsonl"), "no file is named train"),
        (("train-00000-of-00003.jsonl", "train-00002-of-00003.jsonl"), "is not complete"),
        (("train-00000-of-00002.jsonl", "train-00000-of-00001.jsonl"), "several files"),
    ],
)
def test_files_that_could_be_the_same_split_are_not_guessed_at(
    tmp_path: Path, names: tuple[str, ...], told: str
) -> None:
    (tmp_path / "data").mkdir()
    for name in names:
        write_jsonl(tmp_path / name, [{"text": name}])
    with pytest.raises(DataError, match=told) as refused:
        open_table(tmp_path)
    assert names[-1] in refused.value.found
    assert refused.value.hint


def hub(*splits: str) -> Table:
    return hub_table("some/rows", "v1", {name: [{"text": name}] for name in splits})


def test_splits_of_the_hub_are_taken_by_their_names() -> None:
    table = hub("train", "test", "train_gen", "unsupervised")
    assert [row.values["text"] for row in table.strictly()] == ["train"]
    assert [row.values["text"] for row in table.strictly("test")] == ["test"]
    assert str(table.told) == "v1; train: train; test: test; not read: train_gen, unsupervised"
    assert hub("training", "dev").splits == ("train", "validation")


@pytest.mark.parametrize(
    ("splits", "told"),
    [
        (("train_sft", "test_sft", "train_gen", "test_gen"), "no split is named train"),
        (("train", "validation_matched", "validation_mismatched"), "no split is named validation"),
        (("train", "dev", "validation"), "several splits could be validation"),
        (("rows",), "no split to train on"),
    ],
)
def test_splits_that_could_be_the_same_are_not_guessed_at(
    splits: tuple[str, ...], told: str
) -> None:
    with pytest.raises(DataError, match=told) as refused:
        hub(*splits)
    assert splits[0] in refused.value.found or splits[-1] in refused.value.found
    assert "load_dataset('some/rows'" in refused.value.hint
    assert "revision='v1'" in refused.value.hint


def test_what_is_nowhere_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        open_table(tmp_path / "nothing.jsonl")
    (tmp_path / "orders.csv").touch()
    with pytest.raises(DataError, match=r"does not exist.*did you mean '.*/orders\.csv'"):
        open_table(tmp_path / "order.csv")
    with pytest.raises(DataError, match="no file here, and no dataset"):
        open_table("nobody/no-such-dataset-at-all")


def test_progress_reaches_the_size_of_all_files(tmp_path: Path) -> None:
    for number in range(2):
        write_jsonl(tmp_path / f"train-0000{number}-of-00002.jsonl", ROWS * 600)
    told: list[tuple[int, int]] = []
    table = open_table(tmp_path)
    assert len(list(table.rows(watch=lambda done, of: told.append((done, of))))) == 2400
    assert told[-1] == (table.size, table.size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_task_of_super_natural_instructions_is_read(tmp_path: Path) -> None:
    path = tmp_path / "task001.json"
    task = {"Definition": ["Add."], "Instances": [{"input": "1 1", "output": ["2"]}]}
    path.write_text(json.dumps(task))
    assert values(path) == [{"sni_definition": ["Add."], "sni_input": "1 1", "sni_output": ["2"]}]
