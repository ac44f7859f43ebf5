"""`detour evaluate`: a base and a chain on the same rows."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.evaluate.answers import answered, perplexity
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.rows import encode


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written to the current folder is not written into the checkout."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    folder = tmp_path / "rows"
    folder.mkdir()
    for split, count in (("train", 5), ("test", 4)):
        lines = [{"prompt": f"Who was {n}?", "completion": f"Nobody {n}."} for n in range(count)]
        told = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(told)
    return folder


def test_base_and_chain_answer_the_same_rows(
    detour: Callable[..., Any], rows: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    fast = ("--base", tiny_folder, "--rank", 2, "--steps", 30, "--learning-rate", 5e-3)
    made = detour("train", rows / "test.jsonl", "-o", "mine", *fast, "--json").json["adapter"]
    given = ("--base", tiny_folder, "--chain", made, "--max-tokens", 8)
    told = detour("evaluate", rows, *given, "--answers", tmp_path / "said.jsonl", "--json").json
    assert (told["split"], told["rows"], told["kind"]) == ("test", 4, "chat")
    assert set(told["metrics"]) == {"base", "chain"}
    base, chain = told["metrics"]["base"], told["metrics"]["chain"]
    assert set(base) == set(chain) == {
        "exact_match", "contains", "rouge1", "rouge2", "rougeL", "bleu", "chrf", "perplexity"
    }  # fmt: skip
    assert chain["perplexity"]["value"] < 0.5 * base["perplexity"]["value"]
    assert all(f["low"] <= f["value"] <= f["high"] and f["n"] == 4 for f in chain.values())
    said = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert [set(line) for line in said] == [{"prompt", "wanted", "base", "chain"}] * 4
    assert said[3]["wanted"] == "Nobody 3."
    table = detour("evaluate", rows, *given, "--split", "train", "--items", 2)
    assert "2 rows of train" in table.err
    assert any(line.startswith("rougeL") for line in table.out.splitlines())


def test_what_was_cut_is_told(detour: Callable[..., Any], rows: Path, tiny_folder: Path) -> None:
    given = ("evaluate", rows, "--base", tiny_folder)
    short = detour(*given, "--max-tokens", 2, "--json")
    assert short.json["cut"] == {"base": 4}
    assert "base: 4 of 4 wanted answers are longer than 2 tokens" in short.err
    assert "4 of 4 answers were cut at 2 tokens" in short.err
    whole = detour(*given, "--json")
    assert "wanted answers" not in whole.err
    assert whole.json.get("cut", {"base": 0})["base"] <= 4


def test_perplexity_is_that_of_the_answers(tiny_folder: Path) -> None:
    base = Base.load(str(tiny_folder))
    told = [
        Example(({"role": "user", "content": q}, {"role": "assistant", "content": a}))
        for q, a in (
            ("Who?", "Nobody."),
            ("And who was that over there?", "Somebody else, in fact."),
        )
    ]
    total = count = 0.0
    for row in encode(base.tokenizer, told, base.longest):  # type: ignore[arg-type]
        logits = base.logits(torch.tensor([row.ids]))[0].log_softmax(-1)
        for place in range(1, len(row.ids)):
            if row.learned[place]:
                total -= float(logits[place - 1, row.ids[place]])
                count += 1
    assert perplexity(base, told).value == pytest.approx(math.exp(total / count), rel=1e-4)
    plain = answered(base, [Plain("Some text that stands alone.")])
    assert set(plain.figures) == {"perplexity"}
    assert plain.answers == ()


def test_a_head_is_judged(detour: Callable[..., Any], tiny_folder: Path, tmp_path: Path) -> None:
    lines = [
        {"text": f"the {('hill', 'ship')[n % 2]} {n}", "label": "ab"[n % 2]} for n in range(40)
    ]
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    fast = ("--base", tiny_folder, "--rank", 2, "--steps", 60, "--learning-rate", 5e-3)
    made = detour("train", data, "-o", "mine", *fast, "--json").json["adapter"]
    told = detour("evaluate", data, "--base", tiny_folder, "--chain", made, "--json").json
    assert set(told["metrics"]) == {"chain"}
    assert told["metrics"]["chain"]["accuracy"]["low"] > 0.5
    outcome = detour("evaluate", data, "--base", tiny_folder)
    assert outcome.code == 2
    assert "one adapter that has a head" in outcome.err
    assert Adapter.load(Path(made)).card.config["head"]["labels"] == ["a", "b"]


def test_the_plainest_guess_does_not_know_what_it_is_judged_on(
    detour: Callable[..., Any], tiny_folder: Path, tmp_path: Path
) -> None:
    """Most training rows are `a`, most test rows `b`: whoever says `a` is mostly wrong."""
    folder = tmp_path / "parts"
    folder.mkdir()
    for split, often, rarely in (("train", "a", "b"), ("test", "b", "a")):
        lines = [
            {"text": f"the {split} {n}", "label": often if n % 4 else rarely} for n in range(20)
        ]
        told = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{split}.jsonl").write_text(told)
    given = ("--rank", 2, "--steps", 20, "--learning-rate", 5e-3)
    detour("train", folder, "-o", "mine", "--base", tiny_folder, *given)
    judged = ("--base", tiny_folder, "--chain", "./mine", "--json")
    parts = detour("evaluate", folder, *judged).json["metrics"]
    assert parts["plainest"]["accuracy"]["value"] == 0.25
    alone = detour("evaluate", folder / "test.jsonl", *judged)
    assert alone.json["metrics"] == {"chain": parts["chain"]}
    assert "no plainest guess" in alone.err
    learned = detour("evaluate", folder, "--split", "train", *judged)
    assert set(learned.json["metrics"]) == {"chain"}
    assert learned.json["learned"] == {"./mine": 18}  # a tenth was held out


def test_rows_that_were_learned_are_told(
    detour: Callable[..., Any], tiny_folder: Path, tmp_path: Path
) -> None:
    lines = [{"prompt": f"Who was {n}?", "completion": f"Nobody {n}."} for n in range(12)]
    told = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "mine.jsonl").write_text(told)
    (tmp_path / "other.jsonl").write_text(told.replace("Who was", "Where was"))
    given = ("--base", tiny_folder, "--rank", 2, "--steps", 20, "--learning-rate", 5e-3)
    detour("train", "mine.jsonl", "-o", "mine", *given)
    judged = ("--base", tiny_folder, "--chain", "./mine", "--max-tokens", 2, "--json")
    same = detour("evaluate", "mine.jsonl", "--items", 6, *judged)
    assert 5 <= same.json["learned"]["./mine"] <= 6  # one of the twelve was held out
    assert "./mine was trained on" in same.err
    other = detour("evaluate", "other.jsonl", *judged)
    assert "learned" not in other.json
    assert "was trained on" not in other.err


def test_mistakes(detour: Callable[..., Any], rows: Path, tiny_folder: Path) -> None:
    outcome = detour("evaluate", rows, "--base", tiny_folder, "--split", "validation")
    assert outcome.code == 2
    assert "no part validation" in outcome.message
    assert "expected train, test" in outcome.message
