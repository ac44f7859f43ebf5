"""A base and a chain on the same rows: what they answer, and how probable the right answer is.

Knows bases, rows of data and figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.measure.statistics import Figure, by_cluster
from detour.measure.texts import text_figures
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.rows import Encoded, encode, padded

AT_ONCE = 16  # rows
MAX_NEW_TOKENS = 64


@dataclass(frozen=True)
class Answered:
    """What one arm said to every row, and its figures."""

    figures: Mapping[str, Figure]
    answers: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {name: figure.to_json() for name, figure in self.figures.items()}


def answered(
    base: Base,
    rows: Sequence[Example | Plain],
    chain: Chain | Adapter | None = None,
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
    teller: Callable[[str], None] | None = None,
) -> Answered:
    """All figures of a chain on rows: of conversations the last answer, of texts everything.

    `perplexity` is of the answers' tokens (of texts, all but the first), its interval over rows.
    Conversations are answered greedily and compared with the answer that stands there; see
    `text_figures`.

    Raises:
        BaseError: no tokenizer, or no chat template.
        DataError: a row that does not fit into the context.
        WrongBase, SlotError: a chain that does not belong on this base.
    """
    figures: dict[str, Figure] = {"perplexity": perplexity(base, rows, chain)}
    asked = [row for row in rows if isinstance(row, Example)]
    if not asked:
        return Answered(figures)
    if teller:
        teller(f"{len(asked)} answers, at most {max_new_tokens} tokens each")
    prompts = [[dict(m) for m in row.messages[:-1]] for row in asked]
    found = base.ask_many(prompts, chain, max_new_tokens=max_new_tokens)
    wanted = [row.messages[-1]["content"] for row in asked]
    return Answered({**text_figures(wanted, found), **figures}, tuple(found))


def perplexity(
    base: Base, rows: Sequence[Example | Plain], chain: Chain | Adapter | None = None
) -> Figure:
    """The exponential of the mean loss of all learned tokens, with a bootstrap over rows.

    Raises:
        BaseError, DataError, WrongBase, SlotError: as `answered`.
    """
    tokenizer = base.tokenizer
    if tokenizer is None:
        raise BaseError(text("{base} has no tokenizer", base=base.name))
    encoded = encode(tokenizer, rows, base.longest)
    losses: list[float] = []
    places: list[int] = []
    order = sorted(range(len(encoded)), key=lambda place: len(encoded[place].ids))
    for start in range(0, len(order), AT_ONCE):
        chosen = order[start : start + AT_ONCE]
        for place, own in zip(chosen, _losses(base, [encoded[p] for p in chosen], chain),
                              strict=True):  # fmt: skip
            losses += own
            places += [place] * len(own)
    told = by_cluster(losses, places)
    return Figure(_exp(told.value), _exp(told.low), _exp(told.high), len(encoded))


def _losses(
    base: Base, rows: Sequence[Encoded], chain: Chain | Adapter | None
) -> list[list[float]]:
    """Of each row the loss (nats) of every learned token."""
    batch = padded(rows, base.pad_id)
    logits = base.logits(batch.ids, chain, batch.mask).float()
    found: list[list[float]] = []
    for place, row in enumerate(rows):
        ids = torch.tensor(row.ids)
        every = cross_entropy(logits[place, : len(ids) - 1].cpu(), ids[1:], reduction="none")
        learned = torch.tensor(row.learned[1:])
        found.append([float(value) for value in every[learned]])
    return found


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
