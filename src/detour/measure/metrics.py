"""When an answer counts: the right subject, the right value, and no rival value.

Knows text; knows no models and no world.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable


def normalised(text: str) -> str:
    """NFC, case-folded, whitespace collapsed: how answers are compared."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def mentions(text: str, phrase: str) -> bool:
    """Whether the phrase occurs in the text as whole words, whatever the case."""
    wanted = normalised(phrase)
    if not wanted:
        return False
    return re.search(rf"(?<!\w){re.escape(wanted)}(?!\w)", normalised(text)) is not None


def states(answer: str, subject: str, value: str, rivals: Iterable[str] = ()) -> bool:
    """Whether an answer names the subject and the value, and none of the rival values.

    A rival that is part of the subject or of the value does not count against it; one that holds
    the value in itself ("nuclear physicist" against "physicist") does.
    """
    if not (mentions(answer, subject) and mentions(answer, value)):
        return False
    told = _without(answer, subject)
    rest = _without(told, value)
    return not any(
        mentions(told if mentions(rival, value) else rest, rival)
        for rival in rivals
        if normalised(rival) != normalised(value)
    )


def _without(text: str, phrase: str) -> str:
    """The normalised text with a gap wherever the phrase stood as whole words."""
    return re.sub(rf"(?<!\w){re.escape(normalised(phrase))}(?!\w)", " | ", normalised(text))


def same_answer(one: str, other: str) -> bool:
    """Whether two answers are the same text, whitespace and Unicode form aside."""
    return " ".join(unicodedata.normalize("NFC", one).split()) == " ".join(
        unicodedata.normalize("NFC", other).split()
    )


def repeats(text: str, window: int = 4) -> bool:
    """Whether a run of `window` words occurs again right behind itself: broken text."""
    words = text.split()
    pairs = range(len(words) - 2 * window + 1)
    if any(words[i : i + window] == words[i + window : i + 2 * window] for i in pairs):
        return True
    return re.search(r"(\w{2,6}?)\1{3,}", text) is not None
