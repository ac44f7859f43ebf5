"""Words that turn an order into its opposite: a hypernetwork that learned from orders to do a thing
takes "no capitals" for "capitals".

Knows words in English and German; knows no vectors.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

BEFORE = 4  # words at most between a negation and what it negates
_NEGATION = re.compile(
    r"\b(?:not|never|no|without|avoid|stop|cannot|nor|\w+n['’]t"
    r"|nicht|nie|niemals|kein\w*|ohne|vermeide\w*|weder)\b",
    re.IGNORECASE,
)
_CLAUSE_END = re.compile(r"[.;:!?,]")


def negations(text: str, phrases: Sequence[str], nearest: Sequence[str]) -> tuple[str, ...]:
    """The phrases that are negated, each with its negation, as they stand in the text.

    A negation counts right before a phrase, in the same clause; or inside of it, where the known
    phrase that is nearest (one each) has none.
    """
    found: list[str] = []
    at = 0
    for phrase, known in zip(phrases, nearest, strict=True):
        start = text.find(phrase, at)
        if start < 0:
            continue
        clause = max((m.end() for m in _CLAUSE_END.finditer(text, at, start)), default=at)
        before = list(_NEGATION.finditer(text, clause, start))
        near = before and len(text[before[-1].end() : start].split()) <= BEFORE
        at = start + len(phrase)
        if near:
            found.append(text[before[-1].start() : at])
        elif _NEGATION.search(phrase) and not _NEGATION.search(known):
            found.append(phrase)
    return tuple(found)
