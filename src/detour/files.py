"""Writing files so that a crash or a full disk never leaves half of one.

Everything is written under a temporary name beside its target, flushed to the disk, and renamed.
Knows paths and bytes; knows nothing of adapters or models.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from safetensors import SafetensorError

from detour.errors import StorageError
from detour.language.catalogue import text


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


_CANNOT = (OSError, SafetensorError)
"""How a full disk shows: safetensors has an error of its own for what its writer meets."""


def _storage_error(path: Path, cause: OSError | SafetensorError) -> StorageError:
    return StorageError(
        text("{path} could not be written", path=path),
        expected=text("room and permission to write"),
        found=(cause.strerror if isinstance(cause, OSError) else "") or str(cause),
        hint=text("free some space or choose another folder; nothing was changed"),
    )


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`, or leave it as it was.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    replace_file_atomically(path, lambda stream: stream.buffer.write(data))


def replace_file_atomically(path: Path, fill: Callable[[TextIO], object]) -> None:
    """Write UTF-8 text with `fill` under a temporary name, then put it in place of `path`.

    Raises:
        StorageError: the disk is full or the folder cannot be written; `path` is as it was. What
        `fill` raises passes, with `path` as it was too.
    """

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="\n") as stream:
            fill(stream)

    make_file_atomically(path, write)


def make_file_atomically(path: Path, make: Callable[[Path], object]) -> None:
    """The same for what writes files itself: `make` is given the temporary name.

    Raises: as `replace_file_atomically`.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        make(temporary)
        temporary.chmod(0o644)
        _fsync(temporary)
        temporary.replace(path)
        _fsync(path.parent)
    except _CANNOT as cause:
        raise _storage_error(path, cause) from cause
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """`write_bytes_atomically` for UTF-8 text."""
    write_bytes_atomically(path, text.encode("utf-8"))


def check_writable(folder: Path) -> None:
    """Raise now what writing the folder would raise later; leaves nothing behind.

    Raises:
        StorageError: no folder can be made or replaced there.
    """
    try:
        place = folder.absolute().parent
        while not place.exists():
            place = place.parent
        for probed in (place, folder) if folder.is_dir() else (place,):
            Path(tempfile.mkdtemp(dir=probed, prefix=f".{folder.name}.")).rmdir()
    except OSError as cause:
        raise _storage_error(folder, cause) from cause


def replace_folder_atomically(folder: Path, fill: Callable[[Path], None]) -> None:
    """Build a folder under a temporary name with `fill`, then put it in place of `folder`.

    An existing folder is moved aside first and removed only after the new one stands, so that at
    every moment either the old or the new one is complete.

    Raises:
        StorageError: something could not be written; the old folder is still there.
    """
    temporary = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
        temporary.chmod(0o755)
        fill(temporary)
        for file in sorted(temporary.rglob("*")):
            _fsync(file)
        _fsync(temporary)
        _swap(temporary, folder)
    except _CANNOT as cause:
        raise _storage_error(folder, cause) from cause
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def _swap(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
    else:
        aside = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}.old."))
        old = aside / folder.name
        try:
            folder.rename(old)
            new.rename(folder)
        except BaseException:  # Ctrl-C too
            if old.exists() and not folder.exists():
                old.rename(folder)
            raise
        finally:
            if folder.exists():  # else what lies aside is the only one left
                shutil.rmtree(aside, ignore_errors=True)
    _fsync(folder.parent)
