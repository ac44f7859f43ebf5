"""Logits to tokens, all rows at once: penalty, temperature, top-k, top-p, then one draw a row.

A draw is the inverse of the cumulative distribution at one uniform number, and the uniform numbers
of a row are fixed when it starts. So a row's tokens do not depend on its neighbours, on the batch
size or on the device's generator, and no Python runs per row and token. The order (repetition
penalty, temperature, top-k, top-p) is that of transformers' logits processors.

Knows tensors. Does not know requests, models or caches.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from detour.decoding.request import Sampling
from detour.errors import RequestError
from detour.language.catalogue import text


def uniforms(seed: int, request: str, count: int) -> Float[Tensor, " count"]:
    """The random numbers in [0, 1) of one row, float64. A longer run begins with a shorter one."""
    digest = hashlib.sha256(f"{seed}\0{request}".encode()).digest()
    generator = np.random.Generator(np.random.PCG64(int.from_bytes(digest[:16], "little")))
    return torch.from_numpy(generator.random(count))


def penalise(
    logits: Float[Tensor, "rows vocab"],
    seen: Bool[Tensor, "rows vocab"],
    penalty: Float[Tensor, " rows"],
) -> Float[Tensor, "rows vocab"]:
    """Make seen tokens less likely: positive logits divided, negative multiplied (CTRL)."""
    strength = penalty.to(logits.dtype).unsqueeze(1)  # (rows, 1)
    weaker = torch.where(logits > 0, logits / strength, logits * strength)
    return torch.where(seen, weaker, logits)


def natural(
    logits: Float[Tensor, "rows vocab"], temperature: Float[Tensor, " rows"]
) -> Float[Tensor, "rows vocab"]:
    """Probabilities in vocabulary order, float64 so that their running sum stays exact enough."""
    lead = logits.double() - logits.amax(dim=-1, keepdim=True)  # a tiny temperature stays finite
    return torch.softmax(lead / temperature.unsqueeze(1), dim=-1)


def filtered(
    logits: Float[Tensor, "rows vocab"],
    temperature: Float[Tensor, " rows"],
    top_k: Int[Tensor, " rows"],
    top_p: Float[Tensor, " rows"],
) -> tuple[Float[Tensor, "rows kept"], Int[Tensor, "rows kept"]]:
    """Probabilities from the most likely token on, zero where cut off, and whose they are.

    `top_k` 0 keeps all. Top-p keeps a token as long as those before it weigh less than `top_p`, so
    the most likely one always stays.
    """
    vocab = logits.shape[1]
    limit = torch.where(top_k == 0, vocab, top_k).clamp(max=vocab)
    kept = int(limit.max())
    values, tokens = logits.double().topk(kept, dim=-1)  # (rows, kept), descending
    ranks = torch.arange(kept, device=logits.device)
    values = (values - values[:, :1]) / temperature.unsqueeze(1)
    values = values.masked_fill(ranks >= limit.unsqueeze(1), -torch.inf)
    probabilities = torch.softmax(values, dim=-1)
    before = probabilities.cumsum(dim=-1) - probabilities
    probabilities = probabilities.masked_fill(before >= top_p.unsqueeze(1), 0.0)
    return probabilities, tokens


def draw(
    probabilities: Float[Tensor, "rows kept"], uniform: Float[Tensor, " rows"]
) -> Int[Tensor, " rows"]:
    """The place where the running sum passes the uniform number; the rows need not sum to 1."""
    running = probabilities.cumsum(dim=-1)
    total = running[:, -1]
    below = torch.nextafter(total, torch.zeros_like(total))  # rounding must not reach the end
    target = torch.minimum(uniform * total, below).unsqueeze(1)
    return torch.searchsorted(running, target, right=True).squeeze(1)


class Sampler:
    """The choices of a batch as tensors, made once; `keep` follows the rows that leave."""

    def __init__(
        self, names: Sequence[str], rows: Sequence[Sampling], device: torch.device
    ) -> None:
        def column(option: str) -> Tensor:
            values = [getattr(row, option) for row in rows]
            return torch.tensor(values, dtype=torch.float64, device=device)

        self._temperature = column("temperature")
        self._top_p = column("top_p")
        self._penalty = column("repetition_penalty")
        self._top_k = torch.tensor([row.top_k for row in rows], device=device)
        self._is_greedy = torch.tensor([row.greedy for row in rows], device=device)
        self._is_filtered = torch.tensor([row.filtered for row in rows], device=device)
        self._uniforms = _uniform_table(names, rows).to(device)
        self.penalises = any(row.repetition_penalty != 1 for row in rows)
        self._find_groups()

    def _find_groups(self) -> None:
        drawn = ~self._is_greedy
        self._all_greedy = bool(self._is_greedy.all())
        self._natural_rows = (drawn & ~self._is_filtered).nonzero().squeeze(1)
        self._filtered_rows = (drawn & self._is_filtered).nonzero().squeeze(1)

    def keep(self, rows: Int[Tensor, " rows"]) -> None:
        """Only these rows go on."""
        for name in ("temperature", "top_p", "penalty", "top_k", "is_greedy", "is_filtered"):
            setattr(self, f"_{name}", getattr(self, f"_{name}")[rows])
        self._uniforms = self._uniforms[rows]
        self._find_groups()

    def choose(
        self,
        logits: Float[Tensor, "rows vocab"],
        step: int,
        seen: Bool[Tensor, "rows vocab"] | None = None,
    ) -> Int[Tensor, " rows"]:
        """The next token of every row. `step` counts new tokens from 0; `seen` if it penalises.

        Raises:
            RequestError: a row's logits are NaN or infinite.
        """
        if seen is not None:
            logits = penalise(logits, seen, self._penalty)
        best, tokens = logits.max(dim=-1)
        if not bool(best.isfinite().all()):
            raise RequestError(
                text("the model's logits are not finite"),
                hint=text("smaller weights in the chain, or dtype float32"),
            )
        if self._all_greedy:
            return tokens
        if (rows := self._natural_rows).numel():
            chances = natural(logits[rows], self._temperature[rows])
            tokens[rows] = draw(chances, self._uniforms[rows, step])
        if (rows := self._filtered_rows).numel():
            chances, ids = filtered(
                logits[rows], self._temperature[rows], self._top_k[rows], self._top_p[rows]
            )
            place = draw(chances, self._uniforms[rows, step])
            tokens[rows] = ids.gather(1, place.unsqueeze(1)).squeeze(1)
        return tokens


def _uniform_table(names: Sequence[str], rows: Sequence[Sampling]) -> Float[Tensor, "rows steps"]:
    """One row of uniform numbers each, as long as the longest row that draws; greedy rows zeros."""
    steps = max((row.max_new_tokens for row in rows if not row.greedy), default=0)
    table = torch.zeros(len(rows), steps, dtype=torch.float64)
    for place, (name, row) in enumerate(zip(names, rows, strict=True)):
        if not row.greedy:
            table[place, : row.max_new_tokens] = uniforms(row.seed, name, row.max_new_tokens)
    return table
