"""Rows as a training needs them: what is learned, what judges, in batches.

Knows bases' tokenizers and rows; knows neither factors nor optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from detour.data.reading import Data, check_apart, learnable, read_data
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.rows import Batch, encode, fixed
from detour.training.batches import Batches
from detour.training.config import TrainConfig
from detour.training.split import split

Row = Example | Plain
JUDGED_AT_ONCE = 16
JUDGED_OF_LEARNED = 64  # rows that judge where none is held out


@dataclass(frozen=True)
class Material:
    """What a training learns and is judged by.

    Attributes:
        kept: rows that are learned.
        held: rows that choose the checkpoint; without any some of `kept` do.
        count: rows after plain texts were cut into blocks.
        batches: of what is learned, step by step.
        judged: of what judges.
    """

    kept: Sequence[Row]
    held: Sequence[Row]
    count: int
    batches: Batches
    judged: Sequence[Batch]

    def remarks(self, reasons: Sequence[str]) -> tuple[str, ...]:
        """What is said before the first step."""
        return (*reasons, *(() if self.held else (text("the loss is taken on training rows"),)))


def material_of(
    base: Base, data: Data, config: TrainConfig, validation: Sequence[Row] | None = None
) -> Material:
    """Read, hold out, encode.

    `validation`, or the data's own part of that name, judges; else a share of the rows.

    Raises:
        DataError: the data cannot be used; names file and line. BaseError: no tokenizer.
    """
    loaded = read_data(data)
    check_apart(loaded)
    kept = learnable(loaded)
    if validation is None and loaded.validation:
        validation = learnable(loaded, "validation")
    held = list(validation or ())
    if validation is None:
        kept, held = split(kept, config.validation_share, config.seed)
    tokenizer, longest, pad = tokenizer_of(base), base.longest, base.pad_id
    rows = encode(tokenizer, kept, longest, config.block)
    judging = encode(tokenizer, held or kept[:JUDGED_OF_LEARNED], longest, config.block)
    return Material(
        kept, held, len(rows), Batches(rows, config.batch_size, pad, config.seed),
        fixed(judging, JUDGED_AT_ONCE, pad),
    )  # fmt: skip


def tokenizer_of(base: Base) -> PreTrainedTokenizerBase:
    """The base's. Raises BaseError: it has none."""
    if base.tokenizer is None:
        raise BaseError(
            text("{base} has no tokenizer", base=base.name), hint=text("training needs one")
        )
    return base.tokenizer


def mean_loss(
    loss_of: Callable[[Batch], Tensor], batches: Sequence[Batch], device: torch.device
) -> float:
    """Mean loss (nats, or whatever an own loss counts) over all supervised tokens."""
    total = count = 0.0
    with torch.no_grad():
        for batch in batches:
            loss = loss_of(batch.to(device))
            total += float(loss) * batch.supervised
            count += batch.supervised
    return total / count
