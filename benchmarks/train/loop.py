"""The loop of `detour train` on a shape's rows, without files and without validations that cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from shapes import ALPHA, BATCH, RANK, RATE, TARGETS, Shape

from detour.model.base import Base
from detour.model.packing import Forward
from detour.model.rows import Batch, Encoded
from detour.training.batches import Batches
from detour.training.config import Plan, TrainConfig, derive, make_config
from detour.training.descend import Run, Step, descend
from detour.training.factors import Factors
from detour.training.fit import Fit, fitted
from detour.training.kinds import factors_of
from detour.training.objective import answer_loss, in_parts

Loss = Callable[[Batch], torch.Tensor]


@dataclass
class Loop:
    """Everything that a training holds; what is measured may be exchanged before it runs."""

    base: Base
    config: TrainConfig
    plan: Plan
    factors: Factors
    batches: Batches
    forward: Forward
    fit: Fit

    @staticmethod
    def of(shape: Shape, dtype: torch.dtype, **more: object) -> Loop:
        """One epoch by default."""
        base = Base.from_model(shape.model(dtype))
        rows = [Encoded(ids, [place >= start for place in range(len(ids))])
                for ids, start in shape.data()]  # fmt: skip
        usual = {"rank": RANK, "alpha": ALPHA, "targets": TARGETS, "batch_size": BATCH,
                 "learning_rate": RATE, "epochs": None if "steps" in more else 1}  # fmt: skip
        config = make_config({**usual, **more})
        plan = derive(config, base.model.config.hidden_size, len(rows))
        factors = factors_of(base.slots, base.slots.named(config.targets), config, base.device)
        batches = Batches(rows, BATCH, 0, seed=0)
        forward = base.forward
        packs = forward.packs_rows_of(max(batches.lengths))
        fit = fitted(base, config, batches.lengths, (), packs=packs)
        return Loop(base, config, plan, factors, batches, forward, fit)

    def run(
        self, loss_of: Loss | None = None, heard: Callable[[float], object] | None = None
    ) -> None:
        """All steps, by the mean loss of what runs at once; `heard` is told every step's loss."""
        head = self.base.head

        def usual(batch: Batch) -> torch.Tensor:
            return answer_loss(self.forward, head, batch)

        def step_of(step: int) -> Step:
            batch = self.batches[step]
            whole = batch.supervised

            def share(part: Batch) -> torch.Tensor:
                return (loss_of or usual)(part) * (part.supervised / whole)

            total, loss = in_parts(self.fit.parts(batch), share)
            if heard:
                heard(float(loss))
            return Step(total, loss, int(batch.mask.sum()))

        judged = iter(range(10**6, 0, -1))  # every validation is better than the one before
        with self.base.hold(self.factors.contents()):
            descend(self.factors, self.plan, self.config, step_of,
                    lambda _: float(next(judged)), Run({}))  # fmt: skip
