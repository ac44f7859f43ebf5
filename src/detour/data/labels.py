"""Classes of a labelled file: how they are balanced, and which are probably the same misspelled.

Knows names and counts only.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import SequenceMatcher

from detour.measure.metrics import normalised

RARE = 0.05  # of its neighbour's rows, from which a name is no longer a slip of the hand
ALIKE = 0.8  # similarity of two names (Ratcliff and Obershelp 1988)
MANY = 200  # names beyond which similar ones are not looked for


def likely_typos(counts: Mapping[str, int]) -> dict[str, str]:
    """Rare names to the frequent ones that they resemble: other case, spaces, or a wrong letter."""
    found: dict[str, str] = {}
    if len(counts) > MANY:
        return found
    frequent_first = sorted(counts, key=lambda name: -counts[name])
    for rare in reversed(frequent_first):
        for frequent in frequent_first:
            if frequent == rare or counts[frequent] < counts[rare] or frequent in found:
                continue
            if _same_but_form(rare, frequent) or (
                counts[rare] <= max(1, RARE * counts[frequent]) and _alike(rare, frequent)
            ):
                found[rare] = frequent
                break
    return found


def _same_but_form(one: str, other: str) -> bool:
    def bare(name: str) -> str:
        return normalised(name).strip(" .,;:!?-_\"'").replace("_", " ").replace("-", " ")

    return bare(one) == bare(other)


def _alike(one: str, other: str) -> bool:
    """Numbers are never slips of each other: `1` and `11` are two classes."""
    if any(c.isdigit() for c in one + other) or min(len(one), len(other)) < 4:
        return False
    return SequenceMatcher(None, normalised(one), normalised(other)).ratio() >= ALIKE
