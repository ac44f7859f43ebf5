"""Passages of text, Markdown, reStructuredText, HTML and PDF files, to go on writing like.

Markup stays as it is written, but for comments and a head of settings; of HTML only what a reader
sees is kept. Knows files and their formats; does not know what is done with the passages.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from detour.data.collect.lengths import Fits
from detour.data.collect.passages import Block, passages
from detour.data.collect.rows import LeftOut, Reader, Row
from detour.data.collect.web_page import blocks_of_page
from detour.data.encodings import UTF8, opened
from detour.errors import DataError, WrongEncoding
from detour.extras import require
from detour.language.catalogue import text
from detour.model.examples import Plain, read_text

SHORTEST = 40  # characters below which a passage teaches nothing
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
SETEXT = re.compile(r" {0,3}(=+|-+)\s*")
UNDERLINE = re.compile(r"([^\w\s])\1+\s*")
RST_COMMENT = re.compile(r"\.\.(?!\s+(\S.*::|\[|_|\|))(\s|$)")
LINE_BY_LINE = ("|", "-", "*", "+")  # tables and lists, by how they begin
Numbered: TypeAlias = list[tuple[int, str]]
"""Lines with their numbers, from 1."""


def reader_of(fits: Fits, encoding: str = UTF8) -> Reader:
    """A reader of documents in an encoding; its passages are as short as told."""

    def is_short(told: str) -> bool:
        return not told or fits(Plain(told))

    def read(path: Path) -> Iterator[Row | LeftOut]:
        try:
            blocks = blocks_of(path, encoding)
        except WrongEncoding:
            yield LeftOut("not_utf8", str(path))
            return
        place = "{path}, page {line}" if path.suffix.lower() == ".pdf" else "{path}:{line}"
        if not blocks:
            yield LeftOut("no_text", str(path))
        for told, line in passages(blocks, is_short):
            source = place.format(path=path, line=line)
            if len(told) < SHORTEST:
                yield LeftOut("tiny", source)
            else:
                yield Row(Plain(told, source))

    return read


def blocks_of(path: Path, encoding: str = UTF8) -> list[Block]:
    """A document's blocks in their order; none where it holds no text.

    Raises:
        WrongEncoding: a text in another encoding. DataError: binary, or no PDF.
        MissingExtra: a PDF file, and no pypdf.
    """
    ending = path.suffix.lower()
    if not path.read_bytes().strip():
        return []
    if ending == ".pdf":
        return _pdf(path)
    told = _told(path, encoding).replace("\r\n", "\n").replace("\r", "\n")
    return _BLOCKS.get(ending, _plain)(unicodedata.normalize("NFC", told))


def _told(path: Path, encoding: str) -> str:
    if encoding == UTF8 or _is_utf8(path):
        return read_text(path, text("such as Markdown"))
    with opened(path, encoding) as stream:
        return stream.read().decode("utf-8")


def _is_utf8(path: Path) -> bool:
    """Whether its bytes can hardly be anything else: those of other encodings beyond ASCII do not
    make UTF-8 by chance, and some encodings make ASCII of everything.
    """
    raw = path.read_bytes()
    if raw.isascii() or raw.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\x00" in raw:
        return False
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


# ---- paragraphs -------------------------------------------------------------------------------


def _plain(told: str) -> list[Block]:
    return list(_paragraphs(_numbered(told)))


def _numbered(told: str) -> Numbered:
    return list(enumerate(told.split("\n"), start=1))


def _paragraphs(lines: Numbered) -> Iterator[Block]:
    """What stands between empty lines."""
    held: Numbered = []
    for number, line in [*lines, (0, "")]:
        if line.strip():
            held.append((number, line))
        elif held:
            yield _block(held, is_verbatim=held[0][1].lstrip()[:1] in LINE_BY_LINE)
            held = []


def _block(
    lines: Sequence[tuple[int, str]], is_heading: bool = False, is_verbatim: bool = False
) -> Block:
    told = "\n".join(line.rstrip() for _, line in lines)
    return Block(told, lines[0][0], is_heading, is_verbatim)


# ---- Markdown ---------------------------------------------------------------------------------


def _markdown(told: str) -> list[Block]:
    """Headings (both ways of writing them), fenced listings, and paragraphs."""
    found: list[Block] = []
    held: Numbered = []
    fence = ""

    def paragraph() -> None:
        found.extend(_paragraphs(held))
        held.clear()

    for number, line in _without_comments(_without_settings(_numbered(told))):
        mark = FENCE.match(line)
        if fence:
            held.append((number, line))
            if mark and mark[1].startswith(fence) and line.strip() == mark[1]:
                found.append(_block(held, is_verbatim=True))
                held.clear()
                fence = ""
        elif mark:
            paragraph()
            held.append((number, line))
            fence = mark[1]
        elif HEADING.match(line):
            paragraph()
            found.append(_block([(number, line)], is_heading=True))
        elif SETEXT.fullmatch(line) and _is_title(held):
            title = held.pop()
            paragraph()
            found.append(_block([title, (number, line)], is_heading=True))
        else:
            held.append((number, line))
    if fence and held:  # nobody closed it
        found.append(_block(held, is_verbatim=True))
    else:
        paragraph()
    return found


def _is_title(held: Numbered) -> bool:
    """Whether the last line can be a heading: one line alone, and no item of a list."""
    alone = len(held) == 1 or (len(held) > 1 and not held[-2][1].strip())
    return bool(held) and alone and bool(re.match(r" {0,3}[^\s>|*+-]", held[-1][1]))


def _without_settings(lines: Numbered) -> Numbered:
    """Without the YAML between two lines of --- at the very beginning."""
    if lines[0][1].rstrip() == "---":
        for place, (_, line) in enumerate(lines[1:], start=1):
            if line.rstrip() in ("---", "..."):
                return lines[place + 1 :]
    return lines


def _without_comments(lines: Numbered) -> Iterator[tuple[int, str]]:
    """Without <!-- comments --> that begin a line, but for those in a fenced listing."""
    fence, is_inside = "", False
    for number, line in lines:
        mark = None if is_inside else FENCE.match(line)
        if mark and (not fence or mark[1].startswith(fence)):
            fence = "" if fence else mark[1]
        begins = not fence and not is_inside and line.lstrip().startswith("<!--")
        if begins or is_inside:
            is_inside = "-->" not in line
        else:
            yield number, line


# ---- reStructuredText -------------------------------------------------------------------------


def _restructured(told: str) -> list[Block]:
    """Titles above (and below) a row of signs, and paragraphs; comments are dropped."""
    found: list[Block] = []
    for block in _paragraphs(list(_uncommented_rst(_numbered(told)))):
        lines = list(enumerate(block.text.split("\n"), start=block.line))
        size = _title_size(lines)
        if size:
            found.append(_block(lines[:size], is_heading=True))
        if lines[size:]:
            found.append(_block(lines[size:], is_verbatim=lines[size][1].startswith(" ")))
    return found


def _title_size(lines: Numbered) -> int:
    """How many lines of a paragraph are its title: none, two, or three with a line above it."""
    told = [line for _, line in lines[:3]]
    over = len(told) == 3 and UNDERLINE.fullmatch(told[0]) and told[0] == told[2]
    if over and len(told[0].rstrip()) >= len(told[1].strip()):
        return 3
    under = len(told) > 1 and UNDERLINE.fullmatch(told[1]) and not UNDERLINE.fullmatch(told[0])
    return 2 if under and len(told[1].rstrip()) >= len(told[0].rstrip()) else 0


def _uncommented_rst(lines: Numbered) -> Iterator[tuple[int, str]]:
    """Without a line that begins with two dots and is no directive, and all indented below it."""
    is_inside = False
    for number, line in lines:
        if RST_COMMENT.match(line):
            is_inside = True
        elif line.strip() and not line[0].isspace():
            is_inside = False
        if not is_inside:
            yield number, line
        elif not line.strip():
            yield number, ""


# ---- PDF --------------------------------------------------------------------------------------


def _pdf(path: Path) -> list[Block]:
    """Paragraphs of all pages, as pypdf reads them; a page's number is the line."""
    pypdf = require("pypdf", "retrieval")
    logging.getLogger("pypdf").setLevel(logging.ERROR)  # it remarks on every odd file
    unreadable = (pypdf.errors.PyPdfError, pypdf.errors.DependencyError, ValueError, KeyError,
                  AttributeError, TypeError)  # fmt: skip
    found: list[Block] = []
    try:
        pages = pypdf.PdfReader(path).pages
        for number, page in enumerate(pages, start=1):
            told = page.extract_text().encode("utf-8", "replace").decode()  # halves of letters
            told = unicodedata.normalize("NFC", told)
            found += [Block(block.text, number) for block in _plain(told)]
    except unreadable as cause:
        raise DataError(
            text("{path} is no PDF file that can be read", path=path),
            expected=text("a whole PDF file, without a password"),
            found=str(cause)[:200],
        ) from cause
    return found


_BLOCKS: Final[Mapping[str, Callable[[str], list[Block]]]] = {
    ".md": _markdown, ".markdown": _markdown, ".rst": _restructured, ".html": blocks_of_page,
    ".htm": blocks_of_page,
}  # fmt: skip
