"""Texts that were read in the wrong encoding once: "Ã¶" for "ö", and signs that stand for nothing.

Knows text only.
"""

from __future__ import annotations

import re

REPLACEMENT = "\ufffd"
# UTF-8 of Latin letters and of typographic signs, read as Windows-1252 or Latin-1
_SECOND = (
    "\u0080-\u00bf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6\u02dc"
    "\u2013-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122"
)
_SIGNS = re.compile(f"[ÂÃÄÅ][{_SECOND}]|â€|â\x80")


def is_damaged(text: str) -> bool:
    """Whether it holds a replacement character, or letters that only a wrong decoding makes."""
    return REPLACEMENT in text or (_SIGNS.search(text) is not None and repaired(text) != text)


def repaired(text: str) -> str:
    """The text as it was meant, where one wrong decoding explains it; else as it is."""
    if _SIGNS.search(text) is None:
        return text
    for encoding in ("windows-1252", "latin-1"):
        try:
            return text.encode(encoding).decode("utf-8")
        except (UnicodeEncodeError, UnicodeDecodeError):
            continue
    return text
