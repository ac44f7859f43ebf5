"""Rows that say the same: to the letter for all of them, nearly the same for a sample.

Eight bytes a row are kept for exact duplicates, so that a file of any size fits. Knows texts.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from detour.extras import require
from detour.measure.metrics import normalised

NEAR = 0.85  # Jaccard similarity of shingles from which two rows are nearly the same
SHINGLE = 5  # characters
CANDIDATE = 0.7  # estimated similarity from which a pair is checked: sketches err by some .06
PERMUTATIONS = 64


class Digests:
    """A digest of eight bytes for every row, in order; case, white space and Unicode form aside.

    Two different rows share one with a probability of 2⁻⁶⁴ a pair: 10⁻⁷ for two million rows.
    """

    def __init__(self) -> None:
        self._digests = array("Q")

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, told: str) -> None:
        """The next row."""
        digest = blake2b(normalised(told).encode("utf-8", "surrogatepass"), digest_size=8)
        self._digests.append(int.from_bytes(digest.digest(), "little"))

    def repeated(self) -> list[int]:
        """The places of rows that an earlier row already was."""
        values = np.asarray(self._digests, dtype=np.uint64)
        _, first = np.unique(values, return_index=True)
        again = np.ones(len(values), dtype=bool)
        again[first] = False
        return np.flatnonzero(again).tolist()

    def within(self, other: Digests) -> list[int]:
        """The places of rows that are among the other's."""
        values = np.asarray(self._digests, dtype=np.uint64)
        there = np.isin(values, np.asarray(other._digests, dtype=np.uint64))
        return np.flatnonzero(there).tolist()

    def contradicted(self, answers: Digests) -> list[int]:
        """The places of rows whose input an earlier row answers otherwise."""
        inputs = np.asarray(self._digests, dtype=np.uint64)
        told = np.asarray(answers._digests, dtype=np.uint64)
        _, first, group = np.unique(inputs, return_index=True, return_inverse=True)
        return np.flatnonzero(told != told[first[group]]).tolist()


def near_duplicates(texts: Sequence[str], others: Sequence[str] = ()) -> list[tuple[int, int]]:
    """Pairs of places: a text, and the first one before it that is nearly the same.

    With `others` they are compared with these instead of with each other. Candidates come from
    MinHash (Broder 1997) in an LSH index; each pair is then checked by its true Jaccard similarity.
    Equal texts are no near duplicates.

    Raises:
        MissingExtra: datasketch is not installed (the extra `data`).
    """
    sketch = require("datasketch", "data")
    index = sketch.MinHashLSH(threshold=CANDIDATE, num_perm=PERMUTATIONS)
    for place, (_, sketched) in enumerate(_sketches(others)):
        index.insert(place, sketched)
    against = list(others or texts)
    found: list[tuple[int, int]] = []
    for place, (own, sketched) in enumerate(_sketches(texts)):
        for candidate in sorted(index.query(sketched)):
            other = shingles(against[candidate])  # made anew: kept, they take a gigabyte
            if own != other and len(own & other) >= NEAR * len(own | other):
                found.append((place, candidate))
                break
        if not others:
            index.insert(place, sketched)
    return found


def shingles(told: str) -> frozenset[str]:
    """All runs of five characters of a normalised text; a shorter text is one of its own."""
    clean = normalised(told)
    return frozenset(clean[i : i + SHINGLE] for i in range(max(1, len(clean) - SHINGLE + 1)))


def _sketches(texts: Sequence[str]) -> Iterator[tuple[frozenset[str], Any]]:
    """Each text's shingles and their MinHash."""
    sketch = require("datasketch", "data")
    empty = sketch.MinHash(PERMUTATIONS)
    for told in texts:
        own = shingles(told)
        sketched = empty.copy()
        sketched.update_batch([one.encode("utf-8", "surrogatepass") for one in own])
        yield own, sketched
