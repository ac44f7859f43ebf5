"""What a look at data finds, and the verdict; every finding has a file that brings it about."""

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from detour.data.clean import Cleaning, write_cleaned
from detour.data.page import page
from detour.data.report import DataReport, Look, look_at
from detour.data.table import open_table
from detour.errors import ConfigError, DataError, StorageError
from detour.language.catalogue import Catalogue
from detour.model.loading import load_tokenizer

WORDS = ["river", "stone", "copper", "lantern", "meadow", "signal", "harbour", "violin", "orchard"]


def chat(number: int) -> dict[str, Any]:
    rng = random.Random(number)
    told = " ".join(rng.choices(WORDS, k=12))
    return {"prompt": f"What is {told} {number}?", "completion": f"It is {number}."}


def labelled(number: int) -> dict[str, Any]:
    told = " ".join(random.Random(number).choices(WORDS, k=12))
    return {"text": told, "label": ("positive", "negative")[number % 2]}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer("starter")


def look(path: Path, tokenizer: Any, **settings: Any) -> DataReport:
    return look_at(open_table(path), *tokenizer, look=Look(**settings))


def codes(report: DataReport) -> dict[str, int]:
    return {finding.code: finding.rows for finding in report.findings}


def test_sixty_clean_rows_are_ready(tmp_path: Path, tokenizer: Any) -> None:
    report = look(write(tmp_path / "a.jsonl", [chat(n) for n in range(60)]), tokenizer)
    assert (report.verdict, report.findings) == ("ready", ())
    assert report.languages == {"en": 60}
    told = report.to_json()
    assert (told["format"], told["rows"], told["verdict"]) == ("prompt_completion", 60, "ready")
    assert 0 < told["supervised_tokens"]["least"] <= told["supervised_tokens"]["median"]
    assert told["tokens"]["total"] > 60 * told["supervised_tokens"]["least"]
    assert report.example
    learned = "".join(piece for piece, marked in report.example.pieces if marked)
    assert "It is 0." in learned
    assert "What is" not in learned


@pytest.mark.parametrize(
    ("more", "finding", "verdict"),
    [
        ([chat(3), chat(4)], {"exact_duplicates": 2}, "dirty"),
        ([{**chat(3), "prompt": chat(3)["prompt"] + "?"}], {"near_duplicates": 1}, "dirty"),
        ([{"prompt": "Mail a@b.de?", "completion": "x"}], {"personal_data": 1}, "dirty"),
        ([{"prompt": "GrÃ¶ÃŸe?", "completion": "x"}], {"encoding": 1}, "dirty"),
        ([{"prompt": "empty", "completion": " "}], {"no_supervision": 1}, "dirty"),
        ([{"prompt": 7, "completion": "x"}], {"unreadable": 1}, "dirty"),
        ([{"prompt": "x", "completion": 7}], {"unreadable": 1}, "dirty"),
        ([{"prompt": "long " * 1100, "completion": "x"}], {"truncated": 1}, "dirty"),
    ],
)
def test_each_kind_of_trouble_is_found(
    tmp_path: Path, tokenizer: Any, more: list[dict[str, Any]], finding: dict[str, int],
    verdict: str,
) -> None:  # fmt: skip
    report = look(write(tmp_path / "a.jsonl", [*map(chat, range(60)), *more]), tokenizer)
    assert codes(report) == finding
    assert report.verdict == verdict


@pytest.mark.parametrize(
    ("rows", "code", "verdict"),
    [
        ([chat(n) for n in range(3)], "too_few", "too_few"),
        ([{"text": " ".join(WORDS), "label": "positive"}], "one_class", "unusable"),
        ([{"prompt": f"{n}", "completion": ""} for n in range(60)], "no_supervision", "unusable"),
        ([*map(labelled, range(60)), {"text": "river", "label": "postive"}], "label_typo", "dirty"),
        ([*map(labelled, range(60)), {"text": "river", "label": "odd"}], "small_classes", "dirty"),
        (
            [*map(labelled, range(60)), {**labelled(4), "label": "negative"}],
            "contradictions",
            "dirty",
        ),
    ],
)
def test_verdicts(
    tmp_path: Path, tokenizer: Any, rows: list[dict[str, Any]], code: str, verdict: str
) -> None:
    report = look(write(tmp_path / "a.jsonl", rows), tokenizer)
    assert code in codes(report)
    assert report.verdict == verdict


