"""Fingerprints: the same for the same weights, different for any other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from detour.adapter.fingerprint import (
    Fingerprint,
    fingerprint_folder,
    fingerprint_tensors,
    sha256_tensors,
)
from detour.errors import AdapterFormatError, BaseError

CONFIG = {"model_type": "llama", "hidden_size": 4, "rope": {"theta": 1.0}, "layer_types": ["full"]}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "big": torch.randn(64, 128, generator=generator),  # 32 KiB: sampled, not read whole
        "half": torch.randn(3, 5, generator=generator).bfloat16(),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }


def write(folder: Path, weights: dict[str, torch.Tensor], **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_folder_and_memory_agree(tmp_path):
    folder = fingerprint_folder(write(tmp_path / "m", tensors()), "tiny")
    memory = fingerprint_tensors(tensors().items(), CONFIG, "tiny")
    assert folder == memory
    assert folder.same_weights(memory)
    assert folder.short == f"tiny ({folder.weights_sha256[:8]})"


def test_sharding_does_not_matter(tmp_path):
    whole = fingerprint_folder(write(tmp_path / "m", tensors()), "tiny")
    sharded = tmp_path / "sharded"
    write(sharded, {})
    (sharded / "model.safetensors").unlink()
    names = {"big": "a.safetensors", "half": "b.safetensors"}
    index = {name: names.get(name, "b.safetensors") for name in tensors()}
    for file in ("a.safetensors", "b.safetensors"):
        part = {name: tensor for name, tensor in tensors().items() if index[name] == file}
        save_file(part, sharded / file)
    save_file({"stray": torch.ones(2)}, sharded / "other.safetensors")
    (sharded / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    assert fingerprint_folder(sharded, "tiny") == whole
    (sharded / "model.safetensors.index.json").unlink()
    assert fingerprint_folder(sharded, "tiny") != whole


@pytest.mark.parametrize("place", [0, 4096, 8191])
def test_other_values_in_the_samples_are_seen(tmp_path, place: int):
    other = tensors()
    other["big"].view(-1)[place] += 1
    first = fingerprint_folder(write(tmp_path / "a", tensors()), "tiny")
    second = fingerprint_folder(write(tmp_path / "b", other), "tiny")
    assert not first.same_weights(second)
    assert first.config_sha256 == second.config_sha256


def test_a_cast_is_seen_and_saving_again_is_not(tmp_path):
    first = fingerprint_folder(write(tmp_path / "a", tensors()), "tiny")
    again = write(tmp_path / "b", tensors(), transformers_version="9", dtype="x", _name_or_path="y")
    assert fingerprint_folder(again, "tiny") == first
    other = write(tmp_path / "c", tensors(), hidden_size=8)
    assert fingerprint_folder(other, "tiny").config_sha256 != first.config_sha256
    cast = {name: tensor.half() for name, tensor in tensors().items()}
    assert not fingerprint_folder(write(tmp_path / "d", cast), "tiny").same_weights(first)


def test_tokenizer_and_template_are_hashed(tmp_path):
    folder = write(tmp_path / "m", tensors())
    bare = fingerprint_folder(folder, "tiny")
    assert (bare.tokenizer_sha256, bare.template_sha256) == (None, None)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"chat_template": "hello"}')
    full = fingerprint_folder(folder, "tiny")
    assert full.tokenizer_sha256
    assert full.same_weights(bare)
    (folder / "chat_template.jinja").write_text("hello")
    assert fingerprint_folder(folder, "tiny") == full
    (folder / "chat_template.jinja").write_text("bye")
    assert fingerprint_folder(folder, "tiny").template_sha256 != full.template_sha256


TEXT = st.text(max_size=8)


@given(st.builds(Fingerprint, TEXT, TEXT, TEXT, st.none() | TEXT, st.none() | TEXT))
def test_json_round_trip(fingerprint: Fingerprint):
    assert Fingerprint.from_json(json.loads(json.dumps(fingerprint.to_json()))) == fingerprint


@pytest.mark.parametrize(
    "value", [3, {}, {"name": "x"}, {**Fingerprint("a", "b", "c").to_json(), "z": 1}]
)
def test_wrong_json_is_refused(value: object):
    with pytest.raises(AdapterFormatError, match="fingerprint"):
        Fingerprint.from_json(value)


def test_sha256_sees_every_byte_and_no_order():
    before = sha256_tensors(tensors().items())
    assert sha256_tensors(reversed(tensors().items())) == before
    other = tensors()
    other["big"].view(-1)[3000] += 1  # between two samples
    assert sha256_tensors(other.items()) != before
    assert sha256_tensors({**tensors(), "scalar": torch.tensor([2.5])}.items()) != before


def test_damaged_folders_are_refused(tmp_path):
    folder = tmp_path / "m"
    with pytest.raises(BaseError, match=r"config\.json"):
        fingerprint_folder(folder, "tiny")
    write(folder, tensors())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BaseError, match="beyond the end"):
        fingerprint_folder(folder, "tiny")
    weights.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(BaseError, match="header"):
        fingerprint_folder(folder, "tiny")
    weights.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(BaseError, match=r"pytorch_model\.bin.*refused"):
        fingerprint_folder(folder, "tiny")
    (folder / "config.json").write_text("[]")
    with pytest.raises(BaseError, match="JSON object"):
        fingerprint_folder(folder, "tiny")


def test_every_byte_on_request(tiny_folder, tmp_path):
    sampled, full = (fingerprint_folder(tiny_folder, "tiny", whole) for whole in (False, True))
    assert sampled.full_sha256 is None
    assert "full_sha256" not in sampled.to_json()
    assert sampled.same_weights(full)
    assert full.same_weights(sampled)
    assert Fingerprint.from_json(full.to_json()) == full
    other = replace(full, full_sha256="0" * 64)
    assert not full.same_weights(other)
    assert sampled.same_weights(other)


def test_a_byte_between_the_samples_is_seen_by_full_only(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    path = tmp_path / "model.safetensors"
    save_file({"w": torch.zeros(40_000)}, path)
    before = [fingerprint_folder(tmp_path, "x", full) for full in (False, True)]
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 1
    path.write_bytes(data)
    after = [fingerprint_folder(tmp_path, "x", full) for full in (False, True)]
    assert before[0].same_weights(after[0])
    assert not before[1].same_weights(after[1])
