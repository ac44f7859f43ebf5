"""`detour collect`, from what people have to rows that check and train take as they are."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

JSON = Path(json.__file__).parent
DOCS = Path(__file__).resolve().parents[2] / "docs"
KEYS = {"output", "kind", "files", "files_used", "files_unused", "rows", "kinds", "left_out"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def log(here: Path) -> Path:
    """A log of forty answers: every second is good, every tenth corrected."""
    path = here / "log.jsonl"
    with path.open("w") as stream:
        for n in range(40):
            correction = {"correction": f"It is {n + 1}, sorry."} if n % 10 == 1 else {}
            line = {"prompt": f"What follows {n}?", "response": f"It is {n + 1 + n % 2}.",
                    "rating": "down" if n % 2 else "up", **correction}  # fmt: skip
            stream.write(json.dumps(line) + "\n")
    return path


def lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def test_documents_are_collected_checked_and_trained_on(
    detour: Callable[..., Any], tiny_folder: Path
) -> None:
    told = detour("collect", DOCS, "-o", "docs.jsonl")
    assert told.code == 0, told.err
    assert "read as documents" in told.err
    assert "there are also 2 --as code" in told.err
    assert told.out.splitlines()[-1] == "Try: detour check docs.jsonl"
    assert all(set(row) == {"text", "source"} for row in lines("docs.jsonl"))
    checked = detour("check", "docs.jsonl", "--no-near", "--json").json
    assert (checked["format"], checked["kind"]) == ("text", "text")
    assert checked["usable"] == checked["rows"] == len(lines("docs.jsonl")) > 100
    fast = ("--base", tiny_folder, "--rank", 2, "--steps", 8, "--learning-rate", 5e-3)
    detour("collect", DOCS / "data.md", "-o", "one.jsonl", "--tokens", 64, "--base", tiny_folder)
    trained = detour("train", "one.jsonl", "-o", "mine", *fast, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["best_loss"] < trained.json["first_loss"]


def test_the_json_package_is_collected_checked_and_trained_on(
    detour: Callable[..., Any], tiny_folder: Path
) -> None:
    told = detour("collect", JSON, "-o", "code.jsonl", "--reverse", "--characters", 3000, "--json")
    assert set(told.json) == KEYS
    assert told.json["kind"] == "code"
    assert told.json["kinds"]["docstring"] == told.json["kinds"]["reverse"] > 5
    assert told.json["kinds"]["comment"] > 10
    assert set(told.json["left_out"]) <= {"tiny", "not_prose", "too_long"}
    rows = lines("code.jsonl")
    assert all(set(row) == {"prompt", "completion", "source", "kind"} for row in rows)
    assert len(rows) == told.json["rows"]["train"] == sum(told.json["kinds"].values())
    checked = detour("check", "code.jsonl", "--json").json
    assert (checked["format"], checked["usable"]) == ("prompt_completion", len(rows))
    short = detour("collect", JSON, "-o", "short.jsonl", "--characters", 250, "--json").json
    assert max(len(r["prompt"]) + len(r["completion"]) + 1 for r in lines("short.jsonl")) <= 250
    assert short["left_out"]["too_long"]["count"] > 3
    fast = ("--base", tiny_folder, "--rank", 2, "--steps", 8, "--learning-rate", 5e-3)
    detour("collect", JSON, "-o", "fit.jsonl", "--tokens", 128, "--base", tiny_folder)
    trained = detour("train", "fit.jsonl", "-o", "mine", *fast, "--json")
    assert trained.code == 0, trained.err
    assert trained.json["rows"] + trained.json["validation_rows"] == len(lines("fit.jsonl")) > 10


def test_no_file_is_in_both_parts(detour: Callable[..., Any]) -> None:
    told = detour("collect", JSON, "-o", "code", "--test-share", 0.2, "--characters", 3000)
    assert told.code == 0, told.err
    assert told.out.splitlines()[-1] == "Try: detour check code"
    files = [{row["source"].rpartition(":")[0] for row in lines(f"code/{split}.jsonl")}
             for split in ("train", "test")]  # fmt: skip
    assert all(files)
    assert not files[0] & files[1]
    checked = detour("check", "code", "--json").json
    assert set(checked["splits"]) == {"train", "test"}
    assert "leakage" not in {finding["code"] for finding in checked["findings"]}


def test_feedback_becomes_conversations(detour: Callable[..., Any], log: Path) -> None:
    told = detour("collect", log, "-o", "rows.jsonl", "--json").json
    assert (told["rows"], told["kinds"]) == ({"train": 24}, {"good": 20, "corrected": 4})
    assert told["left_out"] == {"bad": {"count": 16, "first": f"{log}:4"}}
    found = lines("rows.jsonl")
    assert [turn["content"] for turn in found[1]["messages"]] == [
        "What follows 1?", "It is 2, sorry."
    ]  # fmt: skip
    assert detour("check", "rows.jsonl", "--json").json["usable"] == 24


def test_what_is_left_out_is_told_in_german_too(detour: Callable[..., Any], log: Path) -> None:
    told = detour("collect", log, "-o", "rows.jsonl", "--lang", "de")
    assert "gelesen als feedback" in told.err
    assert "schlecht bewertet" in told.out
    assert told.out.splitlines()[-1] == "Weiter mit: detour check rows.jsonl"


def test_what_a_scale_means_is_said(detour: Callable[..., Any], here: Path) -> None:
    rows = [{"q": f"Why {n}?", "a": f"So {n}.", "stars": n % 5 + 1} for n in range(20)]
    (here / "log").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = [f"--column={name}" for name in ("prompt=q", "completion=a", "rating=stars")]
    told = detour("collect", "log", "--as", "feedback", "-o", "rows.jsonl", *columns)
    assert "ratings from 1 to 5: good is 4 or more" in told.err
    assert len(lines("rows.jsonl")) == 8
    detour("collect", "log", "--as", "feedback", "-o", "b.jsonl", *columns, "--good-from", 5)
    assert len(lines("b.jsonl")) == 4


def test_a_name_with_a_space_is_quoted(detour: Callable[..., Any], log: Path) -> None:
    told = detour("collect", log, "-o", "my rows.jsonl")
    assert told.out.splitlines()[-1] == "Try: detour check 'my rows.jsonl'"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("gone", "-o", "x.jsonl"), "gone does not exist"),
        (("empty", "-o", "x.jsonl"), "holds no file to collect from"),
        (("log.jsonl", "-o", "log.jsonl"), "log.jsonl is there already"),
        (("log.jsonl", "-o", "x"), "would not be known as JSONL"),
        (("log.jsonl", "-o", "x", "--test-share", "0.5"), "not two with rows"),
        (("log.jsonl", "-o", "x.jsonl", "--reverse"), "--reverse says nothing about feedback"),
        (("log.jsonl", "-o", "x.jsonl", "--column", "rate"), "ROLE=NAME"),
        (("log.jsonl", "-o", "x.jsonl", "--column", "rate=x"), "no column can be the 'rate'"),
        (("broken.jsonl", "-o", "x.jsonl"), "broken.jsonl:2 is not JSON"),
        (("latin.txt", "-o", "x.jsonl"), "not_utf8 1 (latin.txt); try: --encoding cp1252"),
        (("fb.csv", "-o", "x.jsonl"), "these are rows already: detour check fb.csv"),
        (("latin.txt", "-o", "x.jsonl", "--good-from", "3"), "says nothing about documents"),
        (("latin.txt", "-o", "x.jsonl", "--tokens", "90", "--base", "gone"), "gone"),
        (("latin.txt", "-o", "x.jsonl", "--tokens", "90", "--characters", "90"), "exclude"),
        (("latin.txt", "--as", "code", "-o", "x.jsonl"), "unparsable 1 (latin.txt:2)"),
        (("latin.txt", "-o", "x.jsonl", "--test-share", "1"), "'--test-share'"),
    ],
)
def test_mistakes_end_in_advice(
    detour: Callable[..., Any], here: Path, log: Path,
    arguments: tuple[str, ...], told: str,
) -> None:  # fmt: skip
    (here / "empty").mkdir()
    (here / "fb.csv").write_text("prompt,response,rating\na,b,up\n")
    (here / "broken.jsonl").write_text('{"prompt": "a", "response": "b", "rating": 1}\n{"pro\n')
    (here / "latin.txt").write_bytes("ein\nWörterbuch".encode("latin-1"))
    before = sorted(here.iterdir())
    refused = detour("collect", *arguments)
    assert refused.code == 2
    assert told in refused.err.splitlines()[-1]
    assert detour("collect", *arguments, "--json").json["error"]
    assert sorted(here.iterdir()) == before


def test_one_file_in_another_encoding_does_not_stop_the_others(
    detour: Callable[..., Any], here: Path
) -> None:
    (here / "docs").mkdir()
    long = "Das Gerät ist für alle da, und es läuft immer, auch in der Nacht."
    (here / "docs" / "a.txt").write_text(long, "utf-8")
    (here / "docs" / "b.txt").write_bytes(long.replace("alle", "dich").encode("cp1252"))
    told = detour("collect", "docs", "-o", "x.jsonl")
    assert told.code == 0
    assert "nothing taken from: b.txt" in told.out
    assert "not_utf8" in told.out
    assert detour("collect", "docs/b.txt", "--encoding", "cp1252", "-o", "y.jsonl").code == 0
    assert "für dich" in lines("y.jsonl")[0]["text"]


def test_feedback_is_also_read_from_a_table(detour: Callable[..., Any], here: Path) -> None:
    (here / "fb.csv").write_text("prompt,response,rating\nHi?,Ho.,up\nWhy?,No.,down\n", "utf-8")
    told = detour("collect", "fb.csv", "--as", "feedback", "-o", "x.jsonl", "--json")
    assert told.json["rows"] == {"train": 1}
    assert lines("x.jsonl")[0]["messages"][1]["content"] == "Ho."
