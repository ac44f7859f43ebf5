"""Files in other encodings than UTF-8, read as UTF-8; and which one a line is probably in.

Nothing is guessed: a file is UTF-8 unless the user names another encoding. Knows bytes; knows no
rows.
"""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from typing import Any, BinaryIO, Final

from detour.errors import ConfigError, WrongEncoding
from detour.language.catalogue import Text, text

UTF8: Final = "utf-8"
CHUNK = 65536  # characters
LIKELY: Final = ("cp1252", "cp850", "mac_roman")  # Windows, its console, and old Macintoshes
AROUND = 12  # characters shown on either side of a byte that is no UTF-8
_LETTERS: Final = frozenset("äöüÄÖÜßàâçèéêëîïôùûñáíóúœ€")


def known_encoding(name: str) -> str:
    """The encoding's name as Python has it.

    Raises:
        ConfigError: there is none of that name, or it is none of text.
    """
    try:
        "a".encode(name)
        found = codecs.lookup(name).name
    except (LookupError, ValueError) as cause:
        raise ConfigError(
            text("there is no encoding {name!r}", name=name),
            expected=text("one of {names}", names="utf-8, utf-16, cp1252, cp850, …"),
        ) from cause
    return UTF8 if found == "utf-8-sig" else found


def opened(path: Path, encoding: str = UTF8) -> BinaryIO:
    """The bytes of a file, in UTF-8 whatever its encoding.

    Raises:
        WrongEncoding: while reading; bytes that the encoding does not have. Not for UTF-8, whose
            bytes are given as they are.
    """
    if encoding == UTF8:
        return path.open("rb")
    return io.BufferedReader(_Recoded(path, encoding), CHUNK)


def likely_encoding(line: bytes) -> tuple[str, str]:
    """The encoding in which most of a line's other signs are letters, and the line in it."""
    found: list[tuple[int, str, str]] = []
    for name in LIKELY:
        try:
            told = line.decode(name)
        except UnicodeDecodeError:
            continue
        strange = [sign for sign in told if not sign.isascii()]
        letters = sum(sign in _LETTERS for sign in strange)
        found.append((2 * letters - len(strange), name, told))
    _, name, told = max(found, key=lambda one: one[0])  # of equals the first; one always decodes
    return name, told


def advised(line: bytes, place: int) -> Text:
    """What to try where the byte at that place of a line is no UTF-8."""
    name, told = likely_encoding(line)
    at = len(line[:place].decode(name, errors="replace"))
    shown = told[max(0, at - AROUND) : at + AROUND].strip()
    return text("--encoding {name}, in which it reads {told!r}", name=name, told=shown)


class _Recoded(io.RawIOBase):
    """A text file of any encoding as a stream of UTF-8, without its byte order mark."""

    def __init__(self, path: Path, encoding: str) -> None:
        super().__init__()
        self._path = path
        self._encoding = encoding
        self._text = path.open(encoding=encoding, newline="")
        self._rest = b""
        self._read = 0

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._read

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever io hands over
        view = memoryview(buffer)
        if not self._rest:
            self._rest = self._next()
        given, self._rest = self._rest[: len(view)], self._rest[len(view) :]
        view[: len(given)] = given
        self._read += len(given)
        return len(given)

    def close(self) -> None:
        self._text.close()
        super().close()

    def _next(self) -> bytes:
        try:
            return self._text.read(CHUNK).encode("utf-8", "surrogatepass")
        except UnicodeError as cause:
            byte = cause.object[cause.start] if isinstance(cause, UnicodeDecodeError) else 0
            raise WrongEncoding(
                text("{path} cannot be read as {encoding}", path=self._path,
                     encoding=self._encoding),
                found=text("byte 0x{byte:02x}", byte=byte),
                hint=text("another encoding, such as {names}", names=", ".join(LIKELY)),
            ) from cause  # fmt: skip
