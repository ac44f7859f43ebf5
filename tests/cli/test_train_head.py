"""`detour train` on rows with a class or a number."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from detour.adapter.adapter import Adapter

FAST = ("--steps", 80, "--learning-rate", 5e-3, "--rank", 2)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters are written to the current folder."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def encoder(tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = BertConfig(
        vocab_size=len(tiny_tokenizer), intermediate_size=48, max_position_embeddings=64, **sizes
    )
    BertModel(config).save_pretrained(tmp_path / "encoder")
    tiny_tokenizer.save_pretrained(tmp_path / "encoder")
    return tmp_path / "encoder"


def rows(count: int, seed: int, answer: Callable[[int], dict[str, object]]) -> str:
    rng = random.Random(seed)
    words = (("ship", "wave", "harbour"), ("field", "hill", "road"))
    lines = [
        {"text": f"the {rng.choice(words[n % 2])} and {rng.choice(words[n % 2])} {seed}{n}",
         **answer(n)}
        for n in range(count)
    ]  # fmt: skip
    return "".join(json.dumps(line) + "\n" for line in lines)


def test_classes(detour: Callable[..., Any], encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows").mkdir()
    for split, count, seed in (("train", 80, 0), ("valid", 30, 1), ("test", 30, 2)):
        told = rows(count, seed, lambda n: {"label": ("sea", "land")[n % 2]})
        (tmp_path / "rows" / f"{split}.jsonl").write_text(told)
    told = detour("train", tmp_path / "rows", "-o", "mine", "--base", encoder, *FAST, "--json").json
    assert set(told["metrics"]) == {"validation", "test"}
    reached, plainest = (
        told["metrics"]["test"][who]["accuracy"] for who in ("adapter", "plainest")
    )
    assert reached["low"] > plainest["value"]
    assert reached["n"] == 30
    folder = Path(told["adapter"])
    assert Adapter.load(folder).card.config["head"] == {
        "kind": "classification", "labels": ["land", "sea"], "pooling": "own"
    }  # fmt: skip
    judged = json.loads((folder / "eval.json").read_text())
    assert judged == {"metrics": told["metrics"], "cost": told["cost"]}
    assert json.loads((folder / "data_report.json").read_text())["labels"] == {
        "land": 70, "sea": 70
    }  # fmt: skip
    page = (folder / "report.html").read_text("utf-8")
    assert "head and plainest guess on the same rows" in page
    assert "<!-- loss (nats a row) -->" in page  # in the curves
    assert f"{reached['value']:.3f} [{reached['low']:.3f}, " in page
    assert (folder / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 80
    assert not list(tmp_path.glob(".mine*"))
    said = detour("train", tmp_path / "rows", "-o", "more", "--base", encoder, *FAST).out
    assert "test: accuracy " in said
    assert "the plainest guess: accuracy 0.5" in said


def test_numbers(detour: Callable[..., Any], encoder: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text(
        "text;value\n" + "".join(f"the {('hill', 'ship')[n % 2]} {n};{n % 2 * 30 + 5}\n"
                                 for n in range(80))
    )  # fmt: skip
    told = detour(
        "train", tmp_path / "rows.csv", "-o", "mine", "--base", encoder, *FAST, "--json"
    ).json
    assert told["validation_rows"] == 8
    judged = told["metrics"]["validation"]  # of one file: the rows that were held out
    assert judged["adapter"]["mse"]["n"] == judged["plainest"]["mse"]["n"] == 8
    assert judged["adapter"]["mse"]["value"] < judged["plainest"]["mse"]["value"]
    assert told["best_loss"] < 0.5 * told["first_loss"]
    assert Adapter.load(Path(told["adapter"])).card.config["head"]["kind"] == "regression"


def test_mistakes_end_in_advice(detour: Callable[..., Any], encoder: Path, tmp_path: Path) -> None:
    one = rows(20, 0, lambda n: {"label": "sea"})
    (tmp_path / "one.jsonl").write_text(one)
    outcome = detour("train", tmp_path / "one.jsonl", "-o", "mine", "--base", encoder, *FAST)
    assert outcome.code == 2
    assert "nothing to tell apart" in outcome.message
    (tmp_path / "two.jsonl").write_text(rows(20, 0, lambda n: {"label": "ab"[n % 2]}))
    outcome = detour(
        "train", tmp_path / "two.jsonl", "-o", "mine", "--base", encoder, "--start", "pirate"
    )
    assert outcome.code == 2
    assert "--start is not for rows" in outcome.message
    assert not (tmp_path / "mine").exists()
