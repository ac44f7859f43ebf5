"""Rows on which a training holds the adapted model to the base, and what the bare base says there.

Knows bases, rows and losses; knows no optimisers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.packing import Forward
from detour.model.rows import Batch, encode, fixed
from detour.training.config import TrainConfig
from detour.training.material import tokenizer_of
from detour.training.objective import base_log_probabilities, in_parts, kl_to_base


class Neighbours:
    """The pull of KL(base || adapted) towards the base; nothing where it has no weight."""

    def __init__(self, base: Base, rows: Sequence[Example | Plain], config: TrainConfig) -> None:
        """Ask the bare base once; what it says, tokens × vocabulary, lies in the main memory.

        Raises:
            DataError: a row that cannot be used. BaseError: the base has no tokenizer.
            SlotsBusy: somebody else holds the slots.
        """
        self._base = base
        self._weight = config.kl_weight
        self._held: list[tuple[Batch, Tensor]] = []
        if not rows or not config.kl_weight:
            return
        encoded = encode(tokenizer_of(base), rows, base.longest, config.block)
        head, forward = base.head, base.forward
        with base.hold({}):  # so it is the bare base that is asked
            for batch in fixed(encoded, config.batch_size, base.pad_id):
                said = [base_log_probabilities(forward, head, part.to(base.device)).cpu()
                        for part in batch.parts(config.micro_batch_size)]  # fmt: skip
                self._held.append((batch, torch.cat(said)))

    def __bool__(self) -> bool:
        return bool(self._held)

    def pull(
        self,
        step: int,
        act: Callable[[], None],
        forward: Forward,
        parts_of: Callable[[Batch], list[Batch]],
    ) -> Tensor:
        """The weighted KL of this step's neighbours, by this forward, part by part; `act` is called
        before each.
        """
        base, (batch, said) = self._base, self._held[step % len(self._held)]
        cut = parts_of(batch)
        parts = list(zip(cut, said.split([part.supervised for part in cut]), strict=True))
        whole = batch.supervised

        def share(given: tuple[Batch, Tensor]) -> Tensor:
            act()
            part, bare = given[0].to(base.device), given[1].to(base.device)
            held = self._weight * kl_to_base(forward, base.head, part, bare)
            return held * (part.supervised / whole)

        return in_parts(parts, share)[0]
