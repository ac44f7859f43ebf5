"""Weights that are found for a chain: by gradient and by trying, on rows of the whole of it."""

import pytest
import torch
from tests.training.test_together import NAMES, loss

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain, LayerWeight, Term
from detour.errors import ChainError, ConfigError, TrainingError
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.rows import encode, padded
from detour.training import weighing
from detour.training.config import make_config
from detour.training.loop import train_with
from detour.training.weighing import Coefficients, search, weigh

ROWS = [pair(f"Who was {name}?", f"{name} was a baker.") for name in NAMES * 3]


@pytest.fixture(scope="module")
def base(make_model, tiny_tokenizer):
    return Base.from_model(make_model("llama", num_hidden_layers=3), tiny_tokenizer)


@pytest.fixture(scope="module")
def right(base):
    config = make_config({"steps": 40, "batch_size": 6, "learning_rate": 1e-2, "rank": 2})
    return train_with(base, ROWS, config, name="right").adapter


@pytest.fixture(scope="module")
def wrong(base, random_adapter):
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    return random_adapter(shapes, seed=3, strength=0.2).with_(name="wrong", base=base.fingerprint)


def mixed(right: Adapter, wrong: Adapter) -> Chain:
    return Chain((Term(right, 0.6, (LayerWeight(0, 1, 0.8),)), Term(wrong, 0.7)))


def test_factors_multiply_the_weights_of_their_layers(base, right, wrong):
    chain = base.bind(mixed(right, wrong))
    coefficients = Coefficients(chain, True, base.device)
    assert coefficients.places == [0, 1, 2]
    coefficients.table.data = torch.tensor([[1.0, 0.5], [2.0, 0.5], [0.5, 0.0]])
    found = coefficients.chain_of(coefficients.snapshot())
    assert found.terms[0].layers == (
        LayerWeight(0, 0, 0.8), LayerWeight(1, 1, 1.6), LayerWeight(2, 2, 0.3),
    )  # fmt: skip
    assert found.terms[1].layers == (LayerWeight(0, 1, 0.35), LayerWeight(2, 2, 0.0))
    batch = padded(encode(base.tokenizer, [ROWS[0]], base.longest), base.pad_id)
    forward, head = base.forward, base.head
    with base.hold(coefficients.contents(1)), torch.no_grad():
        rows = base.slots.rows(*forward.row_index(batch))
        with rows:
            told = float(weighing.answer_loss(forward, head, batch))
    assert told == pytest.approx(loss(base, found, ROWS[0]), rel=1e-5)


def test_one_factor_for_all_layers_keeps_ranges_and_zeros(base, right, wrong):
    chain = base.bind(Chain((Term(right, 0.0), *mixed(right, wrong).terms)))
    coefficients = Coefficients(chain, False, base.device)
    coefficients.table.data = torch.tensor([[3.0, 0.5, -1.0]])
    found = coefficients.chain_of(coefficients.snapshot())
    assert [term.weight for term in found.terms] == [0.0, 0.3, -0.7]
    assert found.terms[1].layers == (LayerWeight(0, 1, 0.4),)


@pytest.mark.parametrize("by_layer", [False, True])
def test_by_gradient_what_harms_goes_down(base, right, wrong, by_layer):
    before = {name: one.detach().clone() for name, one in base.model.named_parameters()}
    settings = {"steps": 30, "learning_rate": 0.05, "batch_size": 6}
    told = []
    found = weigh(base, mixed(right, wrong), ROWS, settings, by_layer=by_layer, teller=told.append)
    assert found.after < found.before
    assert told
    chain = found.chain
    layers = range(3)
    own = [abs(chain.terms[1].weight_at(f"layers.{one}")) for one in layers]
    assert sum(own) / 3 < 0.6
    assert [term.adapter.digest() for term in chain.terms] == [right.digest(), wrong.digest()]
    judged = [ROWS[0]]
    assert loss(base, chain, judged[0]) < loss(base, mixed(right, wrong), judged[0])
    assert all(torch.equal(one, before[name]) for name, one in base.model.named_parameters())


def test_what_is_told_is_measured_on_the_chain_that_is_handed_out(base, right, wrong):
    settings = {"steps": 5, "batch_size": 6, "validation_share": 0.0}
    rows = ROWS[:6]
    found = weigh(base, mixed(right, wrong), rows, settings)
    tokens = [sum(encode(base.tokenizer, [row], base.longest)[0].learned) for row in rows]
    told = [loss(base, found.chain, row) for row in rows]
    mean = sum(n * one for n, one in zip(tokens, told, strict=True)) / sum(tokens)
    assert found.after == pytest.approx(mean, rel=1e-4)
    assert found.validation_rows == 0


def test_by_trying(base, right, wrong):
    seen = []
    found = search(base, mixed(right, wrong), ROWS, {"batch_size": 6}, trials=15,
                   watcher=seen.append)  # fmt: skip
    again = search(base, mixed(right, wrong), ROWS, {"batch_size": 6}, trials=15)
    assert found.after < found.before
    assert found.chain.digest() == again.chain.digest()
    assert [one.step for one in seen] == list(range(1, 16))
    losses = [one.loss for one in seen]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0]


def test_what_cannot_be_weighed(base, right, wrong):
    with pytest.raises(ChainError, match="nothing to weigh"):
        weigh(base, Chain.of(right), ROWS)
    with pytest.raises(ConfigError, match="kl_weight"):
        weigh(base, mixed(right, wrong), ROWS, {"kl_weight": 1.0})
    with pytest.raises(TrainingError):
        weigh(base, Chain((Term(right, 0.0), Term(wrong, 0.0))), ROWS)
