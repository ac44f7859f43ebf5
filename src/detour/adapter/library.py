"""The shelf of adapters: folders in which names are looked up.

A name is one plain folder name, or a flat file's without its ending; whatever could lead out of a
library's folders is refused. Only `org/name[@revision]` is fetched, from the Hugging Face Hub, and
only where paths are allowed. Knows folders; knows no model.
"""

from __future__ import annotations

import difflib
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from detour.adapter.adapter import Adapter
from detour.adapter.flat import SUFFIX
from detour.adapter.hub import fetch, is_hub_name, is_there
from detour.adapter.peft_config import CONFIG_FILE
from detour.errors import AdapterError, ChainError, StorageError, UnknownAdapter
from detour.language.catalogue import text

_STARTER = Path(__file__).parents[1] / "starter" / "adapters"


@dataclass(frozen=True)
class Entry:
    """One adapter of a library. `error` says why it cannot be used, and is empty if it can."""

    name: str
    path: Path
    base: str = ""
    rank: int = 0
    parameters: int = 0
    fictional: bool = False
    bytes: int = 0
    error: str = ""


@dataclass(frozen=True)
class Library:
    """Folders of adapters; an earlier folder hides equal names in later ones.

    Attributes:
        folders: searched in this order; the first one is the writable one.
        names_only: refuse paths; for names that come from elsewhere, such as requests.
    """

    folders: tuple[Path, ...]
    names_only: bool = False

    @staticmethod
    def default() -> Library:
        """$DETOUR_HOME/adapters (else ~/.detour/adapters), then the adapters that ship."""
        home = Path(os.environ.get("DETOUR_HOME") or Path.home() / ".detour")
        return Library((home / "adapters", _STARTER))

    @staticmethod
    def packaged() -> Library:
        """The adapters that ship, whatever a user's own are called."""
        return Library((_STARTER,))

    def resolve(self, name: str, revision: str | None = None) -> Path:
        """The folder of an adapter.

        Args:
            name: a name in the library, a path (it holds a separator or starts with a dot), the
                name of an adapter folder right here, or `org/name` on the Hugging Face Hub.
            revision: only adapters from the Hub have one.

        Raises:
            UnknownAdapter: nothing of that name, or a name that would leave the library.
            ChainError: a revision was given.
        """
        identity, _, written = name.partition("@")  # in quotes a revision is part of the name
        if not self.names_only and not is_there(name) and is_hub_name(identity):
            return fetch(identity, revision or written or None)
        path = self._resolve(name)
        if revision is not None:
            raise ChainError(
                text("{name} is a local folder and has no revision", name=name),
                expected=text("{name} without @{revision}", name=name, revision=revision),
                found=f"{name}@{revision}",
                hint=text("only org/name on the Hugging Face Hub has revisions"),
            )
        return path

    def load(self, name: str, revision: str | None = None) -> Adapter:
        """`resolve` and read. Raises AdapterError's kinds besides."""
        path = self.resolve(name, revision)
        adapter = Adapter.load(path)
        is_fetched = path.name != name and is_hub_name(name.partition("@")[0])
        return adapter.with_(name=name) if is_fetched else adapter

    def list(self) -> list[Entry]:
        """Every adapter by name; one that cannot be read is listed with its error."""
        folders = {
            _name(path): path for shelf in reversed(self.folders) for path in _adapters(shelf)
        }
        return [self._entry(name, folders[name]) for name in sorted(folders)]

    def remove(self, name: str) -> None:
        """Delete an adapter from the first folder.

        Raises:
            UnknownAdapter: not there, not a plain name, or one that ships with Detour.
            StorageError: the folder may not be changed.
        """
        _delete(self.removable(name))

    def removable(self, name: str) -> Path:
        """The folder that `remove` would delete. Raises UnknownAdapter as it does."""
        _check_name(name)
        path = next((p for p in _places(self.folders[0], name) if not p.is_symlink()), None)
        if path is None:
            if any(_places(shelf, name) for shelf in self.folders[1:]):
                raise UnknownAdapter(
                    text("{name} cannot be removed", name=name),
                    expected=text("an adapter in {folder}", folder=self.folders[0]),
                    found=text("one that is read only"),
                )
            raise self._unknown(name)
        return path

    def _resolve(self, name: str) -> Path:
        if not self.names_only and _is_path(name):
            if not Path(name).is_dir() and not _is_flat(Path(name)):
                raise UnknownAdapter(
                    text("there is no adapter folder {name!r}", name=name),
                    expected=text("an existing folder, or a name without separators"),
                    found=text("no such folder"),
                    hint=text("check the path"),
                )
            return Path(name)
        _check_name(name)
        for shelf in self.folders:
            for path in _places(shelf, name):
                _check_inside(path, shelf)
                return path
        here = Path(name)
        if not self.names_only and ((here / CONFIG_FILE).is_file() or _is_flat(here)):
            return here
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownAdapter:
        names = sorted({_name(path) for shelf in self.folders for path in _adapters(shelf)})
        close = difflib.get_close_matches(name, names, n=3)
        return UnknownAdapter(
            text("there is no adapter {name!r}", name=name),
            expected=text("one of {names}", names=", ".join(names[:20]))
            if names
            else text("an adapter's folder"),
            found=""
            if names
            else text("none in {names}", names=", ".join(str(shelf) for shelf in self.folders)),
            hint=text("did you mean {close}?", close=", ".join(close)) if close else "detour list",
        )

    def _entry(self, name: str, path: Path) -> Entry:
        size = _size(path)
        try:
            _check_inside(path, path.parent)
            adapter = Adapter.load(path)
        except AdapterError as broken:
            return Entry(name, path, bytes=size, error=str(broken))
        unverified = f"{adapter.card.base_model} (unverified)" if adapter.card.base_model else ""
        return Entry(
            name=name,
            path=path,
            base=adapter.base.short if adapter.base else unverified,
            rank=adapter.rank,
            parameters=adapter.parameters,
            fictional=adapter.card.fictional,
            bytes=size,
        )


