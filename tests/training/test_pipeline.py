"""Axolotl's and LlamaFactory's files: what is followed, what is told, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detour.errors import ConfigError
from detour.training.config import make_config
from detour.training.pipeline import Pipeline, pipeline_of

AXOLOTL = """
base_model: some/model
load_in_4bit: false
adapter: lora
lora_r: 16
lora_alpha: 32
lora_dropout: 0.05
lora_target_linear: true
peft_use_dora: true
datasets:
  - path: rows.jsonl
    type: sharegpt
val_set_size: 0.05
output_dir: ./out
sequence_len: 2048
sample_packing: true
micro_batch_size: 2
gradient_accumulation_steps: 4
num_epochs: 3
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 2e-4
bf16: true
warmup_ratio: 0.05
special_tokens:
  pad_token: "<|end|>"
wandb_project:
"""
LLAMA_FACTORY = """
model_name_or_path: some/model
stage: sft
do_train: true
finetuning_type: lora
lora_target: q_proj, v_proj
lora_rank: 8
pissa_init: true
dataset: mine
template: llama3
cutoff_len: 1024
output_dir: saves/mine
per_device_train_batch_size: 1
gradient_accumulation_steps: 8
learning_rate: 1.0e-4
num_train_epochs: 2.0
lr_scheduler_type: linear
quantization_bit: 4
"""
HERE = Path("config.yml")


def read(told: str, **more: Any) -> Pipeline:
    found = pipeline_of({**yaml.safe_load(told), **more}, HERE)
    assert found is not None
    return found


def test_axolotl() -> None:
    found = read(AXOLOTL)
    assert (found.kind, found.base, found.data) == ("Axolotl", "some/model", "rows.jsonl")
    assert (found.format_name, found.output, found.dtype) == ("sharegpt", "./out", "bfloat16")
    assert (found.quantize, found.whole) == (None, False)
    config = make_config(found.settings)
    assert (config.rank, config.alpha, config.dora) == (16, 32.0, True)
    assert (config.batch_size, config.micro_batch_size, config.epochs) == (8, 2, 3.0)
    assert (config.learning_rate, config.warmup, config.validation_share) == (2e-4, 0.05, 0.05)
    assert config.targets == "all-linear"
    assert [line.split(":")[0] for line in found.left] == [
        "lora_dropout", "sequence_len", "special_tokens",
    ]  # fmt: skip
    assert read(AXOLOTL, adapter="qlora").quantize == "4bit"
    assert read(AXOLOTL, load_in_8bit=True).quantize == "8bit"
    assert read(AXOLOTL, adapter=None).whole
    some = read(AXOLOTL, lora_target_linear=False, lora_target_modules=["q_proj"])
    assert make_config(some.settings).targets == ("q_proj",)


def test_steps_win_over_epochs_and_give_the_warmup() -> None:
    found = read(AXOLOTL, max_steps=200, warmup_steps=20, warmup_ratio=None)
    config = make_config(found.settings)
    assert (config.steps, config.epochs, config.warmup) == (200, None, 0.1)
    assert not any("warmup" in line for line in found.left)
    without = read(AXOLOTL, warmup_steps=20, warmup_ratio=None)
    assert any(line.startswith("warmup_steps") for line in without.left)


def test_a_number_of_validation_rows_is_told() -> None:
    found = read(AXOLOTL, val_set_size=500)
    assert "validation_share" not in found.settings
    assert any(line.startswith("val_set_size: 500") for line in found.left)


def test_llama_factory(tmp_path: Path) -> None:
    columns = {"prompt": "frage", "response": "antwort"}
    info = {"mine": {"file_name": "mine.json", "formatting": "alpaca", "columns": columns},
            "theirs": {"hf_hub_url": "some/rows", "formatting": "sharegpt"}}  # fmt: skip
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    found = read(LLAMA_FACTORY, dataset_dir=str(tmp_path))
    assert (found.kind, found.data) == ("LlamaFactory", str(tmp_path / "mine.json"))
    assert found.columns == {"instruction": "frage", "output": "antwort"}
    assert (found.format_name, found.quantize, found.whole) == ("alpaca", "4bit", False)
    config = make_config(found.settings)
    assert (config.targets, config.init) == (("q_proj", "v_proj"), "pissa")
    assert (config.batch_size, config.micro_batch_size) == (8, 1)
    assert [line.split(":")[0] for line in found.left] == [
        "template", "cutoff_len", "lr_scheduler_type",
    ]  # fmt: skip
    other = read(LLAMA_FACTORY, dataset_dir=str(tmp_path), dataset="theirs")
    assert (other.data, other.format_name) == ("some/rows", "sharegpt")
    assert read(LLAMA_FACTORY, stage="pt").format_name == "text"
    assert read(LLAMA_FACTORY, finetuning_type="full", lora_target="all").whole
    with pytest.raises(ConfigError, match="'ours', which"):
        read(LLAMA_FACTORY, dataset_dir=str(tmp_path), dataset="ours")


@pytest.mark.parametrize(
    ("told", "more", "said"),
    [
        (AXOLOTL, {"rl": "dpo"}, "rl: dpo"),
        (AXOLOTL, {"adapter": "loha"}, "adapter: loha"),
        (AXOLOTL, {"datasets": [{"path": "a"}, {"path": "b"}]}, "several datasets"),
        (LLAMA_FACTORY, {"stage": "dpo"}, "stage: dpo"),
        (LLAMA_FACTORY, {"finetuning_type": "freeze"}, "finetuning_type: freeze"),
        (LLAMA_FACTORY, {"dataset": "a,b"}, "several dataset"),
    ],
)
def test_what_is_refused(told: str, more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(told, **more)
    assert caught.value.expected


def test_our_own_file_is_none() -> None:
    assert pipeline_of({"rank": 8, "steps": 10}, HERE) is None
