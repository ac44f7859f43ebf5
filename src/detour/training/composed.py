"""Rows that say who acts on them: a conversation or a text, and a chain such as `formal+pun:0.6`.

    {"messages": [...], "chain": "formal+pun:0.6"}
    {"prompt": "Who was Einstein?", "completion": "…", "chain": "einstein"}
    {"text": "…", "chain": "formal"}

Knows files and rows; trains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from detour.adapter.chain_text import parse
from detour.errors import ChainError, DataError
from detour.language.catalogue import text
from detour.model.examples import Example, Plain, composed, example_of, json_rows
from detour.training.together import Composed


def read_composed(path: Path) -> list[Composed]:
    """All rows of a JSONL file.

    Raises:
        DataError: it cannot be read, is empty, or a row says not what or whom; names the line.
    """
    return [composed_of(row, source) for row, source in json_rows(path)]


def composed_of(row: Any, source: str) -> Composed:  # noqa: ANN401 - any JSON object
    """One row. Raises DataError: as `read_composed`; names `source`."""
    chain = row.get("chain")
    if not isinstance(chain, str) or not chain.strip():
        raise DataError(
            text("{source} does not say which adapters act on it", source=source),
            expected=text('"chain": a text such as formal+pun:0.6'), found=repr(chain),
        )  # fmt: skip
    try:
        terms = parse(chain)
    except ChainError as fault:
        raise DataError(
            text("{place}: {fault}", place=source, fault=fault.message),
            expected=fault.expected, found=fault.found, hint=fault.hint,
        ) from fault  # fmt: skip
    weights: dict[str, float] = {}
    for term in terms:
        if term.layers or term.revision:
            raise DataError(
                text("{place}: {fault}", place=source,
                     fault=text("weights by layer and revisions are not known here")),
                expected=text("names with one weight each"), found=chain,
            )  # fmt: skip
        weights[term.name] = weights.get(term.name, 0.0) + term.weight
    return Composed(_row(row, source), weights)


def _row(row: dict[str, Any], source: str) -> Example | Plain:
    told = row.get("text")
    if isinstance(told, str) and told.strip():
        return Plain(composed(told), source)
    return example_of(row, source)


def names_in(rows: Iterable[Composed]) -> list[str]:
    """All adapters that rows name, as they come."""
    return list(dict.fromkeys(name for one in rows for name in one.weights))