def _is_path(name: str) -> bool:
    return "\0" not in name and (name.startswith(".") or "/" in name or os.sep in name)


def _check_name(name: str) -> None:
    is_plain = name.isprintable() and not name.startswith(".") and not set(name) & {"/", "\\"}
    if not name or not is_plain or len(os.fsencode(name)) > 255:
        raise UnknownAdapter(
            text("{name!r} is not an adapter's name", name=name[:80]),
            expected=text("one folder name: no separators, no leading dot, at most 255 bytes"),
        )


def _check_inside(path: Path, shelf: Path) -> None:
    if not path.resolve().is_relative_to(shelf.resolve()):
        raise UnknownAdapter(
            text("{path} leads out of its library", path=path.name),
            expected=text("a folder inside {shelf}", shelf=shelf),
            found=text("a link to {target}", target=path.resolve()),
            hint=text("copy the adapter into the library"),
        )


def _adapters(shelf: Path) -> list[Path]:
    if not shelf.is_dir():
        return []
    there = sorted(shelf.iterdir(), reverse=True)  # a folder after its flat file: it wins
    return [p for p in there if (p.is_dir() or _is_flat(p)) and not p.name.startswith(".")]


def _places(shelf: Path, name: str) -> list[Path]:
    """The folder and the flat file of a name, as far as they are there."""
    folder, flat = shelf / name, shelf / (name + SUFFIX)
    return [path for path, there in ((folder, folder.is_dir()), (flat, _is_flat(flat))) if there]


def _name(path: Path) -> str:
    return path.name.removesuffix(SUFFIX)


def _is_flat(path: Path) -> bool:
    return path.name.endswith(SUFFIX) and is_there(path) and path.is_file()


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _delete(path: Path) -> None:
    """Move it aside under a hidden name first: no half adapter is ever seen."""
    try:
        aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.removed."))
        try:
            path.rename(aside / path.name)
        finally:
            shutil.rmtree(aside)
    except OSError as cause:
        raise StorageError(
            text("{path} could not be removed", path=path),
            expected=text("permission to change the folder"),
            found=cause.strerror or str(cause),
        ) from cause
