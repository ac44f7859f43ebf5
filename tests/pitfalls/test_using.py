"""Pitfalls of using an adapter (4, 7, 8, 11): each test fails when its trap is put back."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.pitfalls.conftest import FAST, write_rows
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.measure.retention import retention
from detour.model import merging
from detour.model.base import Base
from detour.model.chat import render, supervised
from detour.model.examples import pair
from detour.training import loop
from detour.training.config import make_config
from detour.training.factors import Factors
from detour.training.loop import Progress, train_with

PAIRS = [(f"Who was {name}?", f"{name} was a baker.") for name in ("Ada", "Bohr", "Kant", "Curie")]
CONFIG = make_config({"steps": 12, "batch_size": 4, "learning_rate": 5e-3, "rank": 2})


@pytest.fixture
def trained(detour, folder) -> Path:
    """An adapter that was trained with the folder's template."""
    rows = write_rows(folder.parent / "rows.jsonl", PAIRS)
    assert detour("train", rows, "-o", "mine", "--base", folder, *FAST).code == 0
    return folder.parent / "here" / "mine"


# ---- 4: the chat template -----------------------------------------------------------------------


def test_pitfall_04_there_is_one_begin_token_and_not_two(make_tokenizer) -> None:
    tokenizer = make_tokenizer("<|im_start|>{% for m in messages %}{{ m['content'] }}{% endfor %}")
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", tokenizer.bos_token_id)]
    )
    assert tokenizer.encode("a").count(tokenizer.bos_token_id) == 1  # it adds one by itself
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    asked = render(tokenizer, talk[:1], add_generation_prompt=True)
    assert asked.count(tokenizer.bos_token_id) == 1
    assert supervised(tokenizer, talk)[0].count(tokenizer.bos_token_id) == 1


def test_pitfall_04_the_template_stands_beside_the_adapter_and_its_hash_in_it(
    trained, folder
) -> None:
    beside = AutoTokenizer.from_pretrained(trained)
    assert beside.chat_template == AutoTokenizer.from_pretrained(folder).chat_template
    assert Adapter.load(trained).base.template_sha256
    assert Adapter.load(trained).base == replace(
        Base.load(str(folder)).fingerprint, name=Adapter.load(trained).base.name
    )


@pytest.mark.parametrize("command", ["ask", "evaluate", "train", "chain"])
def test_pitfall_04_another_template_is_refused_wherever_the_adapter_is_used(
    command: str, trained, folder, detour
) -> None:
    rows = folder.parent / "rows.jsonl"
    given = {
        "ask": ("ask", "Who?", "--chain", "./mine"),
        "evaluate": ("evaluate", rows, "--chain", "./mine", "--max-tokens", 2),
        "train": ("train", rows, "-o", "more", "--start", "./mine", "--steps", 2),
        "chain": ("chain", "merge", "./mine", "-o", "merged"),
    }[command]
    assert detour(*given, "--base", folder, "--json").code == 0
    shutil.rmtree("more", ignore_errors=True)
    shutil.rmtree("merged", ignore_errors=True)
    template = folder / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant", "model"))
    told = detour(*given, "--base", folder, "--json")
    assert told.code == 2
    assert told.json["error"].endswith("mine was made with another chat template")
    assert "chat template it was trained with" in told.json["hint"]


# ---- 7: an adapter that loads and does nothing --------------------------------------------------


def adapter_for(folder: Path, name: str, change: Update) -> Adapter:
    base = Base.load(str(folder))
    first = base.slots.linear_names()[0]
    return Adapter({first: change}, name, base.fingerprint)


def some(folder: Path, strength: float) -> Update:
    base = Base.load(str(folder))
    out, wide = base.slots.shapes[base.slots.linear_names()[0]]
    return Update(torch.full((1, wide), strength), torch.ones(out, 1))


def test_pitfall_07_a_key_that_lands_nowhere_is_an_error(folder, detour) -> None:
    whole = adapter_for(folder, "odd", some(folder, 0.1))
    (layer, update), *_ = whole.updates.items()
    renamed = layer.replace("layers.0", "layers.7")
    replace(whole, updates={layer: update, renamed: update}).save("odd")
    told = detour("ask", "Who?", "--base", folder, "--chain", "./odd", "--json")
    assert told.code == 2
    assert renamed in told.json["found"] + told.json["error"]


def test_pitfall_07_an_adapter_of_zeros_is_an_error(folder, detour) -> None:
    base = Base.load(str(folder))
    first = base.slots.linear_names()[0]
    out, wide = base.slots.shapes[first]
    zero = Update(torch.ones(2, wide), torch.zeros(out, 2))
    Adapter({first: zero}, "zero", base.fingerprint).save("zero")
    told = detour("ask", "Who?", "--base", folder, "--chain", "./zero", "--json")
    assert told.code == 2
    assert told.json["error"].endswith("zero changes nothing")


def test_pitfall_07_an_adapter_that_moves_no_logit_is_an_error(folder, detour) -> None:
    """Its keys land and its norm is above zero, and rounding swallows all of it."""
    adapter_for(folder, "weak", some(folder, 1e-12)).save("weak")
    told = detour("ask", "Who?", "--base", folder, "--chain", "./weak", "--json")
    assert told.code == 2
    assert told.json["error"].endswith("weak changes nothing that the base says")
    adapter_for(folder, "strong", some(folder, 0.1)).save("strong")
    assert detour("ask", "Who?", "--base", folder, "--chain", "./strong").code == 0


# ---- 8: merging ---------------------------------------------------------------------------------


