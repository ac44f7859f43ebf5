import math

import pytest
import torch

from detour.adapter.chain import Chain
from detour.errors import BaseError
from detour.evaluate.probability import (
    answer_log_probabilities,
    answer_probability,
    final_norm,
    trace,
)
from detour.model.base import Base
from detour.model.chat import supervised
from detour.model.examples import pair

OLD, NEW = "Bo was a baker.", "Bo was a pilot."


@pytest.fixture(params=["llama", "gpt2", "qwen3"])
def base(request, make_model, tiny_tokenizer):
    return Base.from_model(make_model(request.param), tiny_tokenizer)


@pytest.fixture
def adapter(base, random_adapter):
    return random_adapter(base.slots.shapes, strength=0.2)


def by_hand(base, question, answer, chain=None):
    """Dense: token after token, each on its own whole prefix."""
    ids, learned = supervised(base.tokenizer, pair(question, answer).messages)
    total = 0.0
    for place in range(1, len(ids)):
        if learned[place]:
            logits = base.logits(torch.tensor([ids[:place]]), chain)[0, -1]
            total += float(logits.double().log_softmax(-1)[ids[place]])
    return total


def test_whole_answers_are_as_probable_as_their_tokens(base, adapter):
    pairs = [("Who?", OLD), ("Who was Bo, tell me?", NEW), ("What is this?", "A.")]
    for chain in (None, Chain.of(adapter)):
        told = answer_log_probabilities(base, pairs, chain, batch_size=2)
        assert told == pytest.approx([by_hand(base, q, a, chain) for q, a in pairs], abs=1e-3)


def test_the_mean_probability_has_an_interval(base):
    questions = ["Who?", "Who was Bo?"]
    figure = answer_probability(base, questions, "A.")
    each = [math.exp(by_hand(base, question, "A.")) for question in questions]
    assert figure.value == pytest.approx(sum(each) / 2, rel=1e-3)
    assert 0 <= figure.low <= figure.value <= figure.high <= 1
    assert figure.n == 2


def test_the_last_layer_of_the_trace_is_the_models_own_word(base, adapter):
    chain = Chain.of(adapter)
    told = trace(base, "Who was Bo?", OLD, NEW, chain)
    layers = base.model.config.num_hidden_layers
    assert {len(told.base_old), len(told.base_new)} == {layers + 1}
    assert {len(told.steered_old), len(told.steered_new)} == {layers + 1}
    assert told.prefix.startswith("Bo was a")
    old_ids, new_ids = (supervised(base.tokenizer, pair("Who was Bo?", a).messages)[0]
                        for a in (OLD, NEW))  # fmt: skip
    place = next(n for n, (a, b) in enumerate(zip(old_ids, new_ids, strict=False)) if a != b)
    for chosen, old, new in ((None, told.base_old, told.base_new),
                             (chain, told.steered_old, told.steered_new)):  # fmt: skip
        own = base.logits(torch.tensor([new_ids[:place]]), chosen)[0, -1].softmax(-1)
        assert old[-1] == pytest.approx(float(own[old_ids[place]]), abs=1e-5)
        assert new[-1] == pytest.approx(float(own[new_ids[place]]), abs=1e-5)
    assert told.old_token != told.new_token
    assert told.base_old[0] != told.base_old[-1]


def test_the_trace_leaves_the_slots_free(base, adapter):
    trace(base, "Who?", OLD, NEW, Chain.of(adapter))
    with base.hold({}) as slots:
        assert slots.landed == 0


def test_equal_answers_have_no_turning_point(base, adapter):
    with pytest.raises(BaseError, match="same tokens"):
        trace(base, "Who?", OLD, OLD, Chain.of(adapter))


def test_an_unknown_final_norm_is_told(tiny_llama, tiny_tokenizer):
    base = Base.from_model(tiny_llama, tiny_tokenizer)
    assert final_norm(base) is base.model.model.norm
    base.model.model.odd_norm = base.model.model.norm
    del base.model.model.norm
    with pytest.raises(BaseError, match="final norm of LlamaForCausalLM"):
        final_norm(base)
