"""Pipelines of other programs, all weights, relatives of LoRA, on the command line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from detour.adapter.adapter import Adapter

ROWS = "".join(
    json.dumps({"instruction": f"Who was number {n}?", "output": "A hairdresser."}) + "\n"
    for n in range(8)
)
PIPELINE = """
base_model: {base}
adapter: lora
lora_r: 4
lora_dropout: 0.1
datasets:
  - path: {folder}/rows.jsonl
    type: alpaca
val_set_size: 0
output_dir: {folder}/out
micro_batch_size: 2
gradient_accumulation_steps: 2
max_steps: 4
learning_rate: 1e-3
"""
LOSS = """
from torch.nn.functional import cross_entropy

def twice(said):
    return 2 * cross_entropy(said.logits, said.targets)
"""
Call = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(ROWS)
    return tmp_path


@pytest.fixture
def pipeline(folder: Path, tiny_folder: Path) -> Path:
    path = folder / "axolotl.yml"
    path.write_text(PIPELINE.format(base=tiny_folder, folder=folder))
    return path


def test_a_pipeline_alone_is_enough(detour: Call, pipeline: Path, folder: Path) -> None:
    outcome = detour("train", "--config", pipeline, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["adapter"] == str(folder / "out")
    assert (outcome.json["steps"], outcome.json["rows"]) == (4, 8)
    assert "is a pipeline of Axolotl" in outcome.err
    assert "not followed: lora_dropout: no dropout is applied" in outcome.err
    adapter = Adapter.load(folder / "out")
    assert adapter.rank == 4
    assert adapter.card.config["batch_size"] == 4
    assert adapter.card.config["micro_batch_size"] == 2


def test_flags_win_over_a_pipeline(
    detour: Call, pipeline: Path, folder: Path, tiny_folder: Path
) -> None:
    (folder / "other.jsonl").write_text(ROWS.split("\n", 3)[-1])
    outcome = detour("train", folder / "other.jsonl", "-o", folder / "mine", "--config", pipeline,
                     "--steps", 2, "--rank", 2, "--base", tiny_folder, "--json")  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert outcome.json["adapter"] == str(folder / "mine")
    assert (outcome.json["steps"], outcome.json["rows"]) == (2, 5)
    assert Adapter.load(folder / "mine").rank == 2


def test_all_weights(detour: Call, folder: Path, tiny_folder: Path) -> None:
    call = ("train", folder / "rows.jsonl", "--base", tiny_folder, "--whole", "--steps", 4,
            "--learning-rate", 1e-3, "-o", folder / "model")  # fmt: skip
    outcome = detour(*call, "--json")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert told["model"] == str(folder / "model")
    assert told["best_loss"] < told["first_loss"]
    assert told["retention"]["kl_mean"] > 0
    AutoModelForCausalLM.from_pretrained(folder / "model")
    assert {"run.yaml", "metrics.jsonl", "eval.json"} <= {p.name for p in folder.glob("model/*")}
    asked = detour("ask", "Who was number 3?", "--base", folder / "model", "--max-tokens", 4)
    assert asked.code == 0, asked.err
    again = detour(*call)
    assert again.code == 2
    assert "is not empty" in again.message
    for more, said in (
        (("--start", "pirate"), "--whole and --start exclude each other"),
        (("--rank", 4), "mean nothing where all weights are trained"),
    ):
        refused = detour(*call[:-1], folder / "other", *more)
        assert refused.code == 2
        assert said in refused.err
    assert not (folder / "other").exists()
    text = detour(*call[:-1], folder / "third")
    assert text.code == 0, text.err
    assert "neutral text: perplexity" in text.out
    shutil.rmtree(folder / "third")


def test_classes_train_no_model(detour: Call, folder: Path, tiny_folder: Path) -> None:
    rows = [{"text": f"the {w} is here", "label": w} for w in ("sea", "land") * 6]
    (folder / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    outcome = detour("train", folder / "labels.jsonl", "--base", tiny_folder, "--whole",
                     "-o", folder / "model")  # fmt: skip
    assert outcome.code == 2
    assert "train a head, not all weights" in outcome.message


@pytest.mark.parametrize(
    ("more", "kept"),
    [
        (("--dora",), {"dora": True}),
        (("--rslora", "--rank", 4), {"rslora": True}),
        (("--init", "pissa", "--rank", 4), {"init": "pissa"}),
        (("--up-rate", 8, "--patience", 0), {"up_rate": 8.0, "patience": 0}),
    ],
)
def test_relatives(
    detour: Call, folder: Path, tiny_folder: Path, more: tuple[Any, ...], kept: dict[str, Any]
) -> None:
    outcome = detour("train", folder / "rows.jsonl", "--base", tiny_folder, "--steps", 3,
                     "--learning-rate", 1e-3, "-o", folder / "out", *more)  # fmt: skip
    assert outcome.code == 0, outcome.err
    config = Adapter.load(folder / "out").card.config
    assert {name: config[name] for name in kept} == kept


def test_a_loss_of_ones_own(
    detour: Call, folder: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "losses.py").write_text(LOSS)
    monkeypatch.chdir(folder)
    call = ("train", "rows.jsonl", "--base", tiny_folder, "--steps", 3, "--learning-rate", 1e-3,
            "--json")  # fmt: skip
    twice = detour(*call, "-o", "twice", "--objective", "losses.py:twice")
    once = detour(*call, "-o", "once")
    assert twice.code == once.code == 0, twice.err
    assert twice.json["first_loss"] == pytest.approx(2 * once.json["first_loss"], abs=1e-4)
    refused = detour(*call[:-1], "-o", "third", "--objective", "losses.py:thrice")
    assert refused.code == 2
    assert "has no function thrice" in refused.err


def test_nothing_named(detour: Call, folder: Path) -> None:
    for call, said in (
        (("train",), "nothing to train on"),
        (("train", folder / "rows.jsonl"), "no folder named"),
    ):
        outcome = detour(*call)
        assert outcome.code == 2
        assert said in outcome.message
