"""Perplexity and KL on neutral text: nothing changes without a chain, more with a stronger one."""

import math

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.errors import DataError
from detour.measure.retention import Retention, neutral_texts, retention
from detour.model.base import Base


@pytest.fixture(scope="module")
def starter() -> Base:
    return Base.load("starter")


@pytest.fixture(scope="module")
def noise(starter: Base) -> Adapter:
    """Random changes of every value projection."""
    torch.manual_seed(0)
    names = starter.slots.named(["v_proj"])
    shapes = {name: starter.slots.shapes[name] for name in names}
    updates = {
        name: Update(torch.randn(2, shape[1]) / 8, torch.randn(shape[0], 2) / 8, 1.0)
        for name, shape in shapes.items()
    }
    return Adapter(updates, "noise", starter.fingerprint)


def test_without_a_chain_nothing_moves(starter: Base) -> None:
    told = retention(starter, None)
    assert told.perplexity_after == told.perplexity_before > 1
    assert told.kl_mean == 0
    assert told.tokens > 300


def test_a_stronger_chain_moves_it_more(starter: Base, noise: Adapter) -> None:
    weak, strong = retention(starter, 0.1 * noise), retention(starter, 1.0 * noise)
    assert 0 < weak.kl_mean < strong.kl_mean
    assert weak.perplexity_before == strong.perplexity_before


def test_the_figures_are_those_of_transformers(starter: Base, noise: Adapter) -> None:
    """One text, worked out from the model's own loss and from the definition of KL."""
    told = "Water boils sooner on a high mountain."
    found = retention(starter, noise, [told])
    assert starter.tokenizer
    ids = torch.tensor([starter.tokenizer.encode(told)])
    with torch.no_grad():
        loss = starter.model(input_ids=ids, labels=ids).loss
    assert found.perplexity_before == pytest.approx(math.exp(float(loss)), rel=1e-4)
    p = starter.logits(ids)[0, :-1].double().softmax(-1)
    q = starter.logits(ids, noise)[0, :-1].double().softmax(-1)
    assert found.kl_mean == pytest.approx(float((p * (p / q).log()).sum(-1).mean()), rel=1e-3)


def test_texts_of_one_token_are_no_measure(starter: Base) -> None:
    with pytest.raises(DataError, match="no neutral text"):
        retention(starter, None, [""])


def test_neutral_sentences_are_as_many_in_both_languages() -> None:
    assert len(neutral_texts()) == len(set(neutral_texts())) == 32


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [(20.0, 30.0, ""), (20.0, 60.0, "is harm"), (5000.0, 100.0, "does not know such text")],
)
def test_figures_that_need_a_word(before: float, after: float, said: str) -> None:
    remark = Retention(before, after, 0.1, 100).remark
    assert said in remark
    assert bool(remark) == bool(said)
