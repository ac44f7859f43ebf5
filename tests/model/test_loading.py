import json
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertForMaskedLM, T5Config, T5ForConditionalGeneration

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.errors import BaseError, WrongBase
from detour.model import loading
from detour.model.base import Base


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def refused(name, word, **options):
    with pytest.raises(BaseError, match=word) as caught:
        Base.load(str(name), **options)
    assert "\n" not in str(caught.value)
    return caught.value


def change_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder(folder, tiny_llama, capfd):
    base = Base.load(str(folder))
    assert base.dtype == torch.float32
    assert base.name == str(folder)
    assert all(
        torch.equal(one, two)
        for one, two in zip(base.model.parameters(), tiny_llama.parameters(), strict=True)
    )
    assert base.tokenizer.chat_template
    assert base.ask("Where?", max_new_tokens=4)
    assert capfd.readouterr() == ("", "")


def test_bfloat16(folder):
    base = Base.load(str(folder), dtype="bfloat16")
    assert base.dtype == torch.bfloat16
    assert base.fingerprint == Base.load(str(folder)).fingerprint
    assert base.ask("Where?", max_new_tokens=4)


def test_a_folder_without_a_tokenizer(folder):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).unlink()
    base = Base.load(str(folder))
    assert base.tokenizer is None
    assert base.logits(torch.tensor([[1]])).shape == (1, 1, 320)


def test_a_missing_folder(tmp_path):
    refused(tmp_path / "nowhere", "no base called")
    refused("nowhere", "no such folder")
    refused("x" * 5000, "no such folder")
    refused("a\0b", "no such folder")


def test_a_folder_without_config(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    refused(tmp_path, "not a model folder.*notes.txt")


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "nonesuch"}', "{}"])
def test_a_config_that_makes_no_sense(folder, text):
    (folder / "config.json").write_text(text)
    refused(folder, "config.json")


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(folder, "model.safetensors")


def test_an_empty_weights_file(folder):
    (folder / "model.safetensors").write_bytes(b"")
    refused(folder, "model.safetensors")


def test_pickled_weights(folder):
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, "convert them to safetensors")


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    refused(folder, "no weights")


def rewrite(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def test_a_missing_tensor_is_never_made_up(folder):
    rewrite(folder, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(folder, "missing: .*layers.1.mlp.up_proj")


def test_a_tensor_too_many(folder):
    rewrite(folder, lambda tensors: tensors.update(extra=torch.zeros(2)))
    refused(folder, "unknown to the model: .*extra")


def test_a_tensor_of_another_shape(folder):
    change_config(folder, intermediate_size=40)
    refused(folder, "weights")


@pytest.mark.parametrize("text", ["{", "{}", '{"a": 1}', '{"model": {"type": "BPE"}}', "[]"])
def test_a_broken_tokenizer(folder, text):
    (folder / "tokenizer.json").write_text(text)
    refused(folder, "tokenizer")


def test_other_kinds_are_refused_by_name(tmp_path):
    sizes = {"vocab_size": 20, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    bert = BertForMaskedLM(BertConfig(**sizes, intermediate_size=8))
    with pytest.raises(BaseError, match="BertForMaskedLM"):
        Base.from_model(bert)
    bert.save_pretrained(tmp_path / "bert")
    refused(tmp_path / "bert", "encoder.*BertForMaskedLM")
    config = T5Config(vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", "encoder-decoder")


def test_models_of_other_quantisations_are_refused_by_name(folder):
    change_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    refused(folder, "plain weights.*gptq")


def test_the_revision_is_remembered(folder, monkeypatch):
    commit = "0123456789" * 4
    snapshot = folder.rename(folder.parent / commit)
    monkeypatch.setattr(loading, "snapshot_download", lambda *_, **__: str(snapshot))
    base = Base.load("org/name")
    assert base.fingerprint.revision == commit
    moved = replace(base.fingerprint, weights_sha256="other", revision="f" * 40)
    update = Update(torch.ones(1, 32), torch.ones(32, 1))
    adapter = Adapter({"model.layers.0.self_attn.q_proj": update}, "mine", moved)
    with pytest.raises(WrongBase, match="another revision of org/name") as caught:
        base.bind(adapter)
    assert caught.value.hint.startswith(f"--base org/name@{'f' * 40}")
    assert caught.value.http_status == 409


def test_code_in_the_folder_is_never_run(folder):
    change_config(folder, model_type="nonesuch", auto_map={"AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    refused(folder, "config.json")


def test_the_hub_without_a_connection():
    error = refused("some-org/some-model@v1", "some-org/some-model@v1 could not be fetched")
    assert "folder" in error.hint


def test_the_hub(folder, monkeypatch):
    asked = []

    def download(identity, revision=None, allow_patterns=()):
        asked.append((identity, revision))
        assert not any("bin" in pattern or "py" in pattern for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr(loading, "snapshot_download", download)
    base = Base.load("org/name@abc123")
    assert base.name == "org/name@abc123"
    Base.load("org/name")
    assert asked == [("org/name", "abc123"), ("org/name", None)]


def test_the_starter_says_how_to_make_it(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "files", lambda _: tmp_path)
    refused("starter", "packaged starter model is not here.*make")


def test_the_starter_is_loaded_from_the_package(monkeypatch, folder):
    folder.rename(folder.parent / "weights")
    monkeypatch.setattr(loading, "files", lambda _: folder.parent)
    assert Base.load("starter").name == "starter"


@pytest.mark.parametrize(
    ("options", "word"), [({"dtype": "int8"}, "int8"), ({"device": "tpu"}, "tpu")]
)
def test_unknown_dtypes_and_devices(folder, options, word):
    refused(folder, word, **options)


def test_no_gpu(folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused(folder, "no GPU", device="cuda")
