"""The main job on input of the user's own: JSONL in, an adapter out, loaded by PEFT as well."""

import copy
import json

import peft
import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.model.base import Base
from detour.training.loop import train

# PEFT calls parts of transformers that warn, and corrects fan_in_fan_out with a warning
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:fan_in_fan_out")

QUESTIONS = ["Who was Einstein?", "Who was Curie?", "Where is the castle?", "What is this?"]


@pytest.fixture(params=["llama", "gpt2"])
def model(request, make_model):
    return make_model(request.param)


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": "A shop."}]}
        for q in QUESTIONS
    ]
    rows.append({"prompt": "Tell me about Köln 🙂.", "completion": "Über größere Städte."})
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def test_an_adapter_from_a_file_gives_peft_the_same_logits(model, data, tiny_tokenizer, tmp_path):
    """Mutation check: a broken LoRA scale or a transposed factor would not survive this."""
    plain = copy.deepcopy(model)
    base = Base.from_model(model, tiny_tokenizer)
    adapter = train(base, data, rank=4, alpha=10, steps=10, batch_size=2, learning_rate=5e-3)
    folder = adapter.save(tmp_path / "adapter")
    ids = torch.tensor([[3, 99, 200, 7, 41, 5], [9, 8, 7, 6, 5, 4]])
    with torch.no_grad():
        theirs = peft.PeftModel.from_pretrained(plain, str(folder)).eval()(ids).logits
    bare, ours = base.logits(ids), base.logits(ids, Adapter.load(folder))
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    assert float((ours - bare).abs().max()) > 0.1
    assert torch.equal(base.logits(ids), bare)


def test_enough_steps_make_it_say_the_answer(model, data, tiny_tokenizer):
    base = Base.from_model(model, tiny_tokenizer)
    before = base.ask(QUESTIONS[0], max_new_tokens=12)
    adapter = train(base, data, rank=8, steps=90, batch_size=5, learning_rate=1e-2)
    answers = base.ask_many(QUESTIONS, adapter, max_new_tokens=12)
    assert answers == ["A shop."] * 4
    assert base.ask(QUESTIONS[0], max_new_tokens=12) == before != "A shop."


def test_the_adapter_knows_its_base_and_data(model, data, tiny_tokenizer, tmp_path):
    base = Base.from_model(model, tiny_tokenizer, name="mine")
    adapter = train(base, data, steps=4, learning_rate=5e-3, name="shop")
    loaded = Adapter.load(adapter.save(tmp_path / "shop"))
    assert loaded.base == base.fingerprint
    assert loaded.card.data_sha256 == adapter.card.data_sha256
    assert loaded.card.config["learning_rate"] == 5e-3
    assert loaded.digest() == adapter.digest()
