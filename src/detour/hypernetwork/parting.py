"""What a tagger ran together or overlooked, by what is known: phrases that are two, words that are
one.

A tagger reads sentences as they train. In a sentence that names more than those do it takes two
neighbours for one phrase, or one of them for nothing. Both show beside the known phrases: the
halves of such a phrase are nearer to known ones than the whole is, and the words left over lie near
one. Knows vectors and known phrases; knows no network and no base.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence

from detour.hypernetwork.known import Known, Near
from detour.hypernetwork.tagging import Phrase, stripped
from detour.model.embedder import Embedder

NEAR = 0.75  # cosine to a known phrase from which a piece of text stands for it
MAYBE = 0.65  # from which it is told that it was left out
WINDOW = 8  # words at most of an overlooked phrase
JOINING = frozenset({"and", "und", "but", "aber", "sowie", "yet", "also", "auch"})
_WORD = re.compile(r"\S+")
_CLAUSE = re.compile(r"[^.,;:!?]+")


def parted(embedder: Embedder, known: Known, phrases: Sequence[Phrase]) -> list[list[Phrase]]:
    """Each phrase, or the phrases that it is made of, in their order.

    It is parted where both halves are at least as near to known phrases of different names as the
    whole is to any, and nearer than `NEAR`.
    """
    ways = [list(_halves(phrase.text)) for phrase in phrases]
    told = [text for phrase, own in zip(phrases, ways, strict=True) if own
            for text in (phrase.text, *(half for way in own for half in way))]  # fmt: skip
    if not told:
        return [[phrase] for phrase in phrases]
    best = iter(known.best(embedder.vectors(told)))
    found: list[list[Phrase]] = []
    for phrase, own in zip(phrases, ways, strict=True):
        whole, _ = next(best) if own else (1.0, "")
        chosen, least = None, max(NEAR, whole)
        for way in own:
            (left, one), (right, other) = next(best), next(best)
            if one != other and min(left, right) >= least:
                chosen, least = way, min(left, right)
        if chosen is None:
            found.append([phrase])
        else:
            halves = [Phrase(text, phrase.certainty) for text in chosen]
            found.append([part for each in parted(embedder, known, halves) for part in each])
    return found


def _halves(phrase: str) -> Iterator[tuple[str, str]]:
    """All ways to cut a phrase between two words; what only joins the two is left out."""
    words = list(_WORD.finditer(phrase))
    for before, after in itertools.pairwise(words):
        left, right = stripped(phrase[: before.end()]), stripped(phrase[after.start() :])
        if _is_joint(left.split()[-1:]) or not left or not right:
            continue
        first, *rest = right.split(maxsplit=1)
        yield left, rest[0] if rest and _is_joint([first]) else right


def _is_joint(words: Sequence[str]) -> bool:
    return bool(words) and words[0].casefold() in JOINING


def overlooked(
    embedder: Embedder, known: Known, texts: Sequence[str], found: Sequence[Sequence[Phrase]]
) -> list[list[Near]]:
    """Pieces of each text outside of its phrases that lie near known ones, the nearest first;
    nothing that a phrase is nearest to already, and none of usual words only.

    The text of a `Near` is the piece as it stands there.
    """
    windows = [
        [
            (start, end)
            for start, end in _windows(text, phrases)
            if not known.is_usual(text[start:end])
        ]
        for text, phrases in zip(texts, found, strict=True)
    ]
    told = [phrase.text for phrases in found for phrase in phrases]
    told += [t[start:end] for t, own in zip(texts, windows, strict=True) for start, end in own]
    best = known.best(embedder.vectors(told)) if told else []
    count = sum(map(len, found))
    named, near = iter(best[:count]), iter(best[count:])
    result: list[list[Near]] = []
    for text, phrases, own in zip(texts, found, windows, strict=True):
        there = {name for _ in phrases for _, name in (next(named),)}
        kept: list[Near] = []
        taken: list[tuple[int, int]] = []
        pieces = [(cosine, name, place) for place in own for cosine, name in (next(near),)]
        for cosine, name, (start, end) in sorted(pieces, reverse=True):
            if any(start < other and begun < end for begun, other in taken):
                continue  # what lies nearest has these words
            taken.append((start, end))
            if name not in there:
                there.add(name)
                kept.append(Near(text[start:end], name, cosine))
        result.append(kept)
    return result


def mended(
    embedder: Embedder, known: Known, texts: Sequence[str], found: Sequence[Sequence[Phrase]]
) -> list[tuple[list[Phrase], list[str]]]:
    """The phrases of each text, parted and with those that were overlooked; and the pieces beside
    them that may ask for something, too far from what is known to be taken for it.
    """
    ways = iter(parted(embedder, known, [phrase for phrases in found for phrase in phrases]))
    whole = [[one for _ in phrases for one in next(ways)] for phrases in found]
    result: list[tuple[list[Phrase], list[str]]] = []
    if not known.usual:  # nothing to tell orders from what stands around them
        return [(phrases, []) for phrases in whole]
    more = overlooked(embedder, known, texts, whole)
    for text, phrases, pieces in zip(texts, whole, more, strict=True):
        added = [Phrase(p.text, p.similarity) for p in pieces if p.similarity >= NEAR]
        left = [p.text for p in pieces if MAYBE <= p.similarity < NEAR]
        if phrases:  # in a text without any phrase a stray word is no order
            phrases = sorted([*phrases, *added], key=lambda phrase: text.find(phrase.text))
        result.append((phrases, left))
    return result


def _windows(text: str, phrases: Sequence[Phrase]) -> Iterator[tuple[int, int]]:
    """Up to `WINDOW` words in a row, within a clause, that touch no phrase."""
    covered = [False] * len(text)
    at = 0
    for phrase in phrases:
        start = text.find(phrase.text, at)
        if start >= 0:
            at = start + len(phrase.text)
            covered[start:at] = [True] * len(phrase.text)
    for clause in _CLAUSE.finditer(text):
        words = [m.span() for m in _WORD.finditer(text, *clause.span())]
        for first in range(len(words)):
            for last in range(first, min(first + WINDOW, len(words))):
                start, end = words[first][0], words[last][1]
                if any(covered[start:end]):
                    break
                yield start, end
