"""What a base holds of a change before anything is trained."""

import math
from dataclasses import replace

import pytest
import torch

from detour.evaluate import latent
from detour.evaluate.latent import probe, ranked
from detour.evaluate.probability import nats_per_token
from detour.evaluate.teach import make_lesson
from detour.measure.retention import neutral_texts


@pytest.fixture(scope="module")
def edits(starter, world):
    return {
        target: make_lesson(starter, "Albert Einstein", "profession", target, world=world).edits[0]
        for target in ("baker", "zorblax")
    }


@pytest.fixture(scope="module")
def probes(starter, edits):
    return {target: probe(starter, edit) for target, edit in edits.items()}


def test_a_value_of_its_world_is_held_and_a_made_up_word_is_not(probes):
    known, made_up = probes["baker"], probes["zorblax"]
    assert known.few_shot.value > 0.5 > made_up.few_shot.value
    assert known.nats_per_character.low > made_up.nats_per_character.high
    assert ranked([made_up, known]) == [known, made_up]


def test_figures_are_those_of_the_whole_sentence(starter, edits, probes):
    edit, found = edits["baker"], probes["baker"]
    told = [nats_per_token(starter, question, edit.answer) for question in edit.asked[:24]]
    assert found.nats_per_token.value == pytest.approx(sum(told) / len(told), abs=1e-5)
    length = len(starter.tokenizer.encode(edit.answer, add_special_tokens=False)) + 1
    assert found.nats_per_character.value == pytest.approx(
        found.nats_per_token.value * length / len(edit.answer), abs=1e-5
    )
    assert found.nats_per_token.n == 24
    assert found.candidates == 1 + len({edit.old, edit.third, *edit.rivals})
    assert 1 <= found.place.value <= found.candidates


def test_the_rarest_token_is_the_one_said_least(starter, probes):
    total = torch.zeros(starter.model.config.vocab_size)
    for line in neutral_texts():
        logits = starter.logits(torch.tensor([starter.tokenizer.encode(line)]))[0]
        total += logits.log_softmax(-1).mean(0)
    pieces = starter.tokenizer.encode(" zorblax", add_special_tokens=False)
    shares = {starter.decode([p]): float((total < total[p]).float().mean()) for p in pieces}
    found = probes["zorblax"]
    assert found.pieces == len(pieces)
    assert found.rarest == min(shares, key=lambda token: shares[token])
    assert found.rarest_share == pytest.approx(min(shares.values()), abs=1e-3)


def test_what_speaks_against_it_is_said(probes):
    assert probes["baker"].warning == ""
    faint = replace(
        probes["baker"], nats_per_token=replace(probes["baker"].nats_per_token, value=-9)
    )
    assert "hardly holds this target" in faint.warning
    assert "hardly ever learned" in replace(faint, rarest_share=0.001).warning


def test_without_other_values_there_is_no_place(starter, edits):
    alone = replace(edits["baker"], old="", third="", rivals=())
    found = latent.probe(starter, alone)
    assert math.isnan(found.place.value)
    assert found.candidates == 1
    assert found.to_json()["place"]["value"] is None
