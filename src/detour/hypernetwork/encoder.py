"""Descriptions as a network reads them: a mean vector, all tokens, or phrase by phrase.

- mean: one vector a description, as Text-to-LoRA does it (arXiv 2506.06105);
- tokens: learned queries attend to the tokens of the description;
- spans: a tagger marks the phrases that name something; each phrase is embedded alone, gets an
  update of its own, and the updates add up.

Knows vectors of a frozen text encoder; knows nothing of layers, heads or losses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from detour.hypernetwork.config import NetworkConfig
from detour.model.embedder import Embedded

OUTSIDE, BEGIN, INSIDE = range(3)


@dataclass(frozen=True, eq=False)
class Described:
    """Descriptions side by side: vectors, and which of them are there.

    mean: one vector a description; tokens: one a token; spans: one a phrase.
    """

    vectors: Float[Tensor, "tasks parts width"]
    there: Bool[Tensor, "tasks parts"]

    def picked(self, index: Int[Tensor, " rows"]) -> Described:
        """Some of the descriptions, in this order; parts that none of them has are left out."""
        there = self.there[index]
        parts = max(int(there.sum(1).max()), 1)
        return Described(self.vectors[index, :parts], there[:, :parts])

    def rows(self, places: Sequence[int]) -> Described:
        """Some of the descriptions, as they lie: nothing is left out."""
        index = list(places)
        return Described(self.vectors[index], self.there[index])

    def noisy(self, share: float, generator: torch.Generator) -> Described:
        """With noise whose length is, on average, a share of each vector's own."""
        if share == 0:
            return self
        noise = torch.randn(self.vectors.shape, generator=generator).to(self.vectors)
        size = self.vectors.norm(dim=-1, keepdim=True) / self.vectors.shape[-1] ** 0.5
        return Described(self.vectors + share * size * noise, self.there)

    def to(self, device: torch.device) -> Described:
        """The same on another device."""
        return Described(self.vectors.to(device), self.there.to(device))


def side_by_side(described: Sequence[Float[Tensor, "parts width"]]) -> Described:
    """Descriptions of different length, padded with zeros."""
    longest = max(len(vectors) for vectors in described)
    width = described[0].shape[-1]
    vectors = torch.zeros(len(described), longest, width)
    there = torch.zeros(len(described), longest, dtype=torch.bool)
    for row, own in enumerate(described):
        vectors[row, : len(own)] = own
        there[row, : len(own)] = True
    return Described(vectors, there)


def vector_width(config: NetworkConfig, width: int) -> int:
    """How long a vector of a description is, the text encoder's being `width` long."""
    spelling = config.encoder == "spans" and config.spelling
    return 2 * width + config.spelling if spelling else width


class Encoder(nn.Module):
    """Vectors of descriptions to what the trunk reads: (tasks, parts, task_width).

    Only spans keep more than one part; `forward` also says which parts are there.
    """

    def __init__(self, config: NetworkConfig, width: int) -> None:
        super().__init__()
        self.kind = config.encoder
        attended = vector_width(config, width)
        if self.kind == "tokens":
            attended = config.queries * config.task_width
            self.queries = nn.Parameter(torch.randn(config.queries, config.task_width))
            self.key = nn.Linear(width, config.task_width)
            self.value = nn.Linear(width, config.task_width)
        inner = 2 * config.task_width
        self.project = nn.Sequential(
            nn.Linear(attended, inner), nn.SiLU(), nn.Linear(inner, config.task_width),
        ) if self.kind != "mean" else nn.Linear(width, config.task_width)  # fmt: skip
        self.norm = nn.LayerNorm(config.task_width)

    def forward(
        self, described: Described
    ) -> tuple[Float[Tensor, "tasks parts task_width"], Bool[Tensor, "tasks parts"]]:
        """The encoded descriptions, and which of their parts are there."""
        vectors, there = described.vectors, described.there
        if self.kind == "tokens":
            scores = self.key(vectors) @ self.queries.mT  # (tasks, tokens, queries)
            scores = scores / self.queries.shape[-1] ** 0.5
            weights = scores.masked_fill(~there[..., None], -torch.inf).softmax(1)
            vectors = (weights.mT @ self.value(vectors)).flatten(1)[:, None]
            there = there[:, :1]
        return self.norm(self.project(vectors)), there


class Tagger(nn.Module):
    """Which tokens of a description begin a phrase, go on with it, or stand outside of any.

    A small bidirectional GRU over the tokens' states and the tokens themselves: the words of
    asking and answering are told by what they are, phrases by what they mean.
    """

    def __init__(self, width: int, hidden: int = 96) -> None:
        super().__init__()
        self.narrow = nn.Linear(2 * width, hidden)
        self.gru = nn.GRU(hidden, hidden, batch_first=True, bidirectional=True)
        self.out = nn.Linear(2 * hidden, 3)

    def forward(self, described: Described) -> Float[Tensor, "tasks tokens 3"]:
        """Logits of OUTSIDE, BEGIN and INSIDE for every token."""
        lengths = described.there.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(
            self.narrow(described.vectors).tanh(), lengths, batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=described.there.shape[1]
        )
        return self.out(states)


def tagged_vectors(embedded: Embedded) -> Float[Tensor, "tokens both"]:
    """What the tagger reads."""
    return torch.cat([embedded.states, embedded.words], -1)


def tags_of(embedded: Embedded, spans: Sequence[tuple[int, int]]) -> list[int]:
    """The tag of every token, given where the phrases stand in the text (characters)."""
    tags = [OUTSIDE] * len(embedded.places)
    for start, end in spans:
        inside = [
            token
            for token, (first, last) in enumerate(embedded.places)
            if first < last and first >= start and last <= end
        ]
        for number, token in enumerate(inside):
            tags[token] = INSIDE if number else BEGIN
    return tags
