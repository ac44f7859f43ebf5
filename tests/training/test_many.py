"""Many adapters at once: each learns its own task, and begins where the others begin."""

import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from detour.errors import BaseError
from detour.model.base import Base
from detour.model.examples import pair
from detour.training import many
from detour.training.many import train_many

ANSWERS = {"first": "aaaa", "second": "bbbb", "third": "cccc"}
ROWS = {
    name: [pair(f"Question {row}", answer) for row in range(4)] for name, answer in ANSWERS.items()
}


@pytest.fixture
def base(tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


def test_each_learns_its_own(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "AT_ONCE", 2)  # so that the third is trained after the others
    told: list[tuple[int, int, float]] = []
    made = train_many(
        base, ROWS, targets="all-linear", rank=4, alpha=16, steps=60, learning_rate=2e-2,
        watcher=lambda step, steps, loss: told.append((step, steps, loss)),
    )  # fmt: skip
    assert list(made) == list(ROWS)
    assert [step for step, _, _ in told] == list(range(1, 121))
    assert told[59][2] < 0.2 * told[0][2]
    for name, adapter in made.items():
        answers = [base.ask("Question 2", other, max_new_tokens=4) for other in made.values()]
        assert answers[list(made).index(name)] == ANSWERS[name]
        assert adapter.base == base.fingerprint
        assert adapter.card.config["together"] == (1 if name == "third" else 2)


def test_all_begin_alike_and_zero_steps_are_the_base(base: Base) -> None:
    made = train_many(base, ROWS, targets=["q_proj"], steps=0)
    one, other = made["first"], made["second"]
    for layer, update in one.updates.items():
        assert torch.equal(update.down, other.updates[layer].down)
        assert not update.up.any()


def test_a_base_without_a_tokenizer_is_refused(tiny_llama: LlamaForCausalLM) -> None:
    with pytest.raises(BaseError, match="has no tokenizer"):
        train_many(Base.from_model(tiny_llama), ROWS, targets=["q_proj"])