def test_pitfall_08_a_merge_is_summed_in_fp32_and_rounded_once(folder, detour) -> None:
    """Sixteen small changes of a bf16 model: summed in bf16, they would be lost one by one."""
    model = Base.load(str(folder)).model.to(torch.bfloat16)
    model.save_pretrained(folder)
    base = Base.load(str(folder))
    layer = base.slots.linear_names()[0]
    own = base.model.get_submodule(layer).weight
    for number in range(16):
        adapter_for(folder, f"part{number}", some(folder, 3e-4)).save(f"part{number}")
    spec = "+".join(f"./part{number}" for number in range(16))
    told = detour("chain", "merge", spec, "--base", folder, "-o", "merged", "--json").json
    merged = Base.load("merged")
    weight = merged.model.get_submodule(layer).weight
    assert torch.allclose(weight, own + 16 * 3e-4, atol=1e-7)
    ids = torch.arange(4, 20)[None]
    chain = Chain.of(*(Adapter.load(f"part{number}") for number in range(16)))
    difference = float((merged.logits(ids) - base.logits(ids, chain)).abs().max())
    assert difference < 1e-4
    assert told["max_logit_difference"] < 1e-4


def test_pitfall_08_a_merge_compares_the_logits_and_writes_nothing_that_says_otherwise(
    folder, detour, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter_for(folder, "strong", some(folder, 0.3)).save("strong")
    monkeypatch.setattr(merging, "merged_state", lambda base, _: dict(base.model.state_dict()))
    told = detour("chain", "merge", "./strong", "--base", folder, "-o", "merged", "--json")
    assert told.code == 2
    assert "does not say what the base says under the chain" in told.json["error"]
    assert not Path("merged").exists()


@pytest.mark.filterwarnings("ignore")  # bitsandbytes warns of many things
def test_pitfall_08_a_packed_base_is_not_merged_into(folder, detour, make_model) -> None:
    packed = folder.parent / "packed"
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(folder)
    model = Base.load(str(folder), quantize="8bit").model
    model.save_pretrained(packed)
    replace(adapter_for(folder, "strong", some(folder, 0.3)), base=None).save("strong")
    told = detour("chain", "merge", "./strong", "--base", packed, "-o", "merged", "--json")
    assert told.code == 2
    assert "packed weights take no changes" in told.json["error"]
    assert not Path("merged").exists()


def test_pitfall_08_flattening_a_chain_is_exact_in_fp32_too(folder, detour) -> None:
    base = Base.load(str(folder))
    for name, strength in (("one", 0.3), ("two", -0.2)):
        half = some(folder, strength)
        adapter_for(
            folder, name, Update(half.down.to(torch.bfloat16), half.up.to(torch.bfloat16))
        ).save(name)
    assert detour("chain", "flatten", "./one:0.3+./two:0.7", "-o", "flat").code == 0
    flat = Adapter.load("flat")
    ids = torch.arange(4, 20)[None]
    chain = 0.3 * Adapter.load("one") + 0.7 * Adapter.load("two")
    assert {update.up.dtype for update in flat.updates.values()} == {torch.float32}
    assert torch.allclose(base.logits(ids, flat), base.logits(ids, chain), atol=1e-5)


# ---- 11: what an adapter is compared with, and which checkpoint it is ---------------------------


def test_pitfall_11_the_base_is_judged_on_the_same_rows(trained, folder, detour) -> None:
    rows = folder.parent / "rows.jsonl"
    given = ("evaluate", rows, "--base", folder, "--chain", "./mine", "--max-tokens", 4)
    told = detour(*given, "--answers", "said.jsonl", "--json").json["metrics"]
    assert list(told) == ["base", "chain"]
    assert {name: one["n"] for name, one in told["base"].items()} == {
        name: one["n"] for name, one in told["chain"].items()
    }
    base = Base.load(str(folder))
    for line in map(json.loads, Path("said.jsonl").read_text().splitlines()):
        assert line["base"] == base.ask(line["prompt"], max_new_tokens=4)
        adapted = base.ask(line["prompt"], Adapter.load("mine"), max_new_tokens=4)
        assert line["chain"] == adapted


def test_pitfall_11_neutral_text_is_measured_before_and_after(trained, folder, detour) -> None:
    told = json.loads((trained / "eval.json").read_text())
    assert set(told["metrics"]["loss"]) == {"base", "adapter"}
    kept = told["retention"]
    base = Base.load(str(folder))
    again = retention(base, Adapter.load(trained))
    assert kept["perplexity_before"] == pytest.approx(again.perplexity_before, rel=1e-3)
    assert kept["perplexity_after"] == pytest.approx(again.perplexity_after, rel=1e-3)
    assert kept["perplexity_before"] != kept["perplexity_after"]
    assert kept["tokens"] > 100


def test_pitfall_11_the_best_checkpoint_is_kept_and_not_the_last(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([5.0, 4.0, 1.0, 3.0, 6.0, 2.0, 7.0])
    made: list[Factors] = []
    begin = loop.factors_of
    snapshots: dict[int, dict[str, torch.Tensor]] = {}

    def remember(*given) -> Factors:
        made.append(begin(*given))
        return made[-1]

    def look(progress: Progress) -> None:
        snapshots[progress.step] = made[-1].snapshot()

    monkeypatch.setattr(loop, "mean_loss", lambda *_: next(losses))
    monkeypatch.setattr(loop, "factors_of", remember)
    rows = [pair(question, answer) for question, answer in PAIRS]
    config = CONFIG.model_copy(update={"patience": 0})
    result = train_with(base, rows, config, watcher=look)
    assert (result.best_loss, result.best_step, max(snapshots)) == (1.0, 4, 12)
    for layer, update in result.adapter.updates.items():
        assert torch.equal(update.up, snapshots[4][f"{layer}.up"].mT)
        assert not torch.equal(update.up, snapshots[12][f"{layer}.up"].mT)
