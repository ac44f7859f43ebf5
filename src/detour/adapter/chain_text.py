r"""The text form of a chain: `formal:0.8+pun@v2{layers.0-2=0.3}+"a+b":-1`.

    chain    = term { "+" term }
    term     = name [ "@" revision ] [ ":" weight ] [ "{" layer { "," layer } "}" ]
    layer    = "layers." first [ "-" last ] "=" weight
    name     = plain characters, or anything in double quotes (with \" and \\)

Spaces may stand around every part. Knows characters; resolves no names and reads no files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import NoReturn

from detour.errors import ChainError
from detour.language.catalogue import text

_PLAIN = re.compile(r'[^\s+@:{}"\\\x00-\x1f\x7f]+')
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII)
_WORD = re.compile(r"[^\s+{},]*")
_LAYERS = re.compile(r"layers\.(\d+)(?:-(\d+))?", re.ASCII)
_SPACE = re.compile(r"\s*")


@dataclass(frozen=True)
class LayerWeight:
    """Another weight for the decoder layers `first` … `last` (both included, counted from 0).

    Raises:
        ChainError: the layers run backwards or the weight is not finite.
    """

    first: int
    last: int
    weight: float

    def __post_init__(self) -> None:
        check_weight(self.weight)
        if not 0 <= self.first <= self.last:
            raise ChainError(
                text("a range of layers is empty or backwards"),
                expected=text("layers.FIRST-LAST with 0 ≤ FIRST ≤ LAST"),
                found=f"layers.{self.first}-{self.last}",
            )

    def __contains__(self, layer: int) -> bool:
        return self.first <= layer <= self.last


@dataclass(frozen=True)
class TermText:
    """One term as written: nothing is resolved yet."""

    name: str
    revision: str | None = None
    weight: float = 1.0
    layers: tuple[LayerWeight, ...] = ()


def check_weight(weight: float) -> None:
    """Refuse a weight that is not a finite number.

    Raises:
        ChainError: NaN or infinity.
    """
    if not math.isfinite(weight):
        raise ChainError(
            text("a chain's weight is not a finite number"),
            expected=text("a number such as {example}", example=0.8),
            found=str(weight),
        )


def check_layers(layers: Iterable[LayerWeight]) -> None:
    """Refuse ranges that give one layer two weights.

    Raises:
        ChainError: two ranges overlap.
    """
    ranges = sorted(layers, key=lambda item: item.first)
    for earlier, later in pairwise(ranges):
        if later.first <= earlier.last:
            raise ChainError(
                text("layer {layer} of a chain is given two weights", layer=later.first),
                expected=text("ranges of layers that do not overlap"),
                found=f"{_render_layer(earlier)}, {_render_layer(later)}",
            )


def parse(text: str) -> tuple[TermText, ...]:
    """Read a chain's text.

    Raises:
        ChainError: names the column (counted from 1) and marks the place.
    """
    return _Reader(text).chain()


def render(terms: Iterable[TermText]) -> str:
    """Write terms so that `parse` gives them back; weights as short as they stay exact."""
    return "+".join(_render_term(term) for term in terms)


def _render_term(term: TermText) -> str:
    parts = [_quote(term.name)]
    if term.revision is not None:
        parts.append(f"@{_quote(term.revision)}")
    if term.weight != 1.0:
        parts.append(f":{_short(term.weight)}")
    if term.layers:
        parts.append("{" + ",".join(_render_layer(item) for item in term.layers) + "}")
    return "".join(parts)


def _render_layer(item: LayerWeight) -> str:
    last = f"-{item.last}" if item.last != item.first else ""
    return f"layers.{item.first}{last}={_short(item.weight)}"


def _short(number: float) -> str:
    short = f"{number:g}"
    return short if float(short) == number else repr(float(number))


def _quote(name: str) -> str:
    if _PLAIN.fullmatch(name):
        return name
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


class _Reader:
    """Walks once through the text; `at` is the place of the next character."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def chain(self) -> tuple[TermText, ...]:
        terms = [self.term()]
        while self.take("+"):
            terms.append(self.term())
        if self.at < len(self.text):
            self.fail(text("`+` and another adapter, or the end of the text"))
        return tuple(terms)

    def term(self) -> TermText:
        name = self.name(text("the name of an adapter"))
        revision = self.name(text("a revision after `@`")) if self.take("@") else None
        weight = self.weight() if self.take(":") else 1.0
        layers = self.layers() if self.take("{") else ()
        return TermText(name, revision, weight, layers)

    def name(self, wanted: str) -> str:
        self.skip_space()
        quoted = _QUOTED.match(self.text, self.at)
        if quoted:
            self.at = quoted.end()
            return _ESCAPE.sub(r"\1", quoted[1])
        if self.text.startswith('"', self.at):
            self.fail(text('a closing `"`'))
        return self.match(_PLAIN, wanted)[0]

    def weight(self) -> float:
        self.skip_space()
        start = self.at
        number = float(self.match(_NUMBER, text("a finite number such as 0.8 as weight"))[0])
        if not math.isfinite(number):
            self.at = start
            self.fail(text("a weight within the range of a double"))
        return number

    def layers(self) -> tuple[LayerWeight, ...]:
        found = [self.layer()]
        while self.take(","):
            found.append(self.layer())
        if not self.take("}"):
            self.fail(text("`,` and more layers, or `}}`"))
        check_layers(found)
        return tuple(found)

    def layer(self) -> LayerWeight:
        span = self.match(_LAYERS, text("layers.N=WEIGHT or layers.N-M=WEIGHT"))
        if not self.take("="):
            self.fail(text("`=` and the weight of these layers"))
        return LayerWeight(int(span[1]), int(span[2] or span[1]), self.weight())

    def match(self, pattern: re.Pattern[str], wanted: str) -> re.Match[str]:
        self.skip_space()
        match = pattern.match(self.text, self.at)
        if not match:
            self.fail(wanted)
        self.at = match.end()
        return match

    def take(self, character: str) -> bool:
        self.skip_space()
        if not self.text.startswith(character, self.at):
            return False
        self.at += 1
        self.skip_space()
        return True

    def skip_space(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at

    def fail(self, expected: str) -> NoReturn:
        word = _WORD.match(self.text, self.at)
        found = (word[0] if word else "") or self.text[self.at : self.at + 1]
        raise ChainError(
            text("the chain's text cannot be read at column {column}", column=self.at + 1),
            expected=expected,
            found=repr(found) if found else text("the end of the text"),
            hint=text(
                "look where the mark ^ stands: {marked}",
                marked=f"{self.text[: self.at]}^{self.text[self.at :]}",
            ),
        )
