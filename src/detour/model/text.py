"""From generated ids to text while they come: whole characters only, and stop strings.

Knows a function that decodes ids. Does not know models, tokenizers or requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from detour.errors import RequestError

Decode: TypeAlias = Callable[[Sequence[int]], str]

_BROKEN = "\N{REPLACEMENT CHARACTER}"
_MARGIN = 8  # tokens before the stop string, so that a tokenizer's rule for a first token is past


def stop_strings(stop: str | Sequence[str]) -> tuple[str, ...]:
    """One stop string or several, none of them empty.

    Raises:
        RequestError: an empty one.
    """
    stops = (stop,) if isinstance(stop, str) else tuple(stop)
    if any(not text for text in stops):
        raise RequestError("a stop string is empty", expected="at least one character")
    return stops


def cut(text: str, stops: Sequence[str]) -> str:
    """The text up to the first stop string."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=None)]


class StopText:
    """Asked after every token whether a stop string has appeared.

    Only as many of the newest tokens are decoded as the longest stop string can have: a token that
    adds anything to the text adds at least one byte.
    """

    def __init__(self, decode: Decode, stops: Sequence[str]) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._window = max(len(stop.encode()) for stop in stops) + _MARGIN

    def __call__(self, ids: Sequence[int]) -> bool:
        """Whether the newest tokens complete a stop string."""
        text = self._decode(ids[-self._window :])
        return any(stop in text for stop in self._stops)


class TextStream:
    """Ids in, pieces of text out. The pieces join to `cut(decode(all ids), stops)`.

    Held back: a character whose last bytes are still to come, and the beginning of a stop string.
    """

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._start = 0  # of the window that is decoded again; a character ends before it
        self._read = 0  # ids whose text is in `_text`
        self._text = ""  # decoded, not given out
        self._stopped = False

    def push(self, token: int) -> str:
        """Take one id; what can be given out now, often nothing."""
        self._ids.append(token)
        self._take(final=False)
        return self._give(final=False)

    def finish(self) -> str:
        """No more ids: everything that was held back."""
        self._take(final=True)
        return self._give(final=True)

    def _take(self, final: bool) -> None:
        before = self._decode(self._ids[self._start : self._read])
        now = self._decode(self._ids[self._start :])
        if final or not now.endswith(_BROKEN):
            self._text += now[len(before) :]
            self._start, self._read = self._read, len(self._ids)

    def _give(self, final: bool) -> str:
        if self._stopped:
            return ""
        whole = cut(self._text, self._stops)
        self._stopped = len(whole) < len(self._text)
        held = 0 if final or self._stopped else self._held()
        piece = whole[: len(whole) - held]
        self._text = self._text[len(piece) :]
        return piece

    def _held(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        lengths = (
            length
            for stop in self._stops
            for length in range(1, min(len(stop), len(self._text) + 1))
            if self._text.endswith(stop[:length])
        )
        return max(lengths, default=0)
