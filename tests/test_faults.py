"""The faults that loaders and servers of this field are known for, each with what happens here.

Numbers 1 to 11 of the list that a server has to withstand; the HTTP status is that of the error.
"""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.library import Library
from detour.adapter.peft_format import read_adapter
from detour.adapter.update import Update
from detour.adapter.weights_file import Limits
from detour.errors import (
    AdapterFormatError,
    AdapterTooLarge,
    AdapterWeightsError,
    DetourError,
    SlotError,
    UnknownAdapter,
    UnsupportedVariant,
    WrongBase,
)
from detour.model.base import Base
from detour.slots.chained import contents_for_rows

Q = "model.layers.0.self_attn.q_proj"


def good(seed: int = 0, **about: object) -> Adapter:
    generator = torch.Generator().manual_seed(seed)
    update = Update(
        torch.randn(2, 32, generator=generator), torch.randn(32, 2, generator=generator)
    )
    return Adapter({Q: update}, "good", **about)


@pytest.fixture
def shelf(tmp_path: Path) -> Library:
    good().save(tmp_path / "shelf" / "good")
    return Library((tmp_path / "shelf",), names_only=True)


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


def refused(status: int, kind: type[DetourError], work: object, *arguments: object) -> DetourError:
    assert callable(work)
    with pytest.raises(kind) as caught:
        work(*arguments)
    assert caught.value.http_status == status
    assert "\n" not in str(caught.value)
    return caught.value


def config(folder: Path, **changes: object) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def tensors(folder: Path, **changes: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({**load_file(path), **changes}, path)
    (folder / "detour.json").unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["../good", "/etc", "good\0", "a/b", "link", ""])
def test_1_names_never_lead_out(shelf, tmp_path, name):
    good().save(tmp_path / "outside")
    os.symlink(tmp_path / "outside", tmp_path / "shelf" / "link")  # noqa: PTH211
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refused(404, UnknownAdapter, shelf.load, name)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt"])
def test_2_pickles_are_refused(shelf, tmp_path, name):
    folder = tmp_path / "shelf" / "good"
    (folder / "adapter_model.safetensors").rename(folder / name)
    assert name in refused(422, AdapterFormatError, shelf.load, "good").found


@pytest.mark.parametrize("size", [0, 7, 60, -1])
def test_3_files_that_are_cut_off_are_refused(shelf, tmp_path, size):
    path = tmp_path / "shelf" / "good" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(422, AdapterWeightsError, shelf.load, "good")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_4_numbers_that_are_none_are_refused(shelf, tmp_path, value):
    bad = torch.zeros(2, 32)
    bad[1, 3] = value
    tensors(tmp_path / "shelf" / "good", **{f"base_model.model.{Q}.lora_A.weight": bad})
    assert Q in refused(422, AdapterWeightsError, shelf.load, "good").message


def test_5_another_rank_than_stated_is_refused(shelf, tmp_path):
    config(tmp_path / "shelf" / "good", r=3)
    refused(422, AdapterWeightsError, shelf.load, "good")


def test_6_limits_are_told_before_anything_is_read(tmp_path, shelf, monkeypatch):
    monkeypatch.setattr("detour.adapter.weights_file.load_tensors", lambda _: pytest.fail("read"))
    folder = tmp_path / "shelf" / "good"
    for limits in (Limits(rank=1), Limits(bytes=10), Limits(tensors=1)):
        refused(413, AdapterTooLarge, read_adapter, folder, limits)


def test_7_nothing_lands_nowhere_in_silence(base):
    nowhere = Adapter({"model.layers.9.self_attn.q_proj": good().updates[Q]}, "nowhere")
    for chain in (nowhere, good() + nowhere):
        error = refused(422, SlotError, base.ask, "Who?", chain)
        assert "model.layers.9.self_attn.q_proj" in error.message
    dead = Adapter({Q: Update(torch.ones(2, 32), torch.zeros(32, 2))}, "dead")
    refused(422, AdapterWeightsError, base.ask, "Who?", dead)


def test_8_a_variant_that_a_content_cannot_hold_is_named(make_model, shelf, tmp_path):
    base = Base.from_model(make_model("llama"))
    norm = Adapter({"model.norm.weight[:]": Update(torch.ones(1, 1), torch.ones(32, 1))}, "norm")
    contents = contents_for_rows([Chain.of(norm), None])
    error = refused(422, UnsupportedVariant, base.hold(contents).__enter__)
    assert "model.norm.weight" in error.message
    config(tmp_path / "shelf" / "good", use_qalora=True)
    assert "use_qalora" in refused(422, UnsupportedVariant, shelf.load, "good").message


def test_9_another_base_is_refused(base, make_model, tiny_tokenizer):
    other = Base.from_model(make_model("llama", seed=5), tiny_tokenizer, "other")
    refused(409, WrongBase, base.ask, "Who?", good(base=other.fingerprint))


def test_10_code_in_a_folder_is_never_run(shelf, tmp_path):
    folder = tmp_path / "shelf" / "good"
    (folder / "modeling.py").write_text("raise SystemExit('ran')")
    (folder / "__init__.py").write_text("raise SystemExit('ran')")
    assert shelf.load("good").digest() == good().digest()
    config(folder, auto_map={"AutoModel": "modeling.Evil"})
    refused(422, UnsupportedVariant, shelf.load, "good")


def test_11_new_bytes_under_an_old_name_are_another_adapter(base, shelf, tmp_path):
    old = shelf.load("good")
    alone = list(base.stream("Who was it?", 5 * old, max_new_tokens=12))
    running = base.stream("Who was it?", 5 * old, max_new_tokens=12)
    pieces = [next(running)]
    good(seed=9).save(tmp_path / "shelf" / "good")
    new = shelf.load("good")
    assert new.digest() != old.digest()
    pieces += running
    assert pieces == alone
    assert old.digest() == good().digest()
