"""Classes of a labelled file: which are the same in another form, and which perhaps misspelled.

A name that differs in form only may be mended; one that merely resembles another may be its very
opposite, so that only people can say. Knows names and counts only.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from difflib import SequenceMatcher

from detour.measure.metrics import normalised

RARE = 0.05  # of its neighbour's rows, from which a name is no longer a slip of the hand
ALIKE = 0.8  # similarity of two names (Ratcliff and Obershelp 1988)
MANY = 200  # names beyond which similar ones are not looked for
_QUOTES = " \"'„“”‚‘’«»"
# one sign that joins words; between digits it means something: 1-5
_JOINT = re.compile(r"(?<=[^\W\d_])[_-](?=[^\W_])|(?<=\d)[_-](?=[^\W\d_])")


def same_but_form(counts: Mapping[str, int]) -> dict[str, str]:
    """Names to the most frequent one that differs in form only.

    Form are case, white space, quotes around it, a full stop or comma behind it, and `_` or `-` for
    a space between words. Signs that mean something stay: `-1`, `A+`, `?`.
    """
    found: dict[str, str] = {}
    first: dict[str, str] = {}
    for name in sorted(counts, key=lambda name: -counts[name]):
        known = first.setdefault(_bare(name), name)
        if known != name:
            found[name] = known
    return found


def likely_typos(counts: Mapping[str, int]) -> dict[str, str]:
    """Rare names to the frequent one that they resemble by a letter or two.

    Not where one holds the other: `illegal` is no slip of `legal`. What differs in form only is
    `same_but_form`'s.
    """
    forms = same_but_form(counts)
    rows: Counter[str] = Counter()
    for name, count in counts.items():
        rows[forms.get(name, name)] += count
    found: dict[str, str] = {}
    if len(rows) > MANY:
        return found
    frequent_first = [name for name, _ in rows.most_common()]
    for rare in reversed(frequent_first):
        for frequent in frequent_first:
            if frequent == rare or frequent in found:
                continue
            if rows[rare] <= max(1, RARE * rows[frequent]) and _alike(rare, frequent):
                found[rare] = frequent
                break
    return found


def _bare(name: str) -> str:
    told = normalised(name)
    return _JOINT.sub(" ", told.strip(_QUOTES).rstrip(".,;:").strip(_QUOTES)) or told


def _alike(one: str, other: str) -> bool:
    """Numbers are never slips of each other: `1` and `11` are two classes."""
    one, other = _bare(one), _bare(other)
    if any(c.isdigit() for c in one + other) or min(len(one), len(other)) < 4:
        return False
    if one in other or other in one:
        return False
    return SequenceMatcher(None, one, other).ratio() >= ALIKE
