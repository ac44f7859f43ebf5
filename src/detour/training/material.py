"""Rows as a training needs them: what is learned, what judges, in batches.

Knows bases' tokenizers and rows; knows neither factors nor optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from detour.data.reading import Data, Loaded, check_apart, learnable, read_data
from detour.data.records import Record
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.rows import Batch, encode, fixed
from detour.team import ALONE, Team
from detour.training.batches import Batches
from detour.training.config import TrainConfig
from detour.training.descend import Pause
from detour.training.fit import JUDGED_AT_ONCE
from detour.training.split import drawn, split

Row = Example | Plain
Judge = TypeVar("Judge")
JUDGED_OF_LEARNED = 64  # rows that judge where none is held out
MOST_JUDGED = 512  # rows, or blocks of text, that judge: seven times as many forwards a run


@dataclass(frozen=True)
class Material:
    """What a training learns and is judged by.

    Attributes:
        kept: rows that are learned.
        held: rows that choose the checkpoint; without any some of `kept` do.
        count: rows after plain texts were cut into blocks.
        batches: of what is learned, step by step.
        judged: of what judges.
        told: what is said of all this before the first step.
    """

    kept: Sequence[Row]
    held: Sequence[Row]
    count: int
    batches: Batches
    judged: Sequence[Batch]
    told: tuple[str, ...] = ()

    @property
    def judged_lengths(self) -> list[int]:
        """Tokens of every row that judges."""
        return [length for batch in self.judged for length in batch.mask.sum(-1).tolist()]

    def tests(self, most: int) -> tuple[dict[str, Any], ...]:
        """Held-out conversations, at most so many, as rows to be kept beside the adapter."""
        asked = [row for row in self.held if isinstance(row, Example)][:most]
        return tuple({"messages": [dict(turn) for turn in row.messages]} for row in asked)

    @property
    def validation_rows(self) -> int:
        """How many of `held` judge; 0 where nothing is held out."""
        return min(len(self.held), sum(len(batch.ids) for batch in self.judged))


def material_of(
    base: Base, data: Data, config: TrainConfig, validation: Sequence[Row] | None = None
) -> Material:
    """Read, hold out, encode.

    `validation`, or the data's own part of that name, judges; else a share of the rows.

    Raises:
        DataError: the data cannot be used, names file and line; or rows that judge are learned
            too. BaseError: no tokenizer.
    """
    told: list[str] = []
    loaded = with_validation(read_data(data), validation)
    check_apart(loaded)
    kept = learnable(loaded)
    held: list[Row] = []
    if loaded.validation is None:
        kept, held = split(kept, config.validation_share, config.seed, told.append)
    elif loaded.validation:
        held = learnable(loaded, "validation")
    tokenizer, longest, pad = tokenizer_of(base), base.longest, base.pad_id
    rows = encode(tokenizer, kept, longest, config.block)
    others = encode(tokenizer, held, longest, config.block)
    judging = judges(others, rows, config.seed, told.append)
    return Material(
        kept, held, len(rows), Batches(rows, config.batch_size, pad, config.seed),
        fixed(judging, JUDGED_AT_ONCE, pad), tuple(told),
    )  # fmt: skip


def with_validation(loaded: Loaded, validation: Sequence[Record] | None) -> Loaded:
    """The data with these rows as the part that chooses the checkpoint, where any are given."""
    if validation is None:
        return loaded
    parts = {**loaded.parts, "validation": tuple(validation)}
    return Loaded(parts, loaded.told, loaded.format)


def judges(
    held: Sequence[Judge],
    learned: Sequence[Judge],
    seed: int,
    teller: Callable[[str], None],
    kind_of: Callable[[Judge], str] | None = None,
) -> list[Judge]:
    """The rows that judge: of those held out, else of those learned; many are drawn from."""
    if not held:
        teller(text("the loss is taken on training rows"))
        return drawn(learned, JUDGED_OF_LEARNED, seed, kind_of)
    if len(held) > MOST_JUDGED:
        teller(
            text("{count} of {all} held-out rows choose the checkpoint, drawn by the seed",
                 count=MOST_JUDGED, all=len(held))
        )  # fmt: skip
    return drawn(held, MOST_JUDGED, seed, kind_of)


def tokenizer_of(base: Base) -> PreTrainedTokenizerBase:
    """The base's. Raises BaseError: it has none."""
    if base.tokenizer is None:
        raise BaseError(
            text("{base} has no tokenizer", base=base.name), hint=text("training needs one")
        )
    return base.tokenizer


def mean_loss(
    loss_of: Callable[[Batch], Tensor],
    batches: Sequence[Batch],
    device: torch.device,
    pause: Pause,
    team: Team = ALONE,
    rows: int | None = None,
) -> float:
    """Mean loss (nats, or whatever an own loss counts) over all supervised tokens.

    A team shares the batches. At most so many `rows` run at once.
    """
    total = count = 0.0
    with torch.no_grad():
        for batch in batches[team.rank :: team.size]:
            for part in batch.parts(rows):
                total += float(loss_of(part.to(device))) * part.supervised
                count += part.supervised
            pause()
    return team.total(total, device) / team.total(count, device)
