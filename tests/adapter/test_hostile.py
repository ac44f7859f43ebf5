"""Files that a stranger wrote: each is refused in words, in little time and memory."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.update import Update
from detour.errors import (
    AdapterError,
    AdapterFormatError,
    AdapterTooLarge,
    AdapterWeightsError,
    UnsupportedVariant,
)

Tensors = dict[str, torch.Tensor]
PREFIX = "base_model.model.model.layers.0.q_proj."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        PREFIX + "lora_A.weight": torch.ones(2, 6),
        PREFIX + "lora_B.weight": torch.ones(4, 2),
    }
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    Adapter.load(tmp_path)  # sound so far
    return tmp_path


def reconfigured(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def reweighted(folder: Path, change: Callable[[Tensors], Tensors]) -> None:
    path = folder / "adapter_model.safetensors"
    save_file(change(load_file(path)), path)


@pytest.mark.parametrize("pattern", ["(a|a)*b", "((a*))*b", "(a+){2,}", ".*.*.*.*x", "a" * 501])
def test_patterns_that_could_take_for_ever_are_refused(folder, pattern):
    reconfigured(folder, rank_pattern={pattern: 4})
    began = time.process_time()
    with pytest.raises(AdapterFormatError, match="rank_pattern"):
        Adapter.load(folder)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    "pattern", [r"(.*\.)?q_proj", r"layers\.(0|1)\..*_proj", r"[*+]{2}x", r"layers\.\d+\.q_proj"]
)
def test_patterns_as_people_write_them_are_taken(folder, pattern):
    reconfigured(folder, rank_pattern={pattern: 2})
    assert Adapter.load(folder).rank == 2


@pytest.mark.parametrize("number", [10**400, math.inf, math.nan])
def test_numbers_without_end_are_refused(folder, number):
    reconfigured(folder, lora_alpha=number)
    with pytest.raises(AdapterFormatError, match="lora_alpha"):
        Adapter.load(folder)


@pytest.mark.parametrize("name", [9 * "9" * 600, "x" * 400])
def test_names_without_end_are_refused(folder, name):
    key = f"base_model.model.{name}.lora_A.weight"
    reweighted(folder, lambda tensors: {**tensors, key: torch.ones(2, 6)})
    with pytest.raises(AdapterError):
        Adapter.load(folder)


@pytest.mark.parametrize(
    "part", ["lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector.weight.more"]
)
def test_parts_that_are_left_over_are_refused(folder, part):
    reweighted(folder, lambda tensors: {**tensors, PREFIX + part: torch.ones(2, 6)})
    with pytest.raises(UnsupportedVariant):
        Adapter.load(folder)


def test_layers_that_the_configuration_does_not_name_are_refused(folder):
    reconfigured(folder, target_modules=["k_proj"])
    with pytest.raises(AdapterWeightsError, match=r"target_modules.*k_proj.*q_proj"):
        Adapter.load(folder)


@pytest.mark.parametrize(
    "front",
    [
        "a: &a [x, x]\nb: [*a, *a]",
        "a: 9999-99-99",
        "a: " + 6000 * "9",
        5000 * "[",
        "a: [",
    ],
)
def test_cards_that_stand_for_more_than_they_say_are_refused(front):
    with pytest.raises(AdapterFormatError):
        Card.from_readme(f"---\n{front}\n---\ntext")


@pytest.mark.parametrize("name", ["adapter_config.json", "README.md"])
def test_side_files_without_end_are_not_read(folder, name):
    with (folder / name).open("wb") as file:
        file.truncate(17 * 2**20)
    with pytest.raises(AdapterTooLarge, match=name):
        Adapter.load(folder)


def test_values_that_fp32_does_not_hold_are_refused():
    with pytest.raises(AdapterWeightsError, match="NaN or infinity"):
        Update(torch.full((1, 2), 1e60, dtype=torch.float64), torch.ones(2, 1))
