"""Rows that say the same: to the letter for all of them, nearly the same for a sample.

Eight bytes a row are kept for exact duplicates, so that a file of any size fits. Knows texts.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import Any

import numpy as np

from detour.extras import require
from detour.measure.metrics import normalised

NEAR = 0.85  # Jaccard similarity of shingles from which two rows are nearly the same
SHINGLE = 5  # characters
CANDIDATE = 0.7  # estimated similarity from which a pair is checked: sketches err by some .06
PERMUTATIONS = 64
TOLD = 500  # texts from which is told what most of them share
SHARED = 10  # texts at least of which it can be told
RUN = 24  # shingles in a row that make a shared passage; a shorter one is a common word
LEAST = 10  # shingles of its own that a text needs for what is shared to be left aside


def digest(told: str) -> bytes:
    """Eight bytes that say which text it is; case, white space and Unicode form aside."""
    return blake2b(normalised(told).encode("utf-8", "surrogatepass"), digest_size=8).digest()


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
        self._digests.append(int.from_bytes(digest(told), "little"))

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


class Near:
    """Texts, and which of them another text nearly is.

    Candidates come from MinHash (Broder 1997) in an LSH index; each is then checked by its true
    Jaccard similarity. Equal texts are no near duplicates. With answers these must be alike, too:
    one passage with two questions, or a text whose "not" changes its class, is no repetition. What
    most rows share, a system message or an instruction, says nothing about two of them: long runs
    of the shingles `aside` do not count.

    Raises:
        MissingExtra: datasketch is not installed (the extra `data`).
    """

    def __init__(self, texts: Iterable[str] = (), aside: frozenset[str] = frozenset()) -> None:
        self._aside = aside
        sketch = require("datasketch", "data")
        self._index = sketch.MinHashLSH(threshold=CANDIDATE, num_perm=PERMUTATIONS)
        self._empty = sketch.MinHash(PERMUTATIONS)
        self._texts: list[tuple[str, str]] = []
        for told in texts:
            self._keep(told, "", self._sketch(self._own(told)))

    def __len__(self) -> int:
        return len(self._texts)

    def like(self, told: str, answer: str = "", keep: bool = False) -> int | None:
        """The place of the first text that this one nearly is, or nothing; then `keep` adds it."""
        own = self._own(told)
        sketched = self._sketch(own)
        places = sorted(self._index.query(sketched))
        found = next((n for n in places if self._near(own, answer, n)), None)
        if keep and found is None:
            self._keep(told, answer, sketched)
        return found

    def add(self, told: str, answer: str = "") -> None:
        """Keep this one too, whatever it resembles."""
        self._keep(told, answer, self._sketch(self._own(told)))

    def _near(self, own: frozenset[str], answer: str, place: int) -> bool:
        text, answered = self._texts[place]
        other = self._own(text)  # made anew: kept, they take a gigabyte
        same = own == other, normalised(answer) == normalised(answered)
        if all(same):
            return False
        asked_alike = same[0] or _jaccard(own, other) >= NEAR
        return asked_alike and (same[1] or _jaccard(shingles(answer), shingles(answered)) >= NEAR)

    def _own(self, told: str) -> frozenset[str]:
        """A text's shingles but for long runs that are shared, unless hardly one would be left."""
        every = _runs(told)
        if not self._aside:
            return frozenset(every)
        own: set[str] = set()
        for is_shared, run in groupby(every, self._aside.__contains__):
            told_here = list(run)
            if not is_shared or len(told_here) < RUN:
                own.update(told_here)
        return frozenset(own if len(own) >= LEAST else every)

    def _keep(self, told: str, answer: str, sketched: Any) -> None:  # noqa: ANN401 - datasketch's MinHash
        self._index.insert(len(self._texts), sketched)
        self._texts.append((told, answer))

    def _sketch(self, own: frozenset[str]) -> Any:  # noqa: ANN401
        sketched = self._empty.copy()
        sketched.update_batch([one.encode("utf-8", "surrogatepass") for one in own])
        return sketched


def near_duplicates(
    rows: Sequence[tuple[str, str]], aside: frozenset[str] = frozenset()
) -> list[tuple[int, int]]:
    """Pairs of places: a text with its answer, and the first one before it that it nearly repeats
    and that repeats no other. Raises as `Near`.
    """
    near = Near(aside=aside)
    kept: list[int] = []
    found: list[tuple[int, int]] = []
    for place, (told, answer) in enumerate(rows):
        other = near.like(told, answer, keep=True)
        if other is None:
            kept.append(place)
        else:
            found.append((place, kept[other]))
    return found


def near_others(
    texts: Sequence[str], others: Sequence[str], aside: frozenset[str] = frozenset()
) -> list[int]:
    """The places of texts that one of the others nearly is. Raises as `Near`."""
    near = Near(others, aside)
    return [place for place, told in enumerate(texts) if near.like(told) is not None]


def _jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / len(one | other)


def shared(texts: Sequence[str]) -> frozenset[str]:
    """The shingles of more than half of some texts; of few texts none."""
    some = texts[:: -(-len(texts) // TOLD) or 1]
    if len(some) < SHARED:
        return frozenset()
    counts = Counter(one for told in some for one in shingles(told))
    return frozenset(one for one, count in counts.items() if 2 * count > len(some))


def shingles(told: str) -> frozenset[str]:
    """All runs of five characters of a normalised text; a shorter text is one of its own."""
    return frozenset(_runs(told))


def _runs(told: str) -> list[str]:
    clean = normalised(told)
    return [clean[i : i + SHINGLE] for i in range(max(1, len(clean) - SHINGLE + 1))]
