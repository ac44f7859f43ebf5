"""How much a training has to go through: rows, their lengths, steps.

Knows rows of tokens and settings; knows no models' sizes and no machines.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from transformers import PreTrainedTokenizerBase

from detour.data.reading import Loaded, check_apart, learnable
from detour.model.rows import Encoded, encode
from detour.training.config import TrainConfig
from detour.training.cost import Work
from detour.training.material import JUDGED_OF_LEARNED, Row
from detour.training.split import FEWEST, split


@dataclass(frozen=True)
class Rows:
    """Rows of tokens, as a mean.

    Attributes:
        count: of them.
        tokens: of a row.
        padded: of a row with its padding, where that is computed.
        pairs: of tokens of a row, squared.
        learned: tokens of a row that the loss counts.
        longest: tokens of the longest.
    """

    count: int
    tokens: float
    padded: float
    pairs: float
    learned: float
    longest: int

    @staticmethod
    def alike(count: int, tokens: float, longest: int) -> Rows:
        """Rows of one length, all of them learned."""
        return Rows(count, tokens, tokens, tokens**2, tokens, longest)

    @staticmethod
    def of(rows: Sequence[Encoded]) -> Rows:
        """As `detour train` runs them: without padding."""
        lengths = [len(row.ids) for row in rows]
        return Rows(
            len(rows),
            fmean(lengths),
            fmean(lengths),
            fmean(length**2 for length in lengths),
            fmean(sum(row.learned[1:]) for row in rows),
            max(lengths),
        )


@dataclass(frozen=True)
class Workload:
    """What is learned, and what judges."""

    learned: Rows
    judged: Rows

    @staticmethod
    def uniform(count: int, tokens: float, longest: int, config: TrainConfig) -> Workload:
        """Nothing is known but the number of rows and their mean length."""
        held = round(count * config.validation_share) if count >= FEWEST else 0
        judging = held or min(count, JUDGED_OF_LEARNED)
        return Workload(
            Rows.alike(count - held, tokens, longest), Rows.alike(judging, tokens, longest)
        )

    @staticmethod
    def of_data(
        loaded: Loaded, tokenizer: PreTrainedTokenizerBase, longest: int, config: TrainConfig
    ) -> Workload:
        """The rows themselves, held out and cut as a training does it.

        Raises:
            DataError: rows that a training would refuse.
        """
        kept, held = parts_of(loaded, config)

        def rows(examples: Sequence[Row]) -> Rows:
            encoded = encode(tokenizer, examples, longest, config.block)
            return Rows.of(encoded)

        return Workload(rows(kept), rows(held or kept[:JUDGED_OF_LEARNED]))

    def work(self, steps: int, config: TrainConfig, judged: bool = True) -> Work:
        """What goes through the model in so many steps, with validations unless told otherwise."""
        taken = steps * min(config.batch_size, self.learned.count)
        done = Work()
        _add(done, self.learned, taken, learns=True)
        if judged:
            _add(done, self.judged, (config.validations + 1) * self.judged.count, learns=False)
        return done


def parts_of(loaded: Loaded, config: TrainConfig) -> tuple[list[Row], list[Row]]:
    """What is learned and what is held out, as a training divides them.

    Raises:
        DataError: rows for a head, or the same rows in both parts.
    """
    check_apart(loaded)
    kept = learnable(loaded)
    if loaded.validation:
        return kept, learnable(loaded, "validation")
    return split(kept, config.validation_share, config.seed)


def _add(work: Work, rows: Rows, count: int, learns: bool) -> None:
    tokens, pairs = round(count * rows.padded), round(count * rows.pairs)
    judged = math.ceil(count * rows.learned)
    work.tokens += tokens
    work.pairs += pairs
    work.judged += judged
    if learns:
        work.learned += tokens
        work.learned_pairs += pairs
        work.judged_learned += judged
        work.own += round(count * rows.tokens)
