import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from detour.decoding.request import Sampling
from detour.decoding.sampling import Sampler, draw, filtered, natural, penalise, uniforms


def columns(rows, *values):
    return [torch.full((rows,), v, dtype=torch.float64) for v in values]


def scattered(probabilities, tokens, vocabulary):
    """Probabilities in vocabulary order, normalised."""
    whole = torch.zeros(len(tokens), vocabulary, dtype=torch.float64)
    whole.scatter_(1, tokens, probabilities)
    return whole / whole.sum(dim=1, keepdim=True)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, 500])
@pytest.mark.parametrize("top_p", [0.05, 0.6, 1.0])
def test_distribution_equals_transformers(temperature, top_k, top_p):
    torch.manual_seed(0)
    logits = torch.randn(4, 50, dtype=torch.float64) * 3
    steps = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        steps.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        steps.append(TopPLogitsWarper(top_p))
    theirs = steps(torch.zeros(4, 1, dtype=torch.long), logits.clone()).softmax(dim=-1)
    heat, p = columns(4, temperature, top_p)
    ours = scattered(*filtered(logits, heat, torch.full((4,), top_k), p), 50)
    torch.testing.assert_close(ours, theirs)


def test_penalty_equals_transformers():
    torch.manual_seed(0)
    logits, ids = torch.randn(3, 20), torch.randint(0, 20, (3, 6))
    seen = torch.zeros(3, 20, dtype=torch.bool).scatter_(1, ids, True)
    theirs = RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone())
    torch.testing.assert_close(penalise(logits, seen, columns(3, 1.3)[0]), theirs)


def test_each_row_has_its_own_settings():
    logits = torch.randn(3, 30, generator=torch.Generator().manual_seed(0))
    heat = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    top_k, top_p = torch.tensor([3, 0, 8]), torch.tensor([1.0, 0.5, 0.9], dtype=torch.float64)
    together = scattered(*filtered(logits, heat, top_k, top_p), 30)
    for row in range(3):
        one = slice(row, row + 1)
        alone = scattered(*filtered(logits[one], heat[one], top_k[one], top_p[one]), 30)
        torch.testing.assert_close(together[one], alone)


def test_draws_follow_the_distribution():
    chances = torch.tensor([0.1, 0.0, 0.6, 0.3], dtype=torch.float64)
    count = 20_000
    places = draw(chances.expand(count, 4), uniforms(0, "x", count))
    shares = torch.bincount(places, minlength=4) / count
    assert (shares - chances).abs().max() < 0.015  # over 4 standard errors
    assert shares[1] == 0


@given(
    st.lists(st.floats(0, 1e6), min_size=1, max_size=20).filter(lambda v: sum(v) > 1e-6),
    st.floats(0, 1, exclude_max=True),
)
def test_a_draw_never_takes_what_has_no_chance(weights, uniform):
    chances = torch.tensor([weights], dtype=torch.float64)
    place = int(draw(chances, torch.tensor([uniform], dtype=torch.float64)))
    assert weights[place] > 0


def test_a_draw_at_the_very_end_stays_inside():
    chances = torch.tensor([[0.3, 0.3, 0.4, 0.0]], dtype=torch.float64)
    assert int(draw(chances, torch.tensor([1.0 - 2**-53], dtype=torch.float64))) == 2


def test_a_tiny_temperature_is_greedy_not_nan():
    logits = torch.tensor([[1.0, 3.0, 2.0]])
    (heat,) = columns(1, 1e-300)
    assert natural(logits, heat).tolist() == [[0.0, 1.0, 0.0]]


def test_uniforms_are_fixed_by_seed_and_request():
    first = uniforms(1, "a", 50)
    assert torch.equal(first, uniforms(1, "a", 50))
    assert torch.equal(first[:7], uniforms(1, "a", 7))
    assert not torch.equal(first, uniforms(2, "a", 50))
    assert not torch.equal(first, uniforms(1, "b", 50))
    assert float(first.min()) >= 0
    assert float(first.max()) < 1
    # PCG64 of numpy, seeded by sha256("1\0a"): the same on every machine
    assert first[0].item() == pytest.approx(FIRST_UNIFORM, abs=1e-15)


FIRST_UNIFORM = 0.6593293276460839


def test_mixed_rows_choose_as_alone():
    rows = [
        Sampling(),
        Sampling(temperature=1.0),
        Sampling(temperature=0.7, top_k=4),
        Sampling(temperature=1.5, top_p=0.5, seed=9),
    ]
    names = ["a", "b", "c", "d"]
    logits = torch.randn(4, 64, generator=torch.Generator().manual_seed(1))
    device = torch.device("cpu")
    together = Sampler(names, rows, device)
    for step in range(5):
        expected = [
            int(Sampler([name], [row], device).choose(logits[n : n + 1], step))
            for n, (name, row) in enumerate(zip(names, rows, strict=True))
        ]
        assert together.choose(logits, step).tolist() == expected
    kept = torch.tensor([1, 3])
    expected = together.choose(logits, 5)[kept]
    together.keep(kept)
    assert torch.equal(together.choose(logits[kept], 5), expected)
