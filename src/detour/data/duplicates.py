"""Rows that say the same: to the letter for all of them, nearly the same for a sample.

Eight bytes a row are kept for exact duplicates, so that a file of any size fits. Knows texts.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import blake2b

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
    known = [shingles(one) for one in others]
    for place, sketched in enumerate(_sketches(known)):
        index.insert(place, sketched)
    found: list[tuple[int, int]] = []
    own = [shingles(one) for one in texts]
    for place, sketched in enumerate(_sketches(own)):
        against = known if others else own
        for candidate in sorted(index.query(sketched)):
            if _jaccard(own[place], against[candidate]) >= NEAR and (
                own[place] != against[candidate]
            ):
                found.append((place, candidate))
                break
        if not others:
            index.insert(place, sketched)
    return found


def shingles(told: str) -> frozenset[str]:
    """All runs of five characters of a normalised text; a shorter text is one of its own."""
    clean = normalised(told)
    return frozenset(clean[i : i + SHINGLE] for i in range(max(1, len(clean) - SHINGLE + 1)))


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def _sketches(sets: Sequence[frozenset[str]]):  # noqa: ANN202 - datasketch has no types
    sketch = require("datasketch", "data")
    return sketch.MinHash.generator(
        ([s.encode("utf-8", "surrogatepass") for s in one] for one in sets), num_perm=PERMUTATIONS
    )
