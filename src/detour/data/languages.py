"""Which language a text is in, by its commonest words: German, English, or told as unknown.

A few dozen words are enough to count how a data set is mixed, not to judge a single short row.
Knows text only.
"""

from __future__ import annotations

import re
from typing import Final

FEWEST = 2  # common words, below which nothing is said
_WORD = re.compile(r"[^\W\d_]+")
_COMMON: Final = {
    "de": """der die das und ist nicht ein eine einen einem einer ich du er sie es wir ihr den dem
        des mit auf für von zu im in sich auch als an nach wie aus bei nur noch über so zum zur vor
        durch wenn war hat haben sind wird werden kann können was wer wo wann warum welche welcher
        welches bitte danke ja nein aber oder dass""",
    "en": """the and is not a an of to in that it for on with as at by this from or are was were be
        been has have had which what who where when why how you he she they we i do does did can
        could will would should please thanks yes no but if about into your their its""",
    "fr": """le la les des et est une un du que qui dans pour pas sur avec ce il elle nous vous je
        tu au aux par plus ne se sont être avoir où quand comment pourquoi""",
    "es": """el la los las y es una un de que en para por con no se su lo como más pero sus le ya o
        fue este ha sí porque esta son entre cuando muy sin sobre ser""",
}
_WORDS: Final = {name: frozenset(told.split()) for name, told in _COMMON.items()}


def language_of(text: str) -> str:
    """`de`, `en`, `fr`, `es`, or `unknown` where too few common words stand there or it is even."""
    words = [word.casefold() for word in _WORD.findall(text[:2000])]
    counts = {name: sum(word in common for word in words) for name, common in _WORDS.items()}
    first, second = sorted(counts.values(), reverse=True)[:2]
    if first < FEWEST or first == second:
        return "unknown"
    return max(counts, key=lambda name: counts[name])
