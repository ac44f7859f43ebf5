"""Factors in a base's slots as one torch module, for training loops of others.

transformers' Trainer and Lightning want a module: parameters, a forward that gives a loss, a small
state. Here the parameters are the factors alone; the frozen base stays outside of the module, so
that checkpoints are as small as adapters. Knows bases, settings and factors; knows no loop.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.errors import DataError, TrainingError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.loss import IGNORED
from detour.model.rows import Batch
from detour.training.config import TrainConfig, make_config
from detour.training.kinds import factors_of
from detour.training.objective import answer_loss


class SlotModule(nn.Module):
    """An adapter being trained on a frozen base.

    `config` says which layers, which rank and which kind; steps, rates and batches are the other
    loop's business. Like `detour train` it computes the head for supervised tokens only, and
    nothing for padding where the base can be packed.

    Raises:
        ConfigError, SlotError: settings that do not fit the base.
    """

    def __init__(self, base: Base, config: TrainConfig | None = None) -> None:
        super().__init__()
        self._config = config or make_config({})
        layers = base.slots.named(self._config.targets)
        self._factors = factors_of(base.slots, layers, self._config, base.device)
        self._base = base  # no torch module itself, so not part of the state
        self._head, self._forward = base.head, base.forward
        self.factors = nn.ParameterList(self._factors.parameters())

    def forward(
        self,
        input_ids: Int[Tensor, "rows tokens"],
        labels: Int[Tensor, "rows tokens"],
        attention_mask: Int[Tensor, "rows tokens"] | None = None,
        num_items_in_batch: Tensor | int | None = None,
        **_: Any,  # noqa: ANN401  (columns that a collator adds)
    ) -> dict[str, Float[Tensor, ""]]:
        """`loss`: mean cross-entropy (nats) over the labels that are not -100.

        As everywhere in transformers a label stands at the place of its own token, and padding is
        on the right. With `num_items_in_batch`, the sum divided by it.

        Raises:
            DataError: nothing is labelled, or padding on the left.
            SlotsBusy: somebody else holds the base's slots.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
        if bool((mask[:, 1:] > mask[:, :-1]).any()):
            raise DataError(
                text("padding on the left"), expected=text("rows that are padded on the right"),
                hint='padding_side="right"',
            )  # fmt: skip
        targets = torch.full_like(labels, IGNORED)
        targets[:, :-1] = labels[:, 1:]
        batch = Batch(input_ids, mask, targets).to(self._base.device)
        divisor = None if num_items_in_batch is None else int(num_items_in_batch)
        with self._base.hold(self._factors.contents()):
            return {"loss": answer_loss(self._forward, self._head, batch, divisor)}

    def adapter(self, name: str = "adapter") -> Adapter:
        """What was learned so far, as a value.

        Raises:
            TrainingError: a factor is no number any more.
        """
        taken = self._factors.snapshot()
        if not all(bool(tensor.isfinite().all()) for tensor in taken.values()):
            raise TrainingError(
                text("the adapter holds numbers that are none"), hint=text("a lower learning rate")
            )
        card = Card().with_(
            base_model=self._base.name, seeds=(self._config.seed,),
            config=self._config.model_dump(mode="json"),
        )  # fmt: skip
        return Adapter(
            self._factors.updates(taken), name, self._base.fingerprint, card,
            unbound=self._factors.unbound(taken),
        )  # fmt: skip
