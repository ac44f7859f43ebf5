"""How phrases are spelled, as vectors: letter n-grams and words, hashed into buckets.

A text encoder that was trained on English cuts other languages into pieces that mean little; how
a word is spelled then says more: "Seeräuberart" shares letters with "Seeräuber". Hashing as in
fastText (Bojanowski et al. 2017, arXiv 1607.04606), without learned vectors. Knows texts only.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from zlib import crc32

import torch
from jaxtyping import Float
from torch import Tensor

LENGTHS = (3, 4, 5)  # letters of an n-gram, the gaps between words included


def spelled(texts: Sequence[str], buckets: int) -> Float[Tensor, "texts buckets"]:
    """The square roots of how often each bucket is hit, of length 1."""
    vectors = torch.zeros(len(texts), buckets)
    for row, told in enumerate(texts):
        counts = Counter(crc32(piece.encode()) % buckets for piece in _pieces(told))
        for bucket, count in counts.items():
            vectors[row, bucket] = count**0.5
    return torch.nn.functional.normalize(vectors, dim=-1)


def _pieces(told: str) -> Iterator[str]:
    padded = f" {told.casefold()} "
    for length in LENGTHS:
        for start in range(len(padded) - length + 1):
            yield padded[start : start + length]
    for word in padded.split():
        yield f"word {word}"
