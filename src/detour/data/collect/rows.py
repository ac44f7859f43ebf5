"""What comes out of a file: rows to learn from, and what was left out and why.

Knows records; knows no files and no way to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

from detour.data.clean import row_of
from detour.data.collect.lengths import Fits
from detour.language.catalogue import Text, text
from detour.model.examples import Example, Plain

WHY: Final[Mapping[str, Text]] = {
    "bad": text("rated as bad, and nobody corrected it"),
    "generated": text("a program wrote the file, as its first lines say"),
    "huge": text("a file of more than 1 MB"),
    "in_train": text("a test row whose question stands in train too"),
    "no_conversation": text("no question with an answer in it"),
    "no_text": text("a file without text"),
    "not_prose": text("a comment that is code, a mark for a tool, or a TODO"),
    "not_utf8": text("a file that is not UTF-8; --encoding names its encoding"),
    "repeated": text("the same as an earlier row"),
    "tiny": text("hardly anything to learn from"),
    "too_long": text("longer than --characters or --tokens allows"),
    "unclear": text("a rating that says neither good nor bad"),
    "unparsable": text("a file that Python cannot read"),
    "unrated": text("nobody rated it"),
}
HINTS: Final[Mapping[str, Text]] = {
    "no_conversation": text("name the columns: --column prompt=… --column completion=…"),
    "not_utf8": text("--encoding cp1252 (Windows), or whatever they are in"),
    "too_long": text("a larger number behind --characters or --tokens"),
    "unclear": text("ratings such as up and down, or name their column: --column rating=…"),
    "unrated": text("say where the rating stands: --column rating=…"),
}
"""What to try where that is why nothing is left."""


@dataclass(frozen=True)
class Row:
    """Something to learn, and what it was: `docstring`, `comment`, `good`, ..."""

    record: Example | Plain
    """Its `source` is the file and the line."""
    kind: str = ""

    def to_json(self) -> dict[str, Any]:
        """As it is written: texts as `text`, pairs from code as `prompt` and `completion`."""
        is_code = self.kind in ("docstring", "comment", "reverse")
        told = row_of(self.record, "prompt_completion" if is_code else None)
        source = self.record.source.encode("utf-8", "backslashreplace").decode()  # any file's name
        return {**told, "source": source, **({"kind": self.kind} if self.kind else {})}


@dataclass(frozen=True)
class LeftOut:
    """Something that is not learned; `why` is a key of `WHY`."""

    why: str
    place: str


Reader: TypeAlias = Callable[[Path], Iterator[Row | LeftOut]]
"""All that one file holds, in its order; the same every time."""


def short_enough(reader: Reader, fits: Fits) -> Reader:
    """The same rows; longer ones are left out."""

    def read(path: Path) -> Iterator[Row | LeftOut]:
        for one in reader(path):
            if isinstance(one, Row) and not fits(one.record):
                yield LeftOut("too_long", one.record.source)
            else:
                yield one

    return read
