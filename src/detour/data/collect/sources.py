"""Which files there are, and what they are: documents, code, or logs of feedback.

Knows names and endings; opens nothing.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, NoReturn, TypeAlias, cast

from detour.errors import DataError
from detour.language.catalogue import text

Kind: TypeAlias = Literal["documents", "code", "feedback"]
ENDINGS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "documents": (".txt", ".text", ".md", ".markdown", ".rst", ".html", ".htm", ".pdf"),
    "code": (".py",),
    "feedback": (".jsonl", ".ndjson"),
}
KINDS: Final[tuple[Kind, ...]] = ("documents", "code", "feedback")
TABLES: Final = (".csv", ".tsv", ".json", ".parquet")  # read as feedback where that is told
NOT_ENTERED = ("__pycache__", "node_modules")  # and hidden ones, and virtual environments
VIRTUAL = "pyvenv.cfg"  # a file in every virtual environment


@dataclass(frozen=True)
class File:
    """A file, and its name within the folder in which it was found: the same on any machine."""

    path: Path
    name: str


@dataclass(frozen=True)
class Found:
    """The files of one kind, and how many of another kind lie beside them."""

    kind: Kind
    files: tuple[File, ...]
    others: Mapping[Kind, int]
    is_told: bool = False
    """Whether the user said the kind."""


def find(sources: Sequence[Path], kind: Kind | None = None) -> Found:
    """All files of a kind, sorted by name; without one, of the kind that most files have.

    A file that is named itself is taken whatever its ending, if its kind is told. Hidden files and
    folders, `__pycache__`, `node_modules` and virtual environments are passed over.

    Raises:
        DataError: a source does not exist, or there is no such file.
    """
    named = list(_all(sources))
    counts = Counter(of for file, _ in named if (of := kind_of(file.path)))
    chosen = kind or max(KINDS, key=lambda one: counts[one])
    files = {
        file.path.resolve(): file
        for file, is_itself in named
        if kind_of(file.path) == chosen or (kind and is_itself)
    }
    if not files:
        _nothing(sources, [file for file, _ in named], kind)
    others: dict[Kind, int] = {one: counts[one] for one in KINDS if one != chosen and counts[one]}
    return Found(chosen, tuple(files.values()), others, kind is not None)


def kind_of(path: Path) -> Kind | None:
    """What the ending says."""
    ending = path.suffix.lower()
    return next((kind for kind in KINDS if ending in ENDINGS[kind]), None)


def _all(sources: Sequence[Path]) -> Iterator[tuple[File, bool]]:
    """Every file, and whether it was named itself."""
    for source in sources:
        if source.is_dir():
            yield from ((file, False) for file in _below(source))
        elif source.exists():
            yield File(source, source.name), True
        else:
            raise DataError(
                text("{path} does not exist", path=source),
                expected=text("a file or a folder"),
                hint=text("check the path"),
            )


def _below(folder: Path) -> Iterator[File]:
    for place, folders, names in os.walk(folder, onerror=_fail):
        here = Path(place)
        folders[:] = sorted(name for name in folders if _is_entered(here / name))
        for name in sorted(names):
            path = here / name
            if not name.startswith(".") and path.is_file():
                yield File(path, path.relative_to(folder).as_posix())


def _is_entered(folder: Path) -> bool:
    is_passed_over = folder.name.startswith(".") or folder.name in NOT_ENTERED
    return not is_passed_over and not (folder / VIRTUAL).exists()


def _fail(cause: OSError) -> NoReturn:
    raise cause


def _nothing(sources: Sequence[Path], there: Sequence[File], kind: Kind | None) -> NoReturn:
    endings = Counter(file.path.suffix.lower() or file.path.name for file in there)
    wanted: Sequence[Kind] = [kind] if kind else KINDS
    hint = text("say what it is: --as {kinds}", kinds=" | ".join(KINDS))
    if tables := [file for file in there if file.path.suffix.lower() in TABLES]:
        hint = text(
            "these are rows already: {command}; answers with ratings in them: --as feedback",
            command=f"detour check {shlex.quote(str(tables[0].path))}",
        )
    raise DataError(
        text("{path} holds no file to collect from", path=", ".join(map(str, sources))),
        expected=", ".join(ending for one in wanted for ending in ENDINGS[one]),
        found=", ".join(f"{end} {n}" for end, n in endings.most_common(8)) or text("none"),
        hint="" if kind else hint,
    )


def as_kind(name: str | None) -> Kind | None:
    """A name out of `KINDS`, typed."""
    return cast("Kind | None", name)
