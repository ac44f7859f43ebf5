"""Examples as padded batches of token ids and targets.

Knows tokenizers and token ids; knows no model, and not in which order rows are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from detour.errors import DataError
from detour.language.catalogue import text
from detour.model.chat import supervised
from detour.model.examples import BLOCK, Example, Plain
from detour.model.loss import IGNORED


@dataclass(frozen=True)
class Encoded:
    """One example as ids, and which of them are learned."""

    ids: list[int]
    learned: list[bool]
    weight: float = 1.0
    gate: tuple[float, ...] = ()
    """How strongly each of several adapters acts on it, where rows differ in that."""


@dataclass(frozen=True)
class Batch:
    """Right-padded rows. `targets[t]` follows `ids[t]`; -100 where nothing is learned.

    `gate` tells how strongly each adapter acts on each row, where rows differ in that.
    """

    ids: Int[Tensor, "rows tokens"]
    mask: Int[Tensor, "rows tokens"]
    targets: Int[Tensor, "rows tokens"]
    gate: Float[Tensor, "rows adapters"] | None = None

    @property
    def supervised(self) -> int:
        """How many tokens the loss counts."""
        return int((self.targets != IGNORED).sum())

    def parts(self, size: int | None, tokens: int | None = None) -> list[Batch]:
        """The same rows in turn, at most so many together, and of so many tokens without padding;
        each part as long as its longest row. A row that is longer than that is alone.
        """
        size = len(self.ids) if size is None else size
        found: list[list[int]] = [[]]
        taken = 0
        for row, length in enumerate(self.mask.sum(-1).tolist()):
            if found[-1] and (len(found[-1]) == size or (tokens and taken + length > tokens)):
                found.append([])
                taken = 0
            found[-1].append(row)
            taken += length
        return [self] if len(found) == 1 else [self.rows(places) for places in found]

    def rows(self, places: Sequence[int]) -> Batch:
        """Some of its rows, as long as the longest of them."""
        index = torch.tensor(places, device=self.ids.device)
        longest = int(self.mask[index].sum(-1).max())
        gate = None if self.gate is None else self.gate[index]
        ids, mask, targets = (p[index, :longest] for p in (self.ids, self.mask, self.targets))
        return Batch(ids, mask, targets, gate)

    def shortest(self) -> Batch:
        """One of its learned tokens alone: the cheapest there is to run."""
        row, place = ((self.targets != IGNORED) & (self.mask == 1)).nonzero()[0].tolist()
        own = slice(row, row + 1), slice(place, place + 1)
        gate = None if self.gate is None else self.gate[own[0]]
        return Batch(self.ids[own], self.mask[own], self.targets[own], gate)

    def to(self, device: torch.device) -> Batch:
        """The same batch on another device."""
        gate = None if self.gate is None else self.gate.to(device)
        return Batch(self.ids.to(device), self.mask.to(device), self.targets.to(device), gate)


def encode(
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[Example | Plain],
    longest: int,
    block: int = BLOCK,
) -> list[Encoded]:
    """Token ids and supervision of every example; a plain text as blocks of so many tokens.

    Raises:
        DataError: a conversation is longer than the model's context, or nothing in it is learned.
    """
    rows: list[Encoded] = []
    for example in examples:
        if isinstance(example, Plain):
            rows += _blocks(tokenizer, example, min(block, longest))
        else:
            rows.append(_encode(tokenizer, example, longest))
    return rows


def _blocks(tokenizer: PreTrainedTokenizerBase, example: Plain, size: int) -> list[Encoded]:
    """All tokens, with the tokenizer's own first one and the token that ends a text.

    A block begins with the last token of the one before it, so that every token is learned once.
    """
    ids = list(tokenizer.encode(example.text))
    end = tokenizer.eos_token_id
    if isinstance(end, int) and ids[-1:] != [end]:
        ids.append(end)
    if len(ids) < 2:
        raise DataError(
            text("{place}: {fault}", place=example.source or text("a row"),
                 fault=text("a text of a single token has nothing to learn")),
            expected=text("some text"),
        )  # fmt: skip
    starts = range(0, len(ids) - 1, size - 1)
    return [Encoded(part, [True] * len(part)) for s in starts if (part := ids[s : s + size])]


def _encode(tokenizer: PreTrainedTokenizerBase, example: Example, longest: int) -> Encoded:
    try:
        ids, learned = supervised(tokenizer, example.messages)
    except DataError as error:
        where = example.source or text("a row")
        raise DataError(
            text("{place}: {fault}", place=where, fault=error.message),
            expected=error.expected,
            found=error.found,
            hint=error.hint,
        ) from error
    if len(ids) > longest:
        raise DataError(
            text("{row} is too long for the model", row=example.source or text("a row")),
            expected=text("at most {longest} tokens", longest=longest),
            found=text("{count} tokens", count=len(ids)),
            hint=text("shorten the row; nothing is cut silently"),
        )
    return Encoded(ids, learned)


def padded(rows: Sequence[Encoded], pad_id: int) -> Batch:
    """Rows side by side, padded on the right; padding is told by length, never by id."""
    longest = max(len(row.ids) for row in rows)
    ids = torch.full((len(rows), longest), pad_id)  # (rows, tokens)
    mask = torch.zeros((len(rows), longest), dtype=torch.long)
    targets = torch.full((len(rows), longest), IGNORED)
    for number, row in enumerate(rows):
        length = len(row.ids)
        ids[number, :length] = torch.tensor(row.ids)
        mask[number, :length] = 1
        following = [t if k else IGNORED for t, k in zip(row.ids, row.learned, strict=True)]
        targets[number, : length - 1] = torch.tensor(following[1:])
    gate = torch.tensor([row.gate for row in rows]) if rows[0].gate else None
    return Batch(ids, mask, targets, gate)


def fixed(rows: Sequence[Encoded], batch_size: int, pad_id: int) -> list[Batch]:
    """All rows once, sorted by length: for validation."""
    ordered = sorted(rows, key=lambda row: len(row.ids))
    return [
        padded(ordered[start : start + batch_size], pad_id)
        for start in range(0, len(ordered), batch_size)
    ]
