"""A document's blocks as passages of a certain length, cut where it hurts least.

Between sections first, then between paragraphs, sentences or lines, words, and letters at last. No
letter is lost, and no heading ends a passage. Knows blocks of text; knows no formats and no tokens.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

SENTENCES = re.compile(r".+?(?:(?<=[.!?…])\s+|\Z)", re.DOTALL)
LINES = re.compile(r"[^\n]*\n|[^\n]+\Z")
WORDS = re.compile(r"\s*\S+\s*")


@dataclass(frozen=True)
class Block:
    """A heading, a paragraph, a list, a listing: what stands between empty lines."""

    text: str
    line: int
    """The line on which it begins; in a PDF file the page."""
    is_heading: bool = False
    is_verbatim: bool = False
    """Lines matter: code, tables."""


Short: TypeAlias = Callable[[str], bool]
"""Whether a text is short enough for one passage."""


def passages(blocks: Sequence[Block], is_short: Short) -> Iterator[tuple[str, int]]:
    """Texts that are short enough, each with the line on which it begins.

    A section that fits is never divided; short sections share a passage. `is_short` must hold for
    every single letter.
    """
    units: list[list[Block]] = []
    for section in _sections(blocks):
        units += [section] if is_short(_joined(section)) else _divided(section, is_short)
    for blocks_ in _packed(units, is_short):
        yield _joined(blocks_).strip("\n"), blocks_[0].line


def _joined(blocks: Sequence[Block]) -> str:
    return "\n\n".join(block.text for block in blocks)


def _sections(blocks: Sequence[Block]) -> list[list[Block]]:
    """Each heading begins one; a heading right below another belongs to the same."""
    found: list[list[Block]] = []
    for block in blocks:
        is_new = block.is_heading and not (found and found[-1][-1].is_heading)
        if is_new or not found:
            found.append([])
        found[-1].append(block)
    return found


def _divided(section: Sequence[Block], is_short: Short) -> list[list[Block]]:
    """A section that is too long: runs of its paragraphs, a heading with what follows it."""
    units: list[list[Block]] = []
    for block in (piece for long in section for piece in _pieces(long, is_short)):
        glued = units and units[-1][-1].is_heading and is_short(_joined([*units[-1], block]))
        if glued:
            units[-1].append(block)
        else:
            units.append([block])
    return _packed(units, is_short)


def _packed(units: Sequence[list[Block]], is_short: Short) -> list[list[Block]]:
    """As many neighbours together as are short enough."""
    found: list[list[Block]] = []
    for unit in units:
        if found and is_short(_joined([*found[-1], *unit])):
            found[-1] = [*found[-1], *unit]
        else:
            found.append(list(unit))
    return found


def _pieces(block: Block, is_short: Short) -> Iterator[Block]:
    """The block itself, or short parts of it."""
    if is_short(block.text):
        yield block
        return
    line = block.line
    for part in _parts(block.text, is_short, block.is_verbatim):
        if part.strip():
            yield Block(part.rstrip(), line, block.is_heading, block.is_verbatim)
        line += part.count("\n")


def _parts(text: str, is_short: Short, is_verbatim: bool) -> list[str]:
    """Texts that together are this one, each of them short once the space at its end is cut."""
    if is_short(text.rstrip()):
        return [text]
    found: list[str] = []
    for part in _split(text, is_verbatim):
        for small in _parts(part, is_short, is_verbatim):
            if found and is_short((found[-1] + small).rstrip()):
                found[-1] += small
            else:
                found.append(small)
    return found


def _split(text: str, is_verbatim: bool) -> list[str]:
    """Two parts or more, of the largest kind of which the text has several."""
    kinds = (LINES, SENTENCES, WORDS) if is_verbatim else (SENTENCES, LINES, WORDS)
    for kind in kinds:
        parts = kind.findall(text)
        if len(parts) > 1:
            return parts
    return [text[: len(text) // 2], text[len(text) // 2 :]]
