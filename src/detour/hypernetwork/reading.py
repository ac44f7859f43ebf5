"""Descriptions to vectors, by the frozen text encoder and, for phrases, a trained tagger.

`Library` holds the vectors of many descriptions, for training; `Reader` reads new texts. Knows the
text encoder and descriptions; knows no layers and no base.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from detour.hypernetwork.config import EncoderName
from detour.hypernetwork.encoder import Described, Tagger
from detour.hypernetwork.spelling import spelled
from detour.hypernetwork.tagging import Phrase, phrases_in
from detour.hypernetwork.tasks import Description
from detour.model.embedder import Embedder

_WORD = re.compile(r"\S+")
TOLD = 0.8  # certainty from which a dropped phrase is told of


class Library:
    """The vectors of many descriptions, each by its number."""

    def __init__(self, table: Float[Tensor, "vectors width"], members: Sequence[list[int]]) -> None:
        none = torch.zeros(1, table.shape[1], dtype=table.dtype)
        self._table = torch.cat([table, none])
        longest = max(map(len, members))
        self._members = torch.full((len(members), longest), len(table))
        for row, own in enumerate(members):
            self._members[row, : len(own)] = torch.tensor(own)
        self._counts = torch.tensor([len(own) for own in members])

    def __len__(self) -> int:
        return len(self._members)

    @staticmethod
    def of(
        embedder: Embedder,
        descriptions: Sequence[Description],
        kind: EncoderName,
        loose: float = 0.0,
        spelling: int = 0,
    ) -> Library:
        """For `spans` the marked phrases of a description count, or the whole of one without.

        That share of the phrases, `loose`, is taken a word or two too long or too short, as a
        tagger sometimes takes them.
        """
        rng = random.Random("loose")
        if kind == "tokens":
            read = embedder.embed([d.text for d in descriptions])
            ends = torch.tensor([len(e.states) for e in read]).cumsum(0).tolist()
            members = [
                list(range(end - len(e.states), end)) for e, end in zip(read, ends, strict=True)
            ]
            return Library(torch.cat([e.states.half() for e in read]), members)
        texts = [
            (phrases_of(d, loose, rng) if kind == "spans" else []) or [d.text] for d in descriptions
        ]
        places: dict[str, int] = {}
        for own in texts:
            for phrase in own:
                places.setdefault(phrase, len(places))
        members = [[places[p] for p in own] for own in texts]
        if kind == "spans":
            vectors = phrase_vectors(embedder, list(places), spelling)[0]
            return Library(vectors.half() if spelling else vectors, members)  # they are long then
        return Library(embedder.vectors(list(places)), members)

    def picked(self, numbers: Sequence[int]) -> Described:
        """Some descriptions, side by side."""
        index = torch.tensor(numbers)
        counts = self._counts[index]
        longest = int(counts.max())
        vectors = self._table[self._members[index, :longest]].float()
        return Described(vectors, torch.arange(longest) < counts[:, None])


def phrase_vectors(
    embedder: Embedder, phrases: Sequence[str], spelling: int
) -> tuple[Float[Tensor, "phrases width"], Float[Tensor, "phrases meaning"]]:
    """Phrases as a network reads them, and what they mean alone.

    With `spelling` buckets, beside the meaning: the bag of its tokens, and its spelling.
    """
    embedded = embedder.embed(phrases)
    meanings = torch.stack([e.vector for e in embedded])
    if not spelling:
        return meanings, meanings
    bags = torch.stack([e.bag for e in embedded])
    return torch.cat([meanings, bags, spelled(phrases, spelling)], -1), meanings


def phrases_of(description: Description, loose: float, rng: random.Random) -> list[str]:
    """The marked phrases; a share of them with one or two words of what stands around, or less."""
    found: list[str] = []
    for start, end in description.spans():
        before = [match.start() for match in _WORD.finditer(description.text, 0, start)]
        after = [match.end() for match in _WORD.finditer(description.text, end)]
        inside = [match.span() for match in _WORD.finditer(description.text, start, end)]
        if rng.random() < loose:
            more = rng.choice((1, 1, 2))
            change = rng.choice(("before", "after", "less before", "less after"))
            if change == "before" and len(before) >= more:
                start = before[-more]
            elif change == "after" and len(after) >= more:
                end = after[more - 1]
            elif change == "less before" and len(inside) > 3:
                start = inside[1][0]
            elif change == "less after" and len(inside) > 3:
                end = inside[-2][1]
        found.append(description.text[start:end])
    return found


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read in one text."""

    text: str
    phrases: tuple[Phrase, ...]
    vectors: Float[Tensor, "parts width"]
    """As the network reads them."""
    meanings: Float[Tensor, "parts meaning"]
    """As the text encoder has them, for comparing; of a whole description one."""
    ignored: tuple[str, ...] = ()
    """Phrases beside them that were dropped, of which the tagger was rather sure."""
    left: tuple[str, ...] = ()
    """Other pieces of the text that lie near something known, but not near enough."""


Mend = Callable[
    [Sequence[str], Sequence[Sequence[Phrase]]], Sequence[tuple[list[Phrase], list[str]]]
]
"""Texts and their phrases to better phrases, and to what is left out."""


class Reader:
    """New texts to vectors as a network of this kind wants them."""

    def __init__(
        self, embedder: Embedder, kind: EncoderName, tagger: Tagger | None, spelling: int = 0
    ) -> None:
        self.embedder = embedder
        self.kind = kind
        self.tagger = tagger
        self.spelling = spelling

    def read(
        self,
        texts: Sequence[str],
        is_stray: Callable[[str, Tensor], bool] | None = None,
        mended: Mend | None = None,
    ) -> list[Reading]:
        """One reading a text; with phrases, a text in which none is found has no vector at all.

        Beside others, a phrase that `is_stray` (its text, its vector) is dropped. `mended` says
        what the tagger should have found, and what is left out.
        """
        embedded = self.embedder.embed(texts)
        if self.tagger is None:
            return [
                Reading(
                    t,
                    (Phrase(t, 1.0),),
                    e.vector[None] if self.kind == "mean" else e.states,
                    e.vector[None],
                )
                for t, e in zip(texts, embedded, strict=True)
            ]
        found = [phrases_in(self.tagger, t, e) for t, e in zip(texts, embedded, strict=True)]
        left: list[list[str]] = [[] for _ in texts]
        if mended is not None:
            pairs = mended(texts, found)
            found, left = [phrases for phrases, _ in pairs], [out for _, out in pairs]
        every = [phrase.text for phrases in found for phrase in phrases]
        none = torch.zeros(0, self.embedder.width)
        vectors, meanings = (
            phrase_vectors(self.embedder, every, self.spelling) if every else (none, none)
        )
        readings: list[Reading] = []
        start = 0
        for t, phrases, out in zip(texts, found, left, strict=True):
            places = list(range(start, start + len(phrases)))
            start += len(phrases)
            stray = [
                is_stray is not None and is_stray(phrase.text, meanings[place])
                for phrase, place in zip(phrases, places, strict=True)
            ]
            if all(stray):
                stray = [False] * len(phrases)
            kept = [place for place, is_out in zip(places, stray, strict=True) if not is_out]
            ignored = [
                phrase.text
                for phrase, is_out in zip(phrases, stray, strict=True)
                if is_out and phrase.certainty >= TOLD
            ]
            own = tuple(p for p, is_out in zip(phrases, stray, strict=True) if not is_out)
            readings.append(
                Reading(t, own, vectors[kept], meanings[kept], tuple(ignored), tuple(out))
            )
        return readings
