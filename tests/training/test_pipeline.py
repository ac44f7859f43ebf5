"""Axolotl's and LlamaFactory's files: what is followed, what is told, what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from detour.data.reading import read_data
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue
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


def lines(found: Pipeline) -> list[str]:
    """The keys of a data set that are not followed."""
    return [line.partition(": ")[0] for line in found.left if line.startswith("dataset")]


def test_what_an_axolotl_data_set_asks_for_is_followed_or_told() -> None:
    entry = {
        "path": "rows.jsonl", "type": "alpaca", "ds_type": "json", "split": "train[:1%]",
        "name": "small", "shards": 10, "roles_to_train": ["assistant"], "train_on_eos": "turn",
        "message_property_mappings": {"role": "speaker"}, "field_human": "x", "revision": "main",
        "conversation": "chatml", "preprocess_shards": None,
    }  # fmt: skip
    found = read(AXOLOTL, datasets=[entry])
    assert lines(found) == [
        f"datasets.{key}" for key in (
            "split", "name", "shards", "roles_to_train", "train_on_eos",
            "message_property_mappings", "field_human", "revision", "conversation",
        )
    ]  # fmt: skip
    assert lines(read(AXOLOTL, datasets=[{"path": "a", "split": "train"}])) == []
    assert lines(read(AXOLOTL)) == []
    for kind in ("llama3.user_defined", "input_output"):
        found = read(AXOLOTL, datasets=[{"path": "a", "type": kind}])
        assert (found.format_name, lines(found)) == (None, ["datasets.type"])


def test_a_form_of_axolotls_own_gives_its_columns() -> None:
    kind = {
        "field_instruction": "frage", "field_output": "antwort", "field_system": "rolle",
        "format": "[INST] {instruction} [/INST]", "no_input_format": "{instruction}",
        "system_prompt": "",
    }  # fmt: skip
    found = read(AXOLOTL, datasets=[{"path": "rows.jsonl", "type": kind}])
    assert found.columns == {"instruction": "frage", "output": "antwort", "system": "rolle"}
    assert lines(found) == ["datasets.type.format", "datasets.type.no_input_format"]
    assert read(AXOLOTL, datasets=[{"path": "json", "data_files": ["a.jsonl"]}]).data == "a.jsonl"
    with pytest.raises(ConfigError, match="several data_files"):
        read(AXOLOTL, datasets=[{"path": "json", "data_files": ["a.jsonl", "b.jsonl"]}])


def info_of(folder: Path, entry: object) -> Pipeline:
    (folder / "dataset_info.json").write_text(json.dumps({"mine": entry}))
    return read(LLAMA_FACTORY, dataset_dir=str(folder))


def test_what_a_llama_factory_data_set_asks_for_is_followed_or_told(tmp_path: Path) -> None:
    found = info_of(tmp_path, {
        "hf_hub_url": "some/rows", "subset": "small", "split": "test", "folder": "a",
        "num_samples": 9, "ranking": False, "columns": {"prompt": "q", "history": "h"},
    })  # fmt: skip
    assert found.columns == {"instruction": "q"}
    assert lines(found) == [
        f"dataset mine.{key}"
        for key in ("subset", "split", "folder", "num_samples", "columns.history")
    ]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user",
            "assistant_tag": "assistant"}  # fmt: skip
    entry = {"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "talk"}}
    found = info_of(tmp_path, {**entry, "tags": tags})
    assert (found.columns, lines(found)) == ({"conversations": "talk"}, [])
    found = info_of(tmp_path, {**entry, "tags": {**tags, "user_tag": "kunde"}})
    assert lines(found) == ["dataset mine.tags.user_tag"]
    assert lines(info_of(tmp_path, {**entry, "ranking": True})) == ["dataset mine.ranking"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON"),
        ("[1]", "is no list of data sets"),
        ('{"mine": "a.json"}', "'mine' is described by no object"),
        ('{"mine": {"script_url": "x.py"}}', "'mine' lies where it is not read from"),
        ('{"mine": {"file_name": "a.json", "columns": ["a"]}}', "'mine' is described by no object"),
    ],
)
def test_a_broken_list_of_data_sets_is_told(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "dataset_info.json").write_text(content)
    with pytest.raises(ConfigError, match=said) as caught:
        read(LLAMA_FACTORY, dataset_dir=str(tmp_path))
    assert str(tmp_path / "dataset_info.json") in str(caught.value)


@pytest.mark.parametrize("length", [{}, {"max_steps": 100}])
def test_no_warmup_is_none(length: dict[str, int]) -> None:
    found = read(AXOLOTL, warmup_ratio=None, warmup_steps=0, **length)
    assert make_config(found.settings).warmup == 0.0
    assert not any("warmup" in line for line in found.left)
    both = read(AXOLOTL, warmup_ratio=0.2, warmup_steps=0, **length)
    assert make_config(both.settings).warmup == 0.2


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


@pytest.mark.parametrize(
    "named",
    [
        {"message_property_mappings": {"role": "from", "content": "value"}},
        {"message_field_role": "from", "message_field_content": "value"},
        {"roles": {"user": ["human"], "assistant": ["gpt"]}},
    ],
)
def test_turns_of_sharegpt_under_axolotls_chat_template_are_read(
    tmp_path: Path, named: dict[str, Any]
) -> None:
    entry = {"path": "a.jsonl", "type": "chat_template", "field_messages": "talk", **named}
    found = read(AXOLOTL, datasets=[entry])
    assert (found.format_name, found.columns) == ("sharegpt", {"conversations": "talk"})
    assert not any(line.startswith("datasets.") for line in found.left)
    keys = ("role", "content") if "roles" in named else ("from", "value")
    turns = [dict(zip(keys, turn, strict=True)) for turn in (("human", "Hi"), ("gpt", "Ho"))]
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"talk": turns}), "utf-8")
    (row,) = read_data(path, found.columns, found.format_name).train
    assert [m["role"] for m in row.messages] == ["user", "assistant"]  # type: ignore[union-attr]


def test_properties_of_turns_that_are_not_read_are_told() -> None:
    entry = {"path": "a", "type": "chat_template",
             "message_property_mappings": {"role": "speaker", "content": "value"}}  # fmt: skip
    found = read(AXOLOTL, datasets=[entry])
    assert [line.partition(":")[0] for line in found.left if line.startswith("datasets.")] == [
        "datasets.message_property_mappings"
    ]
    strange = {"path": "a", "type": "chat_template", "roles": {"user": ["customer"]}}
    assert any("datasets.roles" in line for line in read(AXOLOTL, datasets=[strange]).left)


def test_a_misspelled_key_is_told_with_the_nearest() -> None:
    found = read(AXOLOTL, lora_rnak=4)
    told = next(line for line in found.left if line.startswith("lora_rnak"))
    assert told == "lora_rnak: 4 has no meaning here; did you mean 'lora_r'?"
    german = Catalogue.load("de").say(told)
    assert "meintest du" in german or "gemeint" in german


@pytest.mark.parametrize(
    ("told", "key", "value"),
    [
        (AXOLOTL, "val_set_size", "5%"),
        (AXOLOTL, "gradient_accumulation_steps", "auto"),
        (LLAMA_FACTORY, "learning_rate", [1e-4]),
        (LLAMA_FACTORY, "lora_dropout", "none"),
    ],
)
def test_words_where_a_number_belongs(told: str, key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{key} is not a number") as caught:
        read(told, **{key: value})
    assert caught.value.found == repr(value)
