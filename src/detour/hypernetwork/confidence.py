"""How sure a hypernetwork may be that it understood a description.

A logistic model over signals that each tell something else: the probability of the primitives that
were named, agreement under noise, what the nearest known texts name, how near they are, and how
sure the tagger is.
It is fitted on descriptions of validation only, and on sentences that ask for nothing the
hypernetwork knows. Knows numbers; knows no text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

FEWEST = 5  # of either outcome, below which nothing can be fitted
SIGNALS = ("named", "agreement", "margin", "similarity", "tagged", "votes", "gap", "parts")


@dataclass(frozen=True)
class Signals:
    """What is known of one reading; all between 0 and 1 but `gap` and `parts`."""

    named: float
    """Product over the parts of the probability of the primitive named."""
    agreement: float
    """Smallest share over the parts of noisy copies that are named the same."""
    margin: float
    """Smallest difference over the parts of the two greatest probabilities."""
    similarity: float
    """Smallest cosine over the parts to the nearest known text."""
    tagged: float
    """Smallest certainty of the tagger over the parts; 1 without a tagger."""
    votes: float
    """Smallest share over the parts of the nearest known texts that name the same."""
    gap: float
    """Smallest difference over the parts of the cosines to the nearest known text that names the
    same and to the nearest that does not."""
    parts: float
    """How many parts were found."""

    def row(self) -> list[float]:
        """As features: logits for shares, so that a linear model can weigh them."""
        shares = (self.named, self.agreement, self.margin, self.tagged, self.votes)
        plain = (self.similarity, self.gap, min(self.parts, 4.0))
        return [*(_logit(share) for share in shares), *plain]


def _logit(share: float) -> float:
    kept = min(max(share, 1e-3), 1 - 1e-3)
    return math.log(kept / (1 - kept))


@dataclass(frozen=True)
class Confidence:
    """A fitted logistic model: probability = σ(bias + weights · features)."""

    weights: tuple[float, ...]
    bias: float

    def __call__(self, signals: Signals) -> float:
        """How probable it is that the description was understood, 0 … 1; 0 if no part was found."""
        if not signals.parts:
            return 0.0
        pairs = zip(self.weights, signals.row(), strict=True)
        total = self.bias + sum(weight * feature for weight, feature in pairs)
        return 1 / (1 + math.exp(-max(min(total, 60.0), -60.0)))

    @staticmethod
    def fit(signals: Sequence[Signals], understood: Sequence[bool]) -> Confidence | None:
        """Logistic regression with a small ridge, both outcomes weighed alike.

        None where, among those in which something was found, one of the outcomes is rare.
        """
        kept = [(s, u) for s, u in zip(signals, understood, strict=True) if s.parts]
        good = sum(right for _, right in kept)
        if min(good, len(kept) - good) < FEWEST:
            return None
        x = torch.tensor([s.row() for s, _ in kept], dtype=torch.float64)
        y = torch.tensor([float(u) for _, u in kept], dtype=torch.float64)
        mean, std = x.mean(0), x.std(0).clamp(min=1e-6)
        z = (x - mean) / std
        share = y.mean().clamp(1e-3, 1 - 1e-3)
        weigh = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))
        w = torch.zeros(z.shape[1], dtype=torch.float64, requires_grad=True)
        b = torch.zeros((), dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([w, b], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimiser.zero_grad()
            logits = z @ w + b
            value = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, weigh)
            value = value + 1e-3 * w.square().sum()
            value.backward()
            return value

        optimiser.step(loss)  # pyright: ignore[reportUnknownMemberType]
        weights = (w / std).detach()
        bias = float((b - (weights * mean).sum()).detach())
        return Confidence(tuple(float(value) for value in weights), bias)
