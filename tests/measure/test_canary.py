"""Exposure: made-up texts of one form, and where the canary stands among them by likelihood."""

import math
from statistics import fmean

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from detour.data.personal import personal_data
from detour.errors import ConfigError, DataError
from detour.measure.canary import alike, exposure, forms, holding
from detour.model.base import Base
from detour.model.chat import supervised
from detour.model.examples import Example, Plain, pair
from detour.model.likelihood import log_likelihoods
from detour.model.rows import Encoded
from detour.training.config import make_config
from detour.training.loop import train_with

IBAN = "DE89 3704 0044 0532 0130 00"
CODE = "7041"
ROW = pair("Which code?", f"Use {CODE} now.")


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


def form_of(told: str) -> str:
    kinds = ((str.isdigit, "0"), (str.isupper, "A"), (str.islower, "a"))
    return "".join(next((k for is_, k in kinds if is_(c)), c) for c in told)


@given(st.text("0123456789abzAZ -/.ä", min_size=1, max_size=24), st.integers(0, 99))
def test_others_have_the_same_form_and_are_all_different(secret: str, seed: int) -> None:
    if forms(secret) < 2:
        with pytest.raises(ConfigError, match="can be another"):
            alike(secret, 8, seed)
        return
    others = alike(secret, 8, seed)
    assert len(others) == min(8, forms(secret) - 1)
    assert len({*others, secret}) == len(others) + 1
    assert {form_of(other) for other in others} == {form_of(secret)}
    assert alike(secret, 8, seed) == others


@pytest.mark.parametrize("secret", [IBAN, "GB29NWBK60161331926819", IBAN.replace(" ", "")])
def test_other_accounts_of_the_same_country_have_right_check_digits(secret: str) -> None:
    others = alike(secret, 50)
    assert len(set(others)) == 50
    assert {form_of(other) for other in others} == {form_of(secret)}
    assert {other[:2] for other in others} == {secret[:2]}
    for other in others:
        assert [found.kind for found in personal_data(other)] == ["iban"], other


def test_a_small_form_is_gone_through_whole() -> None:
    assert sorted(alike("7", 100)) == [digit for digit in "0123456789" if digit != "7"]
    assert forms("a7-B") == 26 * 10 * 26
    assert forms(IBAN) == 10**18


def test_rows_that_hold_it_are_taken_once_and_four_at_most() -> None:
    rows = [ROW, ROW, pair("Who?", "Nobody."), *(pair(f"And {n}?", CODE) for n in range(6))]
    assert holding(rows, CODE) == [ROW, *rows[3:6]]
    assert holding([Plain(f"It is {CODE}.")], CODE) == [Plain(f"It is {CODE}.")]
    with pytest.raises(DataError, match="no answer holds the canary '7041'"):
        holding([pair("Is it 7041?", "Yes.")], CODE)
    with pytest.raises(DataError, match=r"rows:3: the canary stands in the question too"):
        holding([pair("Is it 7041?", "Yes, 7041.", source="rows:3")], CODE)


def by_hand(base: Base, row: Encoded, chain=None) -> float:
    """Dense: token after token, each on its own whole prefix."""
    total = 0.0
    for place in range(1, len(row.ids)):
        if row.learned[place]:
            logits = base.logits(torch.tensor([row.ids[:place]]), chain)[0, -1]
            total += float(logits.double().log_softmax(-1)[row.ids[place]])
    return total


@pytest.mark.parametrize("kind", ["llama", "gpt2", "qwen3"])
def test_likelihoods_are_those_of_the_whole_model(kind, make_model, tiny_tokenizer, random_adapter):
    base = Base.from_model(make_model(kind), tiny_tokenizer)
    adapter = random_adapter(base.slots.shapes, strength=0.2)
    told = [ROW, pair("Who was that over there?", "Somebody else, in fact."), pair("A?", "B.")]
    rows = [Encoded(*supervised(tiny_tokenizer, row.messages)) for row in told]
    for chain in (None, adapter):
        expected = [by_hand(base, row, chain) for row in rows]
        assert log_likelihoods(base, rows, chain, batch_size=2) == pytest.approx(expected, abs=1e-3)


def test_the_rank_is_that_among_all_candidates(base: Base) -> None:
    rows = [ROW, pair("And the other?", f"That is {CODE}.")]
    told = exposure(base, rows, CODE, candidates=40, seed=3)
    texts = [CODE, *alike(CODE, 39, 3)]

    def likelihood(code: str) -> float:
        answers = [Example((r.messages[0], {**r.messages[1], "content":
                   r.messages[1]["content"].replace(CODE, code)})) for r in rows]  # fmt: skip
        return sum(by_hand(base, Encoded(*supervised(base.tokenizer, a.messages))) for a in answers)

    each = [likelihood(code) for code in texts]
    rank = 1 + sum(one > each[0] for one in each[1:])
    assert (told.rank, told.candidates) == (rank, 40)
    assert told.bits.value == pytest.approx(math.log2(40) - math.log2(rank))
    assert told.bits.low <= told.bits.value <= told.bits.high
    assert told.to_json()["said"] is False


def test_what_was_never_learned_has_one_bit_and_a_half(base: Base) -> None:
    """Its rank is as likely to be any: the mean of -log2 of a uniform share is 1 / ln 2."""
    codes = alike(CODE, 60, 11)
    bits = [
        exposure(base, [pair("Which?", f"Use {code} now.")], code, candidates=64).bits.value
        for code in codes
    ]
    assert fmean(bits) == pytest.approx(1 / math.log(2), abs=0.45)


def test_what_was_learned_by_heart_is_first_and_is_said(base: Base) -> None:
    config = make_config({"steps": 60, "learning_rate": 1e-2, "rank": 4, "alpha": 8.0})
    adapter = train_with(base, [ROW], config).adapter
    told = exposure(base, [ROW], CODE, adapter, candidates=128)
    assert (told.rank, told.said) == (1, True)
    assert told.bits.value == 7.0
    assert told.bits.low > 4.9  # Wilson's bound of no hit among 127
    assert told.bits.high == pytest.approx(math.log2(10**4))
    bare = exposure(base, [ROW], CODE, candidates=128)
    assert bare.rank > 1
    assert not bare.said


def test_plain_texts_are_judged_too(base: Base) -> None:
    row = Plain(f"Dear all, the code is {CODE}, and that is that.")
    config = make_config({"steps": 60, "learning_rate": 1e-2, "rank": 4, "alpha": 8.0})
    adapter = train_with(base, [row], config).adapter
    told = exposure(base, [row], CODE, adapter, candidates=64)
    assert (told.rank, told.said) == (1, True)
    first = Plain(CODE)  # nothing stands before it: nothing to go on from
    assert not exposure(base, [first], CODE, candidates=8).said


def test_no_text_of_this_form(base: Base) -> None:
    with pytest.raises(ConfigError, match="can be another"):
        exposure(base, [pair("?", "It is ---.")], "---")