def test_columns_that_are_not_learned_are_counted(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{**chat(n), "id": n, **({"topic": "x"} if n < 7 else {})} for n in range(60)]
    report = look(write(tmp_path / "a.jsonl", rows), tokenizer)
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.rows) == ("unused_columns", "info", 60)
    assert "'id', 'topic'" in finding.advice
    assert report.verdict == "ready"
    late = write(tmp_path / "b.jsonl", [*map(chat, range(250)), {**chat(250), "context": "c"}])
    found = look(late, tokenizer)
    assert codes(found) == {"unreadable": 1}
    assert "column 'context' would be lost" in found.findings[0].advice


def test_rows_of_the_test_part_that_train_are_leakage(tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path / "train.jsonl", [chat(n) for n in range(60)])
    near = {**chat(7), "prompt": chat(7)["prompt"].replace("What", "Whats")}
    write(tmp_path / "test.jsonl", [chat(5), near, chat(100)])
    report = look(tmp_path, tokenizer)
    assert codes(report) == {"leakage": 2}
    assert report.rows == {"train": 60, "test": 3}
    assert codes(look(tmp_path, tokenizer, near=False)) == {"leakage": 1}


def test_a_sample_is_counted_and_scaled(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.jsonl", [chat(n) for n in range(300)])
    whole, part = look(path, tokenizer), look(path, tokenizer, sample=60)
    assert whole.tokens
    assert part.tokens
    assert (whole.tokens.rows, part.tokens.rows) == (300, 60)
    assert part.tokens.total == pytest.approx(whole.tokens.total, rel=0.05)
    assert part.sampled == 60


def test_a_planted_account_is_found_in_any_row_of_a_large_file(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [chat(n) for n in range(3000)]
    rows[2711] = {"prompt": "Where to?", "completion": "To DE89 3704 0044 0532 0130 00."}
    path = write(tmp_path / "a.jsonl", rows)
    report = look(path, tokenizer, sample=50)
    (finding,) = report.findings
    assert (finding.code, finding.rows, finding.where) == ("personal_data", 1, (f"{path}:2712",))


def cleaned(path: Path, tokenizer: Any, output: Path, **settings: Any) -> dict[str, Any]:
    table = open_table(path)
    report = look(path, tokenizer)
    assert report.format
    told = write_cleaned(table, report.format, report.labels, output, Cleaning(**settings))
    return told.to_json()


def test_a_cleaned_copy_is_ready_and_the_file_as_it_was(tmp_path: Path, tokenizer: Any) -> None:
    bad = [
        chat(3),
        {"prompt": "Wie groß?", "completion": "GrÃ¶ÃŸe 3"},
        {"prompt": "Where to?", "completion": "To DE89 3704 0044 0532 0130 00."},
        {"prompt": "empty", "completion": ""},
    ]
    path = write(tmp_path / "a.jsonl", [*map(chat, range(60)), *bad])
    before = path.read_bytes()
    told = cleaned(path, tokenizer, tmp_path / "b.jsonl", redact=True)
    assert path.read_bytes() == before
    assert told == {
        "kept": {"train": 62},
        "dropped": {"exact_duplicates": 1, "no_supervision": 1},
        "mended": {"encoding": 1, "personal_data": 1},
        "left": {},
    }
    after = look(tmp_path / "b.jsonl", tokenizer)
    assert (after.verdict, after.findings) == ("ready", ())
    text = (tmp_path / "b.jsonl").read_text("utf-8")
    assert "Größe 3" in text
    assert "[IBAN]" in text
    assert "DE89" not in text


def test_classes_are_mended_and_test_rows_that_train_are_dropped(
    tmp_path: Path, tokenizer: Any
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write(folder / "train.jsonl", [*map(labelled, range(60)), {"text": "x y", "label": "Positive"}])
    write(folder / "valid.jsonl", [labelled(5), labelled(99)])
    told = cleaned(folder, tokenizer, tmp_path / "clean")
    assert told["kept"] == {"train": 61, "validation": 1}
    assert told["dropped"] == {"leakage": 1}
    rows = (tmp_path / "clean" / "train.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(row)["label"] for row in rows} == {"positive", "negative"}
    assert sorted(path.name for path in (tmp_path / "clean").iterdir()) == [
        "train.jsonl", "valid.jsonl",
    ]  # fmt: skip


def classes_of(path: Path) -> Counter[str]:
    return Counter(json.loads(line)["label"] for line in path.read_text("utf-8").splitlines())


def test_a_rare_class_is_never_mended_into_a_frequent_one(tmp_path: Path, tokenizer: Any) -> None:
    """Neither an opposite, nor what looks like a slip: only what differs in form."""
    names = ["legal"] * 60 + ["illegal"] * 3 + ["legol"] * 2 + ["Legal"]
    rows = [{**labelled(n), "label": name} for n, name in enumerate(names)]
    path = write(tmp_path / "a.jsonl", rows)
    found = {finding.code: finding for finding in look(path, tokenizer).findings}
    assert str(found["label_typo"].advice).startswith("perhaps the same class: 'legol' → 'legal'")
    assert found["label_typo"].rows == 2
    assert "'Legal' → 'legal'" in found["label_form"].advice
    told = cleaned(path, tokenizer, tmp_path / "b.jsonl")
    assert told["mended"] == {"label_form": 1}
    assert classes_of(tmp_path / "b.jsonl") == {"legal": 61, "illegal": 3, "legol": 2}


def test_classes_are_renamed_as_told(tmp_path: Path, tokenizer: Any) -> None:
    names = ["legal"] * 30 + ["illegal"] * 30 + ["legol"] * 2 + ["Legol", "Illegal"]
    rows = [{**labelled(n), "label": name} for n, name in enumerate(names)]
    path = write(tmp_path / "a.jsonl", rows)
    told = cleaned(path, tokenizer, tmp_path / "b.jsonl", renamed={"legol": "legal"})
    assert told["mended"] == {"label_renamed": 3, "label_form": 1}
    assert classes_of(tmp_path / "b.jsonl") == {"legal": 33, "illegal": 31}
    with pytest.raises(ConfigError, match="no class 'lega'") as wrong:
        cleaned(path, tokenizer, tmp_path / "c.jsonl", renamed={"lega": "legal"})
    assert "'legal'" in wrong.value.hint
    assert not (tmp_path / "c.jsonl").exists()


def test_conversion_keeps_every_row_or_says_which_it_cannot(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.jsonl", [chat(1), chat(1), chat(2)])
    told = cleaned(path, tokenizer, tmp_path / "b.jsonl", fix=False, to="openai")
    assert told["kept"] == {"train": 3}
    rows = [json.loads(row) for row in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    back = cleaned(tmp_path / "b.jsonl", tokenizer, tmp_path / "c.jsonl", fix=False,
                   to="prompt_completion")  # fmt: skip
    assert back["kept"] == {"train": 3}
    assert [json.loads(row) for row in (tmp_path / "c.jsonl").read_text().splitlines()] == [
        chat(1), chat(1), chat(2),
    ]  # fmt: skip
    turns = [{"role": role, "content": "x"} for role in ("user", "assistant") * 2]
    long = write(tmp_path / "d.jsonl", [{"messages": turns}])
    with pytest.raises(DataError, match="more than one question"):
        cleaned(long, tokenizer, tmp_path / "e.jsonl", fix=False, to="prompt_completion")
    assert not (tmp_path / "e.jsonl").exists()


def test_a_copy_keeps_what_is_not_to_be_learned(tmp_path: Path, tokenizer: Any) -> None:
    turns = [{"role": role, "content": f"{role}"} for role in ("user", "assistant") * 2]
    turns[1]["weight"] = 0
    path = write(tmp_path / "a.jsonl", [{"messages": turns}])
    cleaned(path, tokenizer, tmp_path / "b.jsonl", to="openai")
    assert json.loads((tmp_path / "b.jsonl").read_text()) == {"messages": turns}
    assert look(tmp_path / "b.jsonl", tokenizer).tokens == look(path, tokenizer).tokens


def test_copies_replace_nothing_and_leave_nothing_half(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path / "a.jsonl", [chat(1)])
    with pytest.raises(ConfigError, match="is there already"):
        cleaned(path, tokenizer, path)
    labels = write(tmp_path / "l.jsonl", [labelled(n) for n in range(4)])
    with pytest.raises(ConfigError, match="cannot be written as openai"):
        cleaned(labels, tokenizer, tmp_path / "x.jsonl", to="openai")
    with pytest.raises(StorageError):
        cleaned(path, tokenizer, path / "under-a-file.jsonl")
    assert sorted(found.name for found in tmp_path.iterdir()) == ["a.jsonl", "l.jsonl"]


def test_the_page_tells_it_in_both_languages_and_runs_nothing(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [*map(labelled, range(60)), {"text": "<script>alert(1)</script>", "label": "postive"}]
    report = look(write(tmp_path / "a.jsonl", rows), tokenizer)
    english, german = page(report), page(report, Catalogue.load("de"))
    for told in (english, german):
        assert "<script>" not in told
        assert "label_typo" in told
        assert "http" not in told
    assert "what to do" in english
    assert "was zu tun ist" in german


def test_turns_that_nobody_answers_are_counted_and_left_out_of_the_copy(
    tmp_path: Path, tokenizer: Any
) -> None:
    thanks = {"role": "user", "content": "Thanks"}
    rows = [
        {"messages": [{"role": "user", "content": row["prompt"]},
                      {"role": "assistant", "content": row["completion"]},
                      *([thanks] if number % 6 == 0 else [])]}
        for number, row in enumerate(chat(n) for n in range(60))
    ]  # fmt: skip
    path = write(tmp_path / "a.jsonl", rows)
    report = look(path, tokenizer)
    assert (report.verdict, codes(report)) == ("ready", {"unanswered": 10})
    out = tmp_path / "out.jsonl"
    assert report.format
    told = write_cleaned(open_table(path), report.format, {}, out, Cleaning())
    assert (told.kept, told.mended) == ({"train": 60}, {"unanswered": 10})
    assert "Thanks" not in out.read_text("utf-8")


def test_findings_say_what_was_found_where_and_what_mends_it(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [labelled(n) for n in range(80)]
    rows[41]["label"] = "postive"
    rows[50]["label"] = 0.5
    report = look(write(Path("a.jsonl"), rows), tokenizer)
    found = {finding.code: finding for finding in report.findings}
    assert "a.jsonl:51 cannot be used: column 'label'; expected the name of a class; found 0.5" in (
        found["unreadable"].advice
    )
    typo = found["label_typo"]
    assert typo.where == ("a.jsonl:42",)
    assert typo.told.endswith("(--fix --rename-label postive=positive)")
    assert report.mend == "detour check a.jsonl --fix a-clean.jsonl"
    assert str(report.advice) == (
        f"clean it first: {report.mend}; or the advice beside each finding"
    )


def test_a_folder_of_several_parts_is_cleaned_into_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v1.2").mkdir()
    for name in ("train", "test"):
        write(tmp_path / "v1.2" / f"{name}.jsonl", [chat(1)])
    monkeypatch.chdir(tmp_path)
    assert open_table("v1.2").copy == "v1.2-clean"
    assert open_table("v1.2/train.jsonl").copy == "v1.2/train-clean.jsonl"
    monkeypatch.chdir(tmp_path / "v1.2")
    assert open_table(".").copy == str(tmp_path / "v1.2-clean")


INSTRUCTION = (
    "You are the friendly helper of a shop for bicycles. Answer in one short sentence. " * 3
)


def instructed(number: int) -> dict[str, Any]:
    return {"messages": [
        {"role": "system", "content": INSTRUCTION},
        {"role": "user", "content": chat(number)["prompt"]},
        {"role": "assistant", "content": chat(number)["completion"]},
    ]}  # fmt: skip


def test_what_all_rows_share_makes_none_of_them_alike(tmp_path: Path, tokenizer: Any) -> None:
    rows = [instructed(n) for n in range(60)]
    path = write(tmp_path / "a.jsonl", rows)
    assert "near_duplicates" not in codes(look(path, tokenizer))
    again = json.loads(json.dumps(rows[3]))
    again["messages"][1]["content"] = again["messages"][1]["content"] + "?"
    copy = write(tmp_path / "b.jsonl", [*rows, again])
    assert codes(look(copy, tokenizer))["near_duplicates"] == 1


def test_a_shared_instruction_is_no_leakage(tmp_path: Path, tokenizer: Any) -> None:
    write(tmp_path / "train.jsonl", [instructed(n) for n in range(60)])
    write(tmp_path / "test.jsonl", [instructed(n) for n in range(100, 115)])
    report = look(tmp_path, tokenizer)
    assert report.verdict == "ready"
    cleaning = Cleaning(near=report.shared)
    assert report.format
    made = write_cleaned(open_table(tmp_path), report.format, {}, tmp_path / "copy", cleaning)
    assert made.kept == {"train": 60, "test": 15}


def test_rows_that_nearly_all_say_the_same_are_seen(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"text": INSTRUCTION + "!" * (1 + n)} for n in range(60)]
    assert codes(look(write(tmp_path / "a.jsonl", rows), tokenizer))["near_duplicates"] == 59


def test_what_the_advice_mends_is_ready_afterwards(tmp_path: Path, tokenizer: Any) -> None:
    rows = [chat(n) for n in range(60)]
    alike = [{**row, "prompt": row["prompt"] + "?"} for row in rows[:9]]
    report = look(write(tmp_path / "a.jsonl", [*rows, *alike]), tokenizer)
    assert report.verdict == "dirty"
    assert report.mend.endswith("--fix " + str(tmp_path / "a-clean.jsonl"))
    assert report.format
    cleaning = Cleaning(near=report.shared)
    copy = tmp_path / "a-clean.jsonl"
    made = write_cleaned(open_table(tmp_path / "a.jsonl"), report.format, {}, copy, cleaning)
    assert made.dropped == {"near_duplicates": 9}
    assert look(copy, tokenizer).verdict == "ready"


def test_the_command_that_mends_does_what_needs_no_decision(tmp_path: Path, tokenizer: Any) -> None:
    rows = [labelled(n) for n in range(80)]
    for place, name in ((4, "postive"), (9, "negatve")):
        rows[place]["label"] = name
    alone = look(write(tmp_path / "a.jsonl", rows), tokenizer)
    assert codes(alone) == {"label_typo": 2}
    assert alone.findings[0].told.endswith(
        "(--fix --rename-label negatve=negative --rename-label postive=positive)"
    )
    assert alone.mend == ""
    assert alone.advice == "see the advice beside each finding first"
    rows[11]["text"] += " Write to eva@example.org."
    both = look(write(tmp_path / "b.jsonl", rows), tokenizer)
    assert both.mend.endswith(f"--fix {tmp_path / 'b-clean.jsonl'} --redact")


def test_alike_is_only_what_is_answered_alike(tmp_path: Path, tokenizer: Any) -> None:
    passages = [" ".join(random.Random(n).choices(WORDS, k=120)) for n in range(20)]
    asked = [
        {"instruction": f"What is {word} here?", "input": passage, "output": f"The {word} {n}."}
        for n, passage in enumerate(passages) for word in WORDS[:5]
    ]  # fmt: skip
    path = write(tmp_path / "a.jsonl", asked)
    report = look(path, tokenizer)
    assert "near_duplicates" not in codes(report)
    judged = [
        {"text": f"{labelled(n)['text']} It was {word}good.", "label": label}
        for n in range(40) for word, label in (("", "yes"), ("not ", "no"))
    ]  # fmt: skip
    told = look(write(tmp_path / "b.jsonl", judged), tokenizer)
    assert told.verdict == "ready"


def test_what_resembles_only_what_is_dropped_stays(tmp_path: Path, tokenizer: Any) -> None:
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(260)]
    rows = [{"text": " ".join(words[n : n + 60])} for n in range(0, 200, 2)]
    report = look(write(tmp_path / "a.jsonl", rows), tokenizer)
    assert report.format
    copy = tmp_path / "b.jsonl"
    table = open_table(tmp_path / "a.jsonl")
    made = write_cleaned(table, report.format, {}, copy, Cleaning(near=report.shared))
    assert 15 < made.kept["train"] < 60  # every window that is new enough, not the first alone
    assert made.dropped["near_duplicates"] == codes(report)["near_duplicates"]
    assert "near_duplicates" not in codes(look(copy, tokenizer))


def test_rows_with_personal_data_are_counted_once_each(tmp_path: Path, tokenizer: Any) -> None:
    rows = [chat(n) for n in range(60)]
    rows[3]["completion"] += " Ask eva@example.org, +49 30 1234567."
    rows[5]["completion"] += " Pay to DE89 3704 0044 0532 0130 00."
    assert codes(look(write(tmp_path / "a.jsonl", rows), tokenizer))["personal_data"] == 2


def test_lines_of_another_encoding_are_to_be_read_not_dropped(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [chat(n) for n in range(60)]
    rows[7]["completion"] = "Größe für Gäste"
    path = tmp_path / "a.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_bytes("\n".join(lines).encode("cp1252"))
    report = look(path, tokenizer)
    assert report.advice.endswith(f"detour check {path} --encoding cp1252")
    (finding,) = [f for f in report.findings if f.code == "unreadable"]
    assert "--fix" not in finding.told
    named = look(path, tokenizer, columns={"prompt": "prompt", "completion": "completion"})
    assert "--column prompt=prompt --column completion=completion --encoding" in named.advice


def test_one_line_of_another_encoding_is_no_reason_to_spoil_the_others(
    tmp_path: Path, tokenizer: Any
) -> None:
    rows = [{**chat(n), "completion": f"Größe {n}"} for n in range(60)]
    lines = [json.dumps(row, ensure_ascii=False).encode() for row in rows]
    lines[9] = json.dumps(rows[9], ensure_ascii=False).encode("cp1252")
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    report = look(path, tokenizer)
    assert "--fix" in report.advice
    assert "--encoding" not in report.advice
