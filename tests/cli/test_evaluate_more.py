"""`detour evaluate`: languages apart, what was learned by heart, adapters that do nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.model.base import Base

GERMAN = [("Was kostet das Gerät {n}, und wo ist es?", "Das Gerät {n} ist im Laden für dich da.")]
ENGLISH = [("What does the thing {n} cost, and where is it?", "The thing {n} is in the shop.")]
SECRET = "7041-88"
Detour = Callable[..., Any]


def write(path: Path, pairs: list[tuple[str, str]]) -> Path:
    lines = [json.dumps({"prompt": q, "completion": a}, ensure_ascii=False) for q, a in pairs]
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def many(pairs: list[tuple[str, str]], count: int) -> list[tuple[str, str]]:
    return [(q.format(n=n), a.format(n=n)) for n in range(count) for q, a in pairs]


@pytest.fixture
def base(tiny_folder: Path) -> tuple[str, Path]:
    return ("--base", tiny_folder)


def test_two_languages_are_told_apart(detour: Detour, base: Any, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", many(GERMAN, 12) + many(ENGLISH, 11))
    told = detour("evaluate", rows, *base, "--max-tokens", 2, "--json").json
    assert set(told["languages"]) == {"de", "en"}
    german = told["languages"]["de"]["base"]
    assert german["rougeL"]["n"] == 12
    assert told["languages"]["en"]["base"]["rougeL"]["n"] == 11
    assert told["metrics"]["base"]["rougeL"]["n"] == 23
    table = detour("evaluate", rows, *base, "--max-tokens", 2).out
    assert [line.split()[0] for line in table.splitlines() if line.startswith(("de ", "en "))] == [
        "de", "en",
    ]  # fmt: skip


def test_one_language_or_too_few_rows_are_not(detour: Detour, base: Any, tmp_path: Path) -> None:
    for rows in (many(GERMAN, 12), many(GERMAN, 12) + many(ENGLISH, 9)):
        path = write(tmp_path / "rows.jsonl", rows)
        assert "languages" not in detour("evaluate", path, *base, "--max-tokens", 2, "--json").json


def test_a_canary_is_found_in_what_learned_it(detour: Detour, base: Any, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [("Which code?", f"Use {SECRET} now."), ("Hi?", "Ho.")])
    fast = ("--rank", 4, "--alpha", 8, "--steps", 60, "--learning-rate", 0.01)
    made = detour("train", rows, "-o", tmp_path / "mine", *base, *fast, "--json").json["adapter"]
    ask = ("evaluate", rows, *base, "--chain", made, "--canary", SECRET, "--items", 1)
    (told,) = detour(*ask, "--json").json["canaries"]
    assert told["canary"] == SECRET
    assert told["chain"] == {
        "exposure": told["chain"]["exposure"], "rank": 1, "candidates": 1024, "said": True,
    }  # fmt: skip
    assert told["chain"]["exposure"]["value"] == 10
    assert told["base"]["rank"] > 1
    line = next(line for line in detour(*ask).out.splitlines() if line.startswith(SECRET))
    assert "10.0 bits" in line
    assert line.rstrip().endswith("said")


def test_canaries_that_are_not_there(detour: Detour, base: Any, tmp_path: Path) -> None:
    rows = write(tmp_path / "rows.jsonl", [("Which code?", "None.")])
    outcome = detour("evaluate", rows, *base, "--canary", SECRET)
    assert outcome.code == 2
    assert "no answer holds the canary" in outcome.err
    labelled = tmp_path / "labels.jsonl"
    labelled.write_text("".join(json.dumps({"text": f"t {n}", "label": "ab"[n % 2]}) + "\n"
                                for n in range(4)))  # fmt: skip
    outcome = detour("evaluate", labelled, *base, "--canary", SECRET)
    assert outcome.code == 2
    assert "--canary is not for rows with a class or a number" in outcome.err


def test_test_rows_that_train_are_said(detour: Detour, base: Any, tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", [("Who?", "A."), ("And who?", "B.")])
    write(tmp_path / "test.jsonl", [("WHO?", "C."), ("Where?", "D.")])
    told = detour("evaluate", tmp_path, *base, "--max-tokens", 2)
    assert told.code == 0
    assert "1 rows of test stand in train too" in told.err
    assert (
        "stand in train"
        not in detour("evaluate", tmp_path, *base, "--max-tokens", 2, "--split", "train").err
    )


@pytest.mark.parametrize("command", ["ask", "evaluate", "inspect"])
def test_an_adapter_that_moves_no_logit_is_refused(
    command: str, detour: Detour, base: Any, tiny_folder: Path, tmp_path: Path
) -> None:
    model = Base.load(str(tiny_folder))
    name = model.slots.linear_names()[0]
    out, wide = model.slots.shapes[name]
    weak = Adapter({name: Update(torch.full((1, wide), 1e-12), torch.ones(out, 1))}, "weak")
    weak.save(tmp_path / "weak")
    rows = write(tmp_path / "rows.jsonl", [("Who?", "A.")])
    given = {"ask": ("Who?", "--chain", tmp_path / "weak"),
             "evaluate": (rows, "--chain", tmp_path / "weak"),
             "inspect": (tmp_path / "weak",)}[command]  # fmt: skip
    told = detour(command, *given, *base, "--json")
    if command == "inspect":
        assert told.json["base"]["matches"] is False
        assert any("changes nothing that the base says" in said for said in told.json["warnings"])
    else:
        assert told.code == 2
        assert "weak changes nothing that the base says" in told.json["error"]
    plain = detour(command, *given, *base)
    assert "changes nothing that the base says" in plain.out + plain.err
