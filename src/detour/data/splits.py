"""Which files of a folder, or splits of a dataset, are for training, validation and test.

Exact names count, and files that are numbered as parts of one (`train-00000-of-00002.parquet`).
`train_old.jsonl` is not guessed at. Knows names; reads nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

from detour.errors import DataError
from detour.language.catalogue import Text, joined, text

Split: TypeAlias = str
"""`train`, `validation` or `test`."""

SPLITS: Final[Mapping[Split, tuple[str, ...]]] = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval"),
}
SHOWN = 8  # names that are told
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})")


@dataclass(frozen=True)
class Candidate:
    """A file or split that may be one of ours."""

    shown: str
    """As people know it: its path in the folder, or its name on the Hub."""
    name: str
    """What is compared with the names of splits."""
    kind: str = ""
    """Candidates of one split have the same: folder, ending, and how many parts there are."""
    number: int = 0
    parts: int = 1

    @property
    def split(self) -> Split | None:
        """The one whose name it has."""
        return next((split for split, names in SPLITS.items() if self.name in names), None)


@dataclass(frozen=True)
class Words:
    """How the two kinds of candidates are spoken of."""

    unnamed: Callable[[Split], Text]
    several: Callable[[Split], Text]
    hint: str


FILES: Final = Words(
    lambda split: text("no file is named {split}, and others begin with it", split=split),
    lambda split: text("several files could be {split}", split=split),
    text("keep one of them there, or name one file itself"),
)


def candidate_of(path: Path, folder: Path) -> Candidate:
    """A file of the folder, or of a folder in it."""
    stem = path.stem.lower()
    numbered = _SHARD.fullmatch(stem)
    name, number, parts = numbered.groups() if numbered else (stem, "0", "1")
    kind = f"{path.parent}/{path.suffix.lower()}/{parts if numbered else ''}"
    shown = path.relative_to(folder).as_posix()
    return Candidate(shown, name, kind, int(number), int(parts))


def chosen(candidates: Sequence[Candidate], words: Words) -> dict[Split, list[Candidate]]:
    """The candidates of each split that is there, parts in their order.

    Raises:
        DataError: several could be the same split; none has its name, but some begin with it; or a
            part of one is missing.
    """
    found: dict[Split, list[Candidate]] = {}
    for split, names in SPLITS.items():
        exact = [one for one in candidates if one.split == split]
        alike = [one for one in candidates if re.split(r"[-._]", one.name)[0] in names]
        if alike and not exact:
            raise _refused(words.unnamed(split), names[0], alike, words.hint)
        if len({(one.name, one.kind) for one in exact}) > 1:
            raise _refused(words.several(split), text("one of them"), exact, words.hint)
        if exact:
            found[split] = _whole(split, exact)
    return found


def told(parts: Mapping[Split, Sequence[Candidate]], candidates: Sequence[Candidate]) -> Text:
    """Such as "train: train.jsonl; not read: train_old.jsonl"."""
    used = {one.shown for own in parts.values() for one in own}
    lines: list[str] = [f"{split}: {_named(own)}" for split, own in parts.items()]
    if left := [one.shown for one in candidates if one.shown not in used]:
        lines.append(text("not read: {names}", names=_listed(left)))
    return joined("; ", lines)


def _whole(split: Split, own: Sequence[Candidate]) -> list[Candidate]:
    ordered = sorted(own, key=lambda one: one.number)
    if [one.number for one in ordered] != list(range(ordered[0].parts)):
        raise _refused(
            text("{split} is not complete", split=split),
            text("{count} parts", count=ordered[0].parts), ordered,
            text("fetch what is missing"),
        )  # fmt: skip
    return ordered


def _named(own: Sequence[Candidate]) -> str:
    return own[0].shown if len(own) == 1 else f"{own[0].shown} … {own[-1].shown}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")


def _refused(message: Text, expected: str, own: Sequence[Candidate], hint: str) -> DataError:
    return DataError(
        message, expected=expected, found=_listed([one.shown for one in own]), hint=hint
    )
