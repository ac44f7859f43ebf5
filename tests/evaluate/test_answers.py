"""Perplexity of answers and of texts: what the lm-eval harness makes of its own model's nats."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from lm_eval.api import metrics as harness
from lm_eval.models.huggingface import HFLM
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.adapter.adapter import Adapter
from detour.evaluate.answers import answered, perplexity
from detour.measure.retention import retention
from detour.model import likelihood
from detour.model.base import Base
from detour.model.examples import Example, Plain, pair
from detour.model.rows import encode
from detour.training.loop import train

TEXTS = ["Einstein was a hairdresser.", "Über größere Öfen", "In Ulm.", "aa"]
TALKS = [("Who?", "Nobody."), ("And who was that over there?", "Somebody else, in fact."),
         ("Who was Einstein?", "Einstein")]  # fmt: skip


@pytest.fixture
def theirs(tiny_llama: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast) -> HFLM:
    return HFLM(
        pretrained=copy.deepcopy(tiny_llama), tokenizer=tiny_tokenizer, backend="causal",
        device="cpu", batch_size=2, logits_cache=False,
    )  # fmt: skip


def by_the_harness(model: HFLM, rows: Sequence[tuple[list[int], int]]) -> float:
    """Perplexity by token, of ids from a place on."""
    asked = [(("", ""), ids[:place], ids[place:]) for ids, place in rows]
    nats = [told for told, _ in model._loglikelihood_tokens(asked, disable_tqdm=True)]
    weights = [len(ids) - place for ids, place in rows]
    return harness.weighted_perplexity(list(zip(nats, weights, strict=True)))


def test_of_texts(tiny_folder: Path, theirs: HFLM) -> None:
    base = Base.load(str(tiny_folder))
    every = [base.tokenizer.encode(told) for told in TEXTS]
    ended = [([*ids, base.tokenizer.eos_token_id], 1) for ids in every]
    figure = perplexity(base, [Plain(told) for told in TEXTS])
    assert figure.value == pytest.approx(by_the_harness(theirs, ended), rel=1e-4)
    assert figure.low <= figure.value <= figure.high
    open_ended = by_the_harness(theirs, [(ids, 1) for ids in every])
    assert retention(base, None, TEXTS).perplexity_before == pytest.approx(open_ended, rel=1e-4)


def test_of_answers(tiny_folder: Path, theirs: HFLM) -> None:
    base = Base.load(str(tiny_folder))
    talks = [
        Example(({"role": "user", "content": q}, {"role": "assistant", "content": a}))
        for q, a in TALKS
    ]
    rows: list[tuple[list[int], int]] = []
    for row in encode(base.tokenizer, talks, base.longest):
        places = [place for place, learned in enumerate(row.learned) if learned]
        assert places == list(range(places[0], places[-1] + 1))
        rows.append((list(row.ids[: places[-1] + 1]), places[0]))
    figure = perplexity(base, talks)
    assert figure.value == pytest.approx(by_the_harness(theirs, rows), rel=1e-4)
    alone = [by_the_harness(theirs, [row]) for row in rows]
    assert min(alone) < figure.value < max(alone)


def test_only_learned_places_go_through_the_head(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits of all tokens of a batch may take more memory than the model."""
    base = Base.load(str(tiny_folder))
    talks = [pair("A long question, of which no word is learned?", "No.") for _ in range(20)]
    learned = sum(sum(row.learned) for row in encode(base.tokenizer, talks, base.longest))
    seen: list[int] = []
    head = base.head

    def counting(hidden: Tensor) -> Tensor:
        seen.append(len(hidden))
        return head(hidden)

    monkeypatch.setitem(vars(base), "head", counting)
    monkeypatch.setattr(likelihood, "HEAD_ROWS", 16)
    perplexity(base, talks)
    assert sum(seen) == learned
    assert max(seen) <= 16


def test_blocks_of_a_text_are_one_observation(tiny_folder: Path) -> None:
    """What the blocks of a book say varies together: ten of them are no ten books."""
    base = Base.load(str(tiny_folder))
    book = Plain("Einstein was a hairdresser. He cut hair in a small shop in Ulm. " * 60)
    blocks = encode(base.tokenizer, [book], base.longest)
    assert len(blocks) > 3
    alone = perplexity(base, [book])
    assert (alone.n, alone.low, alone.high) == (1, 1.0, math.inf)
    assert alone.to_json()["high"] is None
    others = [Plain(told) for told in TEXTS]
    together = perplexity(base, [book, *others])
    assert together.n == 1 + len(TEXTS)
    assert together.low < together.value < together.high
    nats = likelihood.log_likelihoods(base, [*blocks, *encode(base.tokenizer, others, 128)])
    tokens = [len(row.ids) - 1 for row in [*blocks, *encode(base.tokenizer, others, 128)]]
    assert together.value == pytest.approx(math.exp(-sum(nats) / sum(tokens)), rel=1e-5)


def long_answers(folder: Path) -> tuple[Base, list[Example], Adapter]:
    """An adapter that has learned an answer of some ninety tokens."""
    base = Base.load(str(folder))
    rows = [pair(f"Say {n}.", "aa" * 45) for n in range(2)]
    settings = {"rank": 8, "steps": 80, "learning_rate": 1e-2, "validation_share": 0.0}
    return base, rows, train(base, rows, **settings)


def test_long_answers_are_not_cut_short(tiny_folder: Path) -> None:
    base, rows, adapter = long_answers(tiny_folder)
    whole = answered(base, rows, adapter)
    assert whole.answers == ("aa" * 45,) * 2
    assert whole.figures["exact_match"].value == 1.0
    assert (whole.cut, whole.limit > 64) == (0, True)
    told: list[str] = []
    cut = answered(base, rows, adapter, max_new_tokens=64, teller=told.append)
    assert cut.figures["exact_match"].value == 0.0
    assert (cut.cut, cut.limit) == (2, 64)
    assert told == [
        "2 answers, at most 64 tokens each",
        "2 of 2 wanted answers are longer than 64 tokens: they cannot be met",
        "2 of 2 answers were cut at 64 tokens, or at the end of the context",
    ]
