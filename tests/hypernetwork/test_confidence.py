"""Confidence: a logistic model that tells what was understood from what was not."""

import random

import torch

from detour.hypernetwork.confidence import FEWEST, SIGNALS, Confidence, Signals
from detour.hypernetwork.known import Known


def _signals(rng: random.Random, understood: bool) -> Signals:
    middle = 0.9 if understood else 0.5
    share = lambda: min(max(rng.gauss(middle, 0.1), 0.01), 0.99)  # noqa: E731
    return Signals(share(), share(), share(), share(), 0.95, share(), 0.1, 2)


def test_it_tells_them_apart() -> None:
    rng = random.Random(0)
    truth = [rng.random() < 0.7 for _ in range(300)]
    fitted = Confidence.fit([_signals(rng, one) for one in truth], truth)
    assert fitted is not None
    right = [(fitted(_signals(rng, one)) > 0.5) == one for one in truth]
    assert sum(right) > 285


def test_where_nothing_was_found_it_is_zero() -> None:
    fitted = Confidence((5.0,) * len(SIGNALS), 10.0)
    assert fitted(Signals(1, 1, 1, 1, 1, 1, 1, 0)) == 0.0
    assert fitted(Signals(1, 1, 1, 1, 1, 1, 1, 1)) > 0.99


def test_nothing_is_fitted_where_one_outcome_is_rare() -> None:
    rng = random.Random(0)
    truth = [True] * 40 + [False] * (FEWEST - 1)
    assert Confidence.fit([_signals(rng, one) for one in truth], truth) is None
    nothing = Signals(0, 0, 0, 0, 0, 0, 0, 0)
    found = [_signals(rng, one) for one in truth] + [nothing] * 20
    assert Confidence.fit(found, truth + [False] * 20) is None


def test_the_nearest_texts_speak_for_a_name() -> None:
    angles = torch.tensor([0.0, 0.1, 0.2, 1.5, 1.6])
    known = Known(
        ("a", "b", "c", "d", "e"), ("x", "x", "x", "y", "x + y"),
        torch.stack([angles.cos(), angles.sin()], 1),
    )  # fmt: skip
    votes, gap = known.support(torch.tensor([2.0, 0.1]), ["x"])
    assert votes > 0.95
    assert 0.8 < gap < 1.0
    assert known.support(torch.tensor([2.0, 0.1]), ["y"])[1] < -0.8
    assert known.support(torch.tensor([0.0, 1.0]), ["y", "x"])[1] > -0.01  # sets, in any order
    assert known.support(torch.tensor([0.0, 1.0]), ["z"])[1] == 0.0
