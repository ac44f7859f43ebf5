"""`detour convert`, and what `inspect` tells of variants."""

import json
import re
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from detour.adapter.adapter import Adapter
from detour.cli import convert

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
LAYER = {"model.layers.0.self_attn.q_proj": 3}
IDS = torch.arange(4, 12)[None]


@pytest.fixture
def theirs(make_model, tmp_path: Path) -> Path:
    """A DoRA adapter with a saved head, made by PEFT, random."""
    config = LoraConfig(r=2, target_modules=["q_proj"], use_dora=True, modules_to_save=["lm_head"])
    wrapped = get_peft_model(make_model("llama"), config)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data += 0.2 * torch.randn(parameter.shape)
    wrapped.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def test_to_a_folder_of_today(detour, theirs, tiny_folder, tmp_path, make_model):
    told = detour("convert", theirs, tmp_path / "ours", "--base", tiny_folder, "--json")
    assert (told.code, told.json["path"]) == (0, str(tmp_path / "ours"))
    assert told.json["max_logit_difference"] < 1e-5
    logits = [
        PeftModel.from_pretrained(make_model("llama"), folder).eval()(IDS).logits
        for folder in (theirs, tmp_path / "ours")
    ]
    torch.testing.assert_close(*logits)


def test_to_a_flat_file_and_back(detour, keep, tmp_path, tiny_folder):
    adapter = keep("formal")
    told = detour("convert", "formal", tmp_path / "formal.flat", "--json")
    assert told.json == {"path": str(tmp_path / "formal.flat"), "max_logit_difference": None}
    assert "not compared" in told.err
    told = detour("convert", tmp_path / "formal.flat", tmp_path / "again", "--base", tiny_folder)
    assert re.search(r"logits differ by at most (0|\d\.?\d*e-0[5-9])$", told.out.strip())
    assert Adapter.load(tmp_path / "again").digest() == adapter.digest()
    report = detour("inspect", tmp_path / "formal.flat", "--json").json
    assert (report["format"], report["variant"]) == ("flat", "lora")


def test_whole_values_need_their_base_for_a_flat_file(detour, fails, theirs, tiny_folder, tmp_path):
    assert "--base" in fails(2, "convert", theirs, tmp_path / "a.flat")["hint"]
    told = detour("convert", theirs, tmp_path / "a.flat", "--base", tiny_folder, "--json")
    assert told.json["max_logit_difference"] < 1e-4
    assert Adapter.load(tmp_path / "a.flat").base is not None


def test_a_chain_of_variants_is_flattened_on_its_base(detour, fails, theirs, tiny_folder, tmp_path):
    assert "--base" in fails(2, "chain", "flatten", f"{theirs}:0.5", "-o", tmp_path / "x")["hint"]
    arguments = ("chain", "flatten", f"{theirs}:0.5", "--base", tiny_folder, "-o")
    assert "row scale" in fails(2, *arguments, tmp_path / "x")["error"]
    assert detour(*arguments, tmp_path / "x.flat").code == 0
    assert Adapter.load(tmp_path / "x.flat").rank == 32  # a whole head beside the factors


def test_what_does_not_say_the_same_is_refused(fails, keep, tmp_path, tiny_folder, monkeypatch):
    keep("formal")
    monkeypatch.setattr(convert, "CLOSE", -1.0)
    told = fails(2, "convert", "formal", tmp_path / "x", "--base", tiny_folder)
    assert "does not say the same" in told["error"]


def test_a_flat_file_does_not_replace_a_folder(fails, keep, tmp_path):
    keep("formal")
    (tmp_path / "a.flat").mkdir()
    assert "a new file" in fails(2, "convert", "formal", tmp_path / "a.flat")["expected"]


def test_inspect_tells_whole_values_and_other_programs(detour, theirs, tiny_folder):
    report = detour("inspect", theirs, "--base", tiny_folder, "--json").json
    assert report["variant"] == "dora+modules_to_save"
    assert report["modules_to_save"] == ["lm_head.weight"]
    assert len(report["whole"]["magnitudes"]) == 3
    assert report["base"]["matches"] is None
    assert "it does not apply DoRA" in report["elsewhere"]["vLLM"]
    assert any("lora_A and lora_B only" in reason for reason in report["elsewhere"]["llama.cpp"])
    assert any("unverified" in warning for warning in report["warnings"])
    told = detour("inspect", theirs).out
    assert "magnitudes: model.layers.0.self_attn.q_proj" in told
    assert "no licence" in told
    assert "! vLLM: it does not apply modules_to_save" in told


def test_inspect_of_a_plain_adapter_has_nothing_against_it(detour, keep):
    keep("formal")
    report = detour("inspect", "formal", "--json").json
    assert report["elsewhere"] == {"vLLM": [], "llama.cpp": []}
    assert report["whole"] == {}


def test_scales_that_differ_are_told(detour, theirs, tmp_path, make_model):
    config = LoraConfig(r=2, target_modules=["q_proj"], use_rslora=True, alpha_pattern=LAYER)
    wrapped = get_peft_model(make_model("llama"), config)
    wrapped.save_pretrained(tmp_path / "rs", save_embedding_layers=False)
    elsewhere = detour("inspect", tmp_path / "rs", "--json").json["elsewhere"]
    assert any("one rank and one scale" in reason for reason in elsewhere["vLLM"])
    assert any("use_rslora" in reason for reason in elsewhere["llama.cpp"])
    assert json.dumps(elsewhere).count("one alpha") == 1
