"""Tokens of rows: how many, how many of them are learned, and one row as the model sees it.

Knows records and tokenizers; knows no files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from transformers import PreTrainedTokenizerBase

from detour.data.records import Plain, Record, answer_of
from detour.errors import BaseError, DataError
from detour.language.catalogue import text
from detour.model.chat import supervised
from detour.model.examples import Example

SHOWN = 5  # places that are told


@dataclass(frozen=True)
class Tokens:
    """Tokens of the sampled rows."""

    rows: int
    """How many were counted."""
    median: float
    most: int
    supervised_median: float
    supervised_least: int
    supervised_most: int
    total: int
    """Of all rows; scaled up where a sample was counted."""
    too_long: int
    """Sampled rows that are longer than the base's context; plain texts are learned in blocks."""
    limit: int | None
    where: tuple[str, ...] = ()
    """The first places of those."""


@dataclass(frozen=True)
class Decoded:
    """One row as the model sees it: pieces of text, and whether they are learned."""

    source: str
    pieces: tuple[tuple[str, bool], ...]


def counted(
    records: Sequence[Record],
    tokenizer: PreTrainedTokenizerBase,
    limit: int | None,
    usable: int,
) -> tuple[Tokens, Decoded | None, list[str]]:
    """Lengths, one decoded row, and the places of rows in which nothing is learned."""
    lengths: list[int] = []
    learned: list[int] = []
    masked: list[str] = []
    cut: list[str] = []
    example: Decoded | None = None
    for record in records:
        try:
            ids, mask = encoded(record, tokenizer)
        except DataError:
            masked.append(record.source)
            continue
        answer = "" if isinstance(record, Example | Plain) else answer_of(record)
        lengths.append(len(ids))
        if limit and len(ids) > limit and not isinstance(record, Plain):
            cut.append(record.source)
        learned.append(1 if answer else sum(mask))
        if example is None:
            pieces = tuple(_pieces(ids, mask, tokenizer))
            example = Decoded(
                record.source, (*pieces, (f" → {answer}", True)) if answer else pieces
            )
    if not lengths:
        return Tokens(len(records), 0, 0, 0, 0, 0, 0, 0, limit), None, masked
    told = Tokens(
        rows=len(records),
        median=median(lengths),
        most=max(lengths),
        supervised_median=median(learned),
        supervised_least=min(learned),
        supervised_most=max(learned),
        total=round(sum(lengths) * usable / len(records)),
        too_long=len(cut),
        limit=limit,
        where=tuple(cut[:SHOWN]),
    )
    return told, example, masked


def fault_of(
    record: Record, tokenizer: PreTrainedTokenizerBase, limit: int | None
) -> Literal["", "too_long", "no_supervision"]:
    """Why a base with this context cannot learn the row; empty where it can."""
    try:
        ids, _ = encoded(record, tokenizer)
    except DataError:
        return "no_supervision"
    is_cut = limit is not None and len(ids) > limit and not isinstance(record, Plain)
    return "too_long" if is_cut else ""


def encoded(record: Record, tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[bool]]:
    """Ids, and which of them are learned; of a text with a class or a number, none of its own.

    Raises:
        DataError: the chat template refuses the conversation, or leaves nothing to learn.
        BaseError: the tokenizer has no chat template.
    """
    if isinstance(record, Example):
        return supervised(tokenizer, record.messages)
    ids = list(tokenizer.encode(record.text))
    if not ids:
        raise BaseError(text("the tokenizer makes nothing of {source}", source=record.source))
    return ids, [isinstance(record, Plain)] * len(ids)


def _pieces(
    ids: Sequence[int], mask: Sequence[bool], tokenizer: PreTrainedTokenizerBase
) -> Iterator[tuple[str, bool]]:
    """Runs of tokens that are learned, and of tokens that are not."""
    start = 0
    for place in range(1, len(ids) + 1):
        if place == len(ids) or mask[place] != mask[start]:
            yield str(tokenizer.decode(list(ids[start:place]))), mask[start]
            start = place
