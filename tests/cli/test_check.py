"""`detour check`, as people and programs call it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = {
    "name", "form", "format", "columns", "kind", "rows", "splits", "usable", "tokens",
    "supervised_tokens", "labels", "languages", "licences", "verdict", "advice", "findings",
    "sampled",
}  # fmt: skip


@pytest.fixture
def data(shelf: Path) -> Path:
    """A German CSV file in the current folder, with what such files have wrong."""
    path = shelf.parent.parent / "here" / "fragen.csv"
    rows = [f'"Was kostet Gerät {n}; und wo?";{n * n} Euro im Laden {n};x' for n in range(60)]
    bad = ["Wohin damit?;Auf DE89 3704 0044 0532 0130 00;x", rows[7], "zu kurz"]
    path.write_text("\n".join(["Frage;Antwort;Rest", *rows, *bad]) + "\n", "utf-8")
    return path


def test_json_holds_the_contract(detour, data) -> None:
    told = detour("check", data, "--json")
    assert told.code == 0
    report = told.json
    assert set(report) == KEYS
    assert (report["format"], report["rows"], report["verdict"]) == (
        "prompt_completion", 63, "dirty",
    )  # fmt: skip
    assert report["columns"] == {"prompt": "Frage", "completion": "Antwort"}
    found = {finding["code"]: finding["rows"] for finding in report["findings"]}
    assert found == {
        "unreadable": 1, "exact_duplicates": 1, "personal_data": 1, "unused_columns": 62,
    }  # fmt: skip
    assert all({"code", "severity", "rows", "advice", "where"} == set(f)
               for f in report["findings"])  # fmt: skip


def test_people_see_what_is_learned_and_what_to_do(detour, data) -> None:
    told = detour("check", data)
    assert told.code == 0
    assert "'Frage' is the prompt" in told.out
    assert "not learned: 'Rest'" in told.out
    assert "[[0 Euro im Laden 0" in told.out
    assert "fragen.csv:62" in told.out
    assert told.out.splitlines()[-1].startswith("dirty: clean it first")
    german = detour("check", data, "--lang", "de")
    assert "was zu tun ist" in german.out
    assert "eine andere Zahl von Spalten" in german.out


def test_a_cleaned_copy_and_a_page_are_written(detour, data) -> None:
    told = detour("check", data, "--fix", "gut.jsonl", "--redact", "--html", "a.html", "--json")
    assert told.json["cleaned"] == {
        "kept": {"train": 61},
        "dropped": {"exact_duplicates": 1, "unreadable": 1},
        "mended": {"personal_data": 1},
        "left": {},
    }
    assert detour("check", "gut.jsonl", "--json").json["verdict"] == "ready"
    rows = Path("gut.jsonl").read_text("utf-8").splitlines()
    assert "[IBAN]" in json.loads(rows[-1])["messages"][1]["content"]
    assert "<html" in Path("a.html").read_text("utf-8")
    again = detour("check", data, "--fix", "gut.jsonl", "--json")
    assert again.code == 2
    assert Path("gut.jsonl").read_text("utf-8").splitlines() == rows


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--column", "prompt=Fraage"), "did you mean 'Frage'?"),
        (("--column", "prompt"), "ROLE=NAME"),
        (("--column", "question=Frage"), "no column can be the 'question'"),
        (("--format", "csv"), "unknown format 'csv'"),
        (("--redact",), "none is written"),
        (("--fix", "a.jsonl", "--convert", "b.jsonl"), "exclude each other"),
        (("--to", "openai"), "none is written"),
        (("--rename-label", "a=b"), "none is written"),
        (("--fix", "a.jsonl", "--rename-label", "a"), "OLD=NEW"),
        (("--fix", "a.jsonl", "--rename-label", "a=b"), "no class 'a'"),
        (("--convert", "a.jsonl", "--rename-label", "a=b"), "--fix"),
        (("--fix", "a.jsonl", "--to", "alpaca"), "there is no form 'alpaca'"),
        (("--base", "nothing"), "nothing"),
    ],
)
def test_wrong_options_end_in_advice(detour, data, options, told) -> None:
    refused = detour("check", data, *options)
    assert refused.code == 2
    assert told in refused.err
    assert sorted(path.name for path in data.parent.iterdir()) == ["fragen.csv"]


def test_a_copy_of_nothing_is_said_not_to_be_there(detour, shelf) -> None:
    path = shelf.parent.parent / "here" / "rows.jsonl"
    path.write_bytes('{"prompt": "Größe?", "completion": "Für Gäste"}\n'.encode("cp1252") * 3)
    told = detour("check", path, "--fix", "copy.jsonl")
    assert told.code == 2
    assert "copy.jsonl was not written: no row can be read" in told.err
    assert "--encoding cp1252" in told.err
    assert not Path("copy.jsonl").exists()


def test_the_packaged_encoder_is_a_base_without_a_hub(detour, shelf) -> None:
    path = shelf.parent.parent / "here" / "rows.jsonl"
    rows = [{"text": f"the {('hill', 'ship')[n % 2]} {n}", "label": "ab"[n % 2]} for n in range(60)]
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    told = detour("check", path, "--base", "sentence-transformers/all-MiniLM-L6-v2", "--json")
    assert told.code == 0
    assert told.json["tokens"]["median"] > 3


def test_columns_that_say_nothing_are_asked_for(detour, data) -> None:
    data.write_text("a;b\n" + "".join(f"Frage {n};Antwort {n}\n" for n in range(60)), "utf-8")
    refused = detour("check", data)
    assert refused.code == 2
    assert "--column prompt=a" in refused.err
    told = detour("check", data, "--column", "prompt=a", "--column", "completion=b", "--json")
    assert told.json["usable"] == 60


def test_classes_are_renamed_only_as_told(detour, data) -> None:
    names = ["legal"] * 30 + ["illegal"] + ["legol"]
    told = "".join(f"Satz Nummer {n} von vielen;{name}\n" for n, name in enumerate(names))
    data.write_text("text;label\n" + told, "utf-8")
    assert "--rename-label legol=legal" in detour("check", data).out.replace("\n", " ")
    fixed = ("check", data, "--fix", "gut.jsonl", "--rename-label", "legol=legal", "--json")
    assert detour(*fixed).json["cleaned"]["mended"] == {"label_renamed": 1}
    rows = Path("gut.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["label"] for row in rows} == {"legal", "illegal"}


def test_a_comma_that_may_group_thousands_is_asked_for(detour, fails, shelf) -> None:
    Path("a.csv").write_text('text,value\n' + "".join(
        f'"flat {n}","{n},{n * 10}"\n' for n in range(10, 90)), "utf-8")  # fmt: skip
    told = fails(2, "check", "a.csv")
    assert "can be read in two ways" in told["error"]
    assert "'10,100' (a.csv:2)" in told["found"]
    read = detour("check", "a.csv", "--decimal", "comma")
    assert read.code == 0
    assert "format regression; decimal comma" in read.out
    assert detour("check", "a.csv", "--decimal", "point", "--json").json["usable"] == 80


@pytest.mark.parametrize("option", ["--fix", "--convert"])
def test_a_copy_has_a_name_by_which_it_is_read_again(fails, data, option) -> None:
    for name, hint in (("a.csv", "a.jsonl"), ("a.txt", "a.jsonl"), ("a", "a.jsonl"),
                       ("v1.2", "v1.2.jsonl")):  # fmt: skip
        told = fails(2, "check", data, option, name)
        assert "the copy is JSONL" in told["error"]
        assert (told["found"], told["hint"]) == (name, hint)
        assert not Path(name).exists()


def test_a_copy_of_several_parts_is_no_file(fails, shelf) -> None:
    Path("data").mkdir()
    for name in ("train", "test"):
        row = json.dumps({"prompt": f"{name}?", "completion": "Yes."})
        Path(f"data/{name}.jsonl").write_text(f"{row}\n", "utf-8")
    told = fails(2, "check", "data", "--fix", "clean.jsonl")
    assert "the copy is a folder: the data have train, test" in told["error"]
    assert told["hint"] == "clean"
    assert not Path("clean.jsonl").exists()


def test_personal_data_that_stay_in_the_copy_are_said(detour, data) -> None:
    told = detour("check", data, "--fix", "a.jsonl")
    assert "left in: personal_data 1 (--redact replaces them)" in told.out
    again = detour("check", data, "--convert", "b.jsonl", "--json")
    assert again.code == 2  # a row that cannot be read
    assert detour("check", data, "--fix", "c.jsonl", "--json").json["cleaned"]["left"] == {
        "personal_data": 1
    }
    assert "left in" not in detour("check", data, "--fix", "d.jsonl", "--redact").out


def test_a_page_that_is_there_is_not_replaced(detour, fails, data) -> None:
    Path("a.html").write_text("mine", "utf-8")
    assert "is there already" in fails(2, "check", data, "--html", "a.html")["error"]
    assert Path("a.html").read_text("utf-8") == "mine"


def test_strict_exits_with_one_unless_the_data_are_ready(detour, data) -> None:
    assert detour("check", data).code == 0
    told = detour("check", data, "--strict", "--json")
    assert (told.code, told.json["verdict"]) == (1, "dirty")
    assert detour("check", data, "--strict", "--fix", "a.jsonl", "--redact").code == 1
    assert detour("check", "a.jsonl", "--strict").code == 0


def test_rows_that_are_too_long_bring_no_warning_of_another_library(shelf) -> None:
    row = {"prompt": "word " * 3000, "completion": "yes"}
    Path("a.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    Path("a.txt").write_text("word " * 3000, "utf-8")
    for name, found in (("a.jsonl", "truncated"), ("a.txt", "too_few")):
        command = [sys.executable, "-m", "detour", "check", name]
        told = subprocess.run(command, capture_output=True, text=True, check=True)
        assert told.stderr == ""
        assert found in told.stdout
