"""Confidence: a logistic model that tells what was understood from what was not."""

import random

from detour.hypernetwork.confidence import Confidence, Signals


def _signals(rng: random.Random, understood: bool) -> Signals:
    middle = 0.9 if understood else 0.5
    share = lambda: min(max(rng.gauss(middle, 0.1), 0.01), 0.99)  # noqa: E731
    return Signals(share(), share(), share(), share(), 0.95, 2)


def test_it_tells_them_apart() -> None:
    rng = random.Random(0)
    truth = [rng.random() < 0.7 for _ in range(300)]
    fitted = Confidence.fit([_signals(rng, one) for one in truth], truth)
    right = [(fitted(_signals(rng, one)) > 0.5) == one for one in truth]
    assert sum(right) > 285


def test_where_nothing_was_found_it_is_zero() -> None:
    fitted = Confidence((5.0,) * 6, 10.0)
    assert fitted(Signals(1, 1, 1, 1, 1, 0)) == 0.0
    assert fitted(Signals(1, 1, 1, 1, 1, 1)) > 0.99
