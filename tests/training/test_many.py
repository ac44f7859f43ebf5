"""Many adapters at once: each learns its own task, and begins where the others begin."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
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


def gradients(base: Base, names: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Of the task `short`, in the steps of a training together with the others."""
    seen: list[Tensor] = []
    place = names.index("short")
    clip = many._Factors.clip

    def spying(factors: many._Factors, most: float) -> None:
        found = [p.grad[place].flatten() for p in factors.parameters if p.grad is not None]
        seen.append(torch.cat(found))
        clip(factors, most)

    data = {name: UNEVEN[name] for name in names}
    with monkeypatch.context() as patched:
        patched.setattr(many._Factors, "clip", spying)
        train_many(base, data, targets=["q_proj", "up_proj"], steps=3, rows_per_task=2)
    return seen


UNEVEN = {
    "long": [pair(f"Say {n}.", "bb" * (5 + 8 * n)) for n in range(3)],
    "short": [pair(f"Which {n}?", "a" * (1 + n)) for n in range(4)],
    "longer": [pair(f"Tell {n}.", "cd" * 30) for n in range(2)],
}


def test_a_tasks_gradient_is_the_one_it_would_have_alone(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever answers the others have: long ones take no share of the short ones' loss."""
    alone = gradients(base, ["short"], monkeypatch)
    together = gradients(base, list(UNEVEN), monkeypatch)
    assert len(alone) == len(together) == 3
    for one, other in zip(alone, together, strict=True):
        assert float(one.norm()) > 0
        assert float((one - other).norm()) < 1e-3 * float(one.norm())


def test_an_adapter_does_not_depend_on_its_company(base: Base) -> None:
    settings = {"targets": ["q_proj", "up_proj"], "steps": 10, "clip": 0.1}
    alone = train_many(base, {"short": UNEVEN["short"]}, **settings)["short"]
    together = train_many(base, UNEVEN, **settings)["short"]
    other_order = train_many(base, dict(reversed(UNEVEN.items())), **settings)["short"]
    for layer, update in alone.updates.items():
        wanted = update.delta()
        for found in (together, other_order):
            difference = float((found.updates[layer].delta() - wanted).norm())
            assert difference < 1e-2 * float(wanted.norm())


def test_the_loss_is_that_of_a_token(base: Base) -> None:
    told: list[float] = []
    train_many(base, UNEVEN, targets=["q_proj"], steps=1,
               watcher=lambda step, steps, loss: told.append(loss))  # fmt: skip
    assert 1.0 < told[0] < 20.0  # random weights know nothing: about log(320) nats


def test_all_begin_alike_and_zero_steps_are_the_base(base: Base) -> None:
    made = train_many(base, ROWS, targets=["q_proj"], steps=0)
    one, other = made["first"], made["second"]
    for layer, update in one.updates.items():
        assert torch.equal(update.down, other.updates[layer].down)
        assert not update.up.any()


def test_a_base_without_a_tokenizer_is_refused(tiny_llama: LlamaForCausalLM) -> None:
    with pytest.raises(BaseError, match="has no tokenizer"):
        train_many(Base.from_model(tiny_llama), ROWS, targets=["q_proj"])
