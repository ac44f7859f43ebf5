"""Weights in shards, limits told by headers, and headers that lie."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from detour.adapter.adapter import Adapter
from detour.adapter.peft_format import read_adapter
from detour.adapter.update import Update
from detour.adapter.weights_file import Limits, read_header, read_weights
from detour.errors import AdapterFormatError, AdapterTooLarge, AdapterWeightsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    updates = {f"layers.{n}.q": Update(torch.randn(2, 6), torch.randn(4, 2)) for n in range(3)}
    Adapter(updates, "a").save(tmp_path / "a")
    return tmp_path / "a"


def shard(folder: Path) -> dict[str, str]:
    """Spread the weights over two files, as PEFT and transformers do; tensor to file."""
    whole = folder / "adapter_model.safetensors"
    tensors = load_file(whole)
    names = sorted(tensors)
    files = ["adapter_model-00001-of-00002.safetensors", "adapter_model-00002-of-00002.safetensors"]
    for file, part in zip(files, (names[:3], names[3:]), strict=True):
        save_file({name: tensors[name] for name in part}, folder / file)
    whole.unlink()
    return {name: files[n >= 3] for n, name in enumerate(names)}


def index(folder: Path, weight_map: object) -> None:
    path = folder / "adapter_model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_shards_are_read_as_one(folder):
    before = read_adapter(folder).digest()
    index(folder, shard(folder))
    assert read_adapter(folder).digest() == before


def test_a_save_replaces_the_shards(folder):
    index(folder, shard(folder))
    adapter = read_adapter(folder)
    adapter.save(folder)
    assert [p.name for p in folder.glob("adapter_model*")] == ["adapter_model.safetensors"]
    assert read_adapter(folder).digest() == adapter.digest()


def test_a_missing_shard_is_named(folder):
    places = shard(folder)
    index(folder, places)
    gone = sorted(set(places.values()))[1]
    (folder / gone).unlink()
    with pytest.raises(AdapterWeightsError, match=gone):
        read_adapter(folder)


def test_a_tensor_in_two_shards_is_refused(folder):
    places = shard(folder)
    index(folder, places)
    first, second = sorted(set(places.values()))
    save_file({**load_file(folder / second), **load_file(folder / first)}, folder / second)
    with pytest.raises(AdapterWeightsError, match="same tensor"):
        read_adapter(folder)


@pytest.mark.parametrize("weight_map", [{}, {"a": "../b.safetensors"}, {"a": "/b"}, [], None, 3])
def test_an_index_that_leads_elsewhere_is_refused(folder, weight_map):
    shard(folder)
    index(folder, weight_map)
    with pytest.raises(AdapterFormatError, match=r"index\.json cannot be read"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        (Limits(rank=1), "rank"),
        (Limits(bytes=100), "bytes"),
        (Limits(tensors=5), "tensors"),
        (Limits(shards=1), "shards"),
    ],
)
def test_limits_are_told_before_anything_is_read(folder, limits, kind, monkeypatch):
    index(folder, shard(folder))
    monkeypatch.setattr("detour.adapter.weights_file.load_tensors", lambda _: pytest.fail("read"))
    with pytest.raises(AdapterTooLarge, match=kind) as refusal:
        read_adapter(folder, limits)
    assert refusal.value.http_status == 413


def header_file(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


LIES = {
    "no object": [],
    "no description": {"a": 3},
    "no dtype": {"a": {"shape": [1], "data_offsets": [0, 4]}},
    "unknown dtype": {"a": {"dtype": "F12", "shape": [1], "data_offsets": [0, 4]}},
    "negative shape": {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
    "huge shape": {"a": {"dtype": "F32", "shape": [2**50], "data_offsets": [0, 4]}},
    "a true shape": {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "beyond the end": {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}},
    "backwards": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
    "three offsets": {"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2, 4]}},
    "no JSON": b"{{{",
    "deep JSON": b"[" * 100_000,
}


@pytest.mark.parametrize("header", LIES.values(), ids=LIES)
def test_headers_that_lie_are_damage(tmp_path, header):
    path = header_file(tmp_path / "x.safetensors", header, b"\0\0\0\0")
    with pytest.raises(AdapterWeightsError, match="damaged"):
        read_header(path)


def test_a_header_longer_than_its_file_is_damage(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(AdapterWeightsError, match="damaged"):
        read_header(path)


def test_no_file_and_no_tensors(tmp_path):
    with pytest.raises(AdapterFormatError, match="cannot be read"):
        read_header(tmp_path / "nothing")
    header_file(tmp_path / "adapter_model.safetensors", {"__metadata__": {"format": "pt"}})
    with pytest.raises(AdapterWeightsError, match="no tensors"):
        read_weights(tmp_path, Limits())
