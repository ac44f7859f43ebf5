"""What a reader sees of a web page, as blocks: headings, paragraphs, items, listings, rows.

Navigation, fields of forms and what only machines read are passed over. Knows HTML by the
standard library's parser; fetches nothing.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Final

from detour.data.collect.passages import Block

HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
BLOCKS: Final = HEADINGS | {
    "address", "article", "blockquote", "body", "caption", "dd", "details", "div", "dl", "dt",
    "fieldset", "figcaption", "figure", "header", "hr", "li", "main", "ol", "p", "pre", "section",
    "summary", "table", "tbody", "thead", "tfoot", "tr", "ul",
}  # fmt: skip
UNSEEN: Final = frozenset({
    "aside", "button", "footer", "head", "iframe", "nav", "noscript", "object", "script",
    "select", "style", "svg", "template", "textarea", "title",
})  # fmt: skip
CELLS: Final = frozenset({"td", "th"})


def blocks_of_page(told: str) -> list[Block]:
    """The blocks of an HTML page, each with the line on which its text begins."""
    page = _Page(convert_charrefs=True)
    page.feed(told)
    page.close()
    page.end_block()
    return page.found


class _Page(HTMLParser):
    """Gathers text until a block begins or ends."""

    def __init__(self, *, convert_charrefs: bool) -> None:
        super().__init__(convert_charrefs=convert_charrefs)
        self.found: list[Block] = []
        self._text: list[str] = []
        self._line = 0
        self._heading = False
        self._listing = 0
        self._unseen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A block begins, a line ends, or something begins that nobody sees."""
        if tag in UNSEEN:
            self._unseen.append(tag)
        elif tag in ("body", "main"):  # whatever nobody closed before
            self._unseen.clear()
        if tag in BLOCKS:
            self.end_block()
            self._heading = tag in HEADINGS
            self._listing += tag == "pre"
        elif tag == "br":
            self._text.append("\n")
        elif tag in CELLS and "".join(self._text).strip():
            self._text.append(" | ")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """As in XHTML: an element without an end encloses nothing."""
        if tag not in UNSEEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """The end of a block, or of what nobody sees."""
        if tag in self._unseen:
            del self._unseen[self._unseen.index(tag) :]
        elif tag in BLOCKS:
            self.end_block()
            self._heading = False
            self._listing = max(0, self._listing - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        """Text; outside of a listing every run of white space is one space."""
        if self._unseen:
            return
        if not self._line and data.strip():
            blank = data[: len(data) - len(data.lstrip())]
            self._line = self.getpos()[0] + blank.count("\n")
        self._text.append(data if self._listing else re.sub(r"\s+", " ", data))

    def end_block(self) -> None:
        """Keep what was gathered."""
        told = "".join(self._text)
        if self._listing:
            told = told.strip("\n").rstrip()
        else:
            told = re.sub(r" *\n *", "\n", re.sub(r" {2,}", " ", told)).strip()
        if told:
            self.found.append(Block(told, self._line, self._heading, self._listing > 0))
        self._text, self._line = [], 0
