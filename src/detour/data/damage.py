"""Texts that were read in the wrong encoding once: "Ã¶" for "ö", and signs that stand for nothing.

UTF-8 that was read as Windows-1252 or Latin-1 is undone sequence by sequence, so that it is found
beside an arrow or an emoji too. Knows text only.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

REPLACEMENT = "\ufffd"


def _shown(byte: int) -> str:
    """A byte in Windows-1252; five stand for nothing and become control characters (WHATWG)."""
    try:
        return bytes([byte]).decode("windows-1252")
    except UnicodeDecodeError:
        return chr(byte)


_BYTES: Final = {chr(byte): byte for byte in range(0x80, 0x100)} | {
    _shown(byte): byte for byte in range(0x80, 0x100)
}


def _among(first: int, last: int) -> str:
    """A character class of all signs that a byte from `first` to `last` may have become."""
    return "[" + "".join(sign for sign, byte in _BYTES.items() if first <= byte <= last) + "]"


_NEXT: Final = _among(0x80, 0xBF)
_SEQUENCE = re.compile(
    f"{_among(0xC2, 0xDF)}{_NEXT}|{_among(0xE0, 0xEF)}{_NEXT}{{2}}|{_among(0xF0, 0xF4)}{_NEXT}{{3}}"
)
_PUNCTUATION = "‚„…‹›‘’“”•–—«»"


def is_damaged(text: str) -> bool:
    """Whether it holds a replacement character, or letters that only a wrong decoding makes."""
    return REPLACEMENT in text or repaired(text) != text


def repaired(text: str) -> str:
    """The text as it was meant, where a wrong decoding is certain; else as it is.

    If one wrong decoding explains every sign beyond ASCII, all are undone; else those only that
    nothing but a wrong decoding makes.
    """
    if text.isascii():
        return text
    found = [(one, meant) for one in _SEQUENCE.finditer(text) if (meant := _meant(one[0]))]
    sure = [(one, meant) for one, meant in found if _is_sure(text, one)]
    if not sure:
        return text
    explained = sum(len(one[0]) for one, _ in found)
    everything = explained == sum(not sign.isascii() for sign in text)
    parts: list[str] = []
    place = 0
    for one, meant in found if everything else sure:
        parts += [text[place : one.start()], meant]
        place = one.end()
    return "".join((*parts, text[place:]))


def _meant(sequence: str) -> str:
    """The character that these signs were in UTF-8; nothing if they were none."""
    try:
        told = bytes(_BYTES[sign] for sign in sequence).decode("utf-8")
    except UnicodeDecodeError:
        return ""
    return "" if unicodedata.category(told) == "Cc" else told


def _is_sure(text: str, one: re.Match[str]) -> bool:
    """Whether no text that was read rightly has these signs there.

    No word ends with a small â or ð before two or three such signs, and none is a mere Â or Ã. But
    capital Â, Ã, Ä, Å before a quote or a dash may end a word (Danish „PÅ“), Å is a unit (Å²), and
    a hard space may stand behind any of them.
    """
    lead, sign = one[0][0], one[0][1]
    if lead not in "ÂÃÄÅ":
        return lead in "âð"
    before, after = text[max(0, one.start() - 1) : one.start()], text[one.end() : one.end() + 1]
    if before.islower() or "\x80" <= sign <= "\x9f":
        return True
    if sign == "\xa0":
        return lead in "ÂÃ" and not before.isupper()
    if sign in _PUNCTUATION:
        return after.isalpha() or (lead in "ÂÃ" and not before.isalpha())
    return lead in "ÂÃ" or after.isalpha()
