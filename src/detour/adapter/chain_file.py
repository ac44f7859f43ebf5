"""A chain kept in a file: its text, or a list of terms, with a name and a card.

    name: talk-show
    description: How the host of the show talks.
    licence: CC-BY-4.0
    chain:
      - formal:0.8
      - pun{layers.0-2=0.3}
      - ./encore.yaml:0.5

A term that ends in .yaml is another such file; its weights are multiplied by the term's. Paths that
begin with a dot are those from the file that names them. Knows text and files; loads no adapter.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, cast

import yaml

from detour.adapter.chain_text import LayerWeight, TermText, parse, render
from detour.errors import ChainError, ConfigError
from detour.files import write_text_atomically
from detour.language.catalogue import text

ENDINGS = (".yaml", ".yml")
KEYS = ("name", "description", "licence", "chain")


@dataclass(frozen=True)
class ChainFile:
    """What such a file says.

    Attributes:
        terms: as written; other files are not expanded.
        name: of the chain.
        description: what it is for.
        licence: of the chain.
    """

    terms: tuple[TermText, ...]
    name: str = ""
    description: str = ""
    licence: str = ""

    @staticmethod
    def read(path: Path) -> ChainFile:
        """Raises ChainError: not there, not YAML, an unknown key, or a chain without sense."""
        try:
            told: Any = yaml.safe_load(path.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as cause:
            raise ChainError(
                text("{path} cannot be read as a chain", path=path),
                expected=text("a YAML file with {keys}", keys=", ".join(KEYS)),
                found=str(cause).split("\n", maxsplit=1)[0],
            ) from cause
        if not isinstance(told, dict) or "chain" not in told:
            raise ChainError(
                text("{path} holds no chain", path=path),
                expected=text("a line such as {line}", line="chain: formal:0.8+pun"),
            )
        values = cast("dict[str, Any]", told)
        _check_keys(path, values)
        return ChainFile(
            _terms(path, values["chain"]),
            *(_said(path, values, key) for key in KEYS if key != "chain"),
        )

    def write(self, path: Path) -> None:
        """Whole or not at all. Raises StorageError: it cannot be written."""
        told = {key: getattr(self, key) for key in KEYS[:-1] if getattr(self, key)}
        told["chain"] = [render([term]) for term in self.terms]
        write_text_atomically(path, yaml.safe_dump(told, sort_keys=False, allow_unicode=True))


def seen_from(terms: Sequence[TermText], folder: Path) -> tuple[TermText, ...]:
    """Terms written here, as a file in that folder must write them: paths begin there."""
    return tuple(
        replace(term, name=_dotted(os.path.relpath(term.name, folder)))
        if _is_path(term.name) and not Path(term.name).is_absolute()
        else term
        for term in terms
    )


def check_new(path: Path) -> None:
    """Raises ConfigError: it is there already, or has another ending."""
    if not is_chain_file(path.name) or path.exists():
        raise ConfigError(
            text("{path} cannot be the file of a chain", path=path),
            expected=text("a new file that ends in {endings}", endings=", ".join(ENDINGS)),
        )


def is_chain_file(name: str) -> bool:
    """Whether a term's name is a file that holds a chain."""
    return name.lower().endswith(ENDINGS)


def expanded(
    terms: Sequence[TermText], folder: Path | None = None, above: tuple[Path, ...] = ()
) -> list[TermText]:
    """The terms with every file replaced by what it holds.

    Args:
        terms: as written.
        folder: of the file that they are written in; None: they are a text.
        above: the files that led here.

    Raises:
        ChainError: a file that cannot be read, that holds itself, or that is given a revision or
            weights by layer.
    """
    found: list[TermText] = []
    for term in terms:
        name = _from(folder, term.name)
        if not is_chain_file(name):
            found.append(replace(term, name=name))
            continue
        if term.revision or term.layers:
            raise ChainError(
                text("a chain in a file takes one weight"),
                expected=f"{term.name}:0.5", found=render([term]),
                hint=text("give weights by layer to the terms in the file"),
            )  # fmt: skip
        path = Path(name).resolve()
        if path in above:
            raise ChainError(
                text("{path} holds itself", path=name),
                found=" → ".join(one.name for one in (*above, path)),
            )
        inner = expanded(ChainFile.read(path).terms, Path(name).parent, (*above, path))
        found += [_times(one, term.weight) for one in inner]
    return found


def _times(term: TermText, weight: float) -> TermText:
    layers = tuple(LayerWeight(one.first, one.last, one.weight * weight) for one in term.layers)
    return replace(term, weight=term.weight * weight, layers=layers)


def _from(folder: Path | None, name: str) -> str:
    """A path as seen from here; a name of the library stays one."""
    if folder is None or not _is_path(name) or Path(name).is_absolute():
        return name
    return _dotted(os.path.normpath(folder / name))


def _is_path(name: str) -> bool:
    return name.startswith(".") or is_chain_file(name)


def _dotted(path: str) -> str:
    """A relative path that is not taken for a name of the library."""
    return path if Path(path).is_absolute() or path.startswith(".") else f"./{path}"


def _terms(path: Path, told: object) -> tuple[TermText, ...]:
    lines = cast("list[object]", told) if isinstance(told, list) else [told]
    if not lines or not all(isinstance(line, str) and line.strip() for line in lines):
        raise ChainError(
            text("{path} holds no chain", path=path),
            expected=text("a text such as formal:0.8+pun, or a list of terms"),
            found=repr(told)[:80],
        )
    try:
        return tuple(term for line in lines for term in parse(str(line)))
    except ChainError as fault:
        raise fault.at(str(path)) from fault


def _check_keys(path: Path, values: dict[str, Any]) -> None:
    for key in values:
        if key not in KEYS:
            close = get_close_matches(str(key), KEYS, n=1)
            raise ChainError(
                text("{path} has an unknown key {key!r}", path=path, key=key),
                expected=text("one of {names}", names=", ".join(KEYS)),
                hint=text("did you mean {close!r}?", close=close[0]) if close else "",
            )


def _said(path: Path, values: dict[str, Any], key: str) -> str:
    told = values.get(key, "")
    if not isinstance(told, str):
        raise ChainError(
            text("{key} in {path} is no text", key=key, path=path), found=repr(told)[:80]
        )
    return told
