"""Training one adapter: data to rows, rows to batches, batches through the frozen base.

Reads top to bottom. The base is never changed: what is trained sits in its slots. The checkpoint
with the lowest validation loss is kept, and a training that changed nothing is an error. Knows
nothing of facts, reports or commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.data.reading import Data
from detour.errors import TrainingError
from detour.language.catalogue import Text, text
from detour.model.acting import PROBE, acts
from detour.model.base import Base
from detour.model.examples import Example, Plain, digest_of
from detour.model.rows import Batch
from detour.slots.content import Content
from detour.slots.install import SlotSet
from detour.state_file import Identity, read_told
from detour.team import ALONE, Team
from detour.training.checkpoint import State
from detour.training.config import Plan, TrainConfig, derive, make_config
from detour.training.descend import Ledger, Pause, Run, Step, Watcher, descend
from detour.training.descend import Progress as Progress
from detour.training.fit import Fit, fitted
from detour.training.identity import identity_of
from detour.training.kinds import factors_of
from detour.training.material import Material, material_of, mean_loss
from detour.training.neighbours import Neighbours
from detour.training.objective import answer_loss, in_parts, own_loss
from detour.training.own_loss import find_objective
from detour.training.start import of_base, settled, updates_of
from detour.training.under import Under

_OTHERS = frozenset(
    (
        "name",
        "validation",
        "neighbours",
        "watcher",
        "teller",
        "checkpoints",
        "resume",
        "card",
        "start",
        "beneath",
        "ledger",
        "team",
        "beside",
    )
)  # arguments of `train_with` that are no settings


@dataclass(frozen=True)
class Result:
    """A trained adapter, and how it came about."""

    adapter: Adapter
    plan: Plan
    first_loss: float
    best_loss: float
    best_step: int
    seconds: float
    rows: int
    validation_rows: int
    steps: int = 0
    """How many were taken: fewer than planned where nothing got better any more."""
    base_loss: float | None = None
    """The bare base's on the same rows, where the training began at something else."""


def train(
    base: Base,
    data: Data,
    rank: int = 8,
    alpha: float = 16.0,
    targets: str | Sequence[str] = "all-linear",
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int = 8,
    learning_rate: float | None = None,
    seed: int = 0,
    **more: Any,  # noqa: ANN401 - the fields of TrainConfig
) -> Adapter:
    """Train an adapter on conversations or texts and return it.

    `data` is a file of any form that `detour check` knows, a folder, a dataset of the Hub, or rows.

    `more` takes the other fields of `TrainConfig` and the arguments of `train_with` (name,
    validation, neighbours, watcher, teller, checkpoints, resume, card, start, beneath, ledger).
    With `start`, a rank, alpha or targets left at their defaults are the start's own.

    Raises:
        DataError: the data cannot be used; names file and line.
        ConfigError: an unknown setting, or one out of range.
        TrainingError: the training changed nothing or made things worse.
        SlotsBusy: somebody else holds the base's slots.
    """
    others = {name: more.pop(name) for name in list(more) if name not in TrainConfig.model_fields
              and name in _OTHERS}  # fmt: skip
    wanted = targets if isinstance(targets, str) else tuple(targets)
    settings = {
        "rank": rank, "alpha": alpha, "targets": wanted, "steps": steps, "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed, **more,
    }  # fmt: skip
    if others.get("start") is not None:
        defaults = make_config({})
        settings = {n: v for n, v in settings.items() if v != getattr(defaults, n, None)}
    return train_with(base, data, make_config(settings), **others).adapter


def train_with(
    base: Base,
    data: Data,
    config: TrainConfig,
    *,
    name: str = "adapter",
    validation: Sequence[Example | Plain] | None = None,
    neighbours: Sequence[Example | Plain] = (),
    watcher: Watcher | None = None,
    teller: Callable[[str], None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    card: Card | None = None,
    start: Adapter | None = None,
    beneath: Chain | Adapter | None = None,
    ledger: Ledger | None = None,
    team: Team = ALONE,
    beside: int = 1,
) -> Result:
    """`train` with a ready configuration; tells how it went.

    Args:
        base: the frozen model.
        data: rows to learn.
        config: all settings.
        name: the adapter's name.
        validation: rows that choose the checkpoint, none of them learned; by default a share of
            the data.
        neighbours: rows on which the adapted model is held to the base by `kl_weight`.
        watcher: is told the progress at every step.
        teller: is told in words, before the first step, what was derived and why, and at the end
            where it ended early.
        checkpoints: a folder for the state, of an interrupted run or at the end.
        resume: go on from the state in `checkpoints`.
        card: what to put on the adapter's card besides what is known here.
        start: an adapter of this base to go on from. Rank, alpha and targets that `config` does
            not set are the start's own; a higher rank or more targets begin at zero beside it.
        beneath: a chain of this base that acts while the adapter trains, and does not change: the
            adapter is what comes on top of it. With `orthogonality` λ the loss grows by
            λ Σ ‖A Aᵢᵀ‖²_F over its adapters' own A (Wang et al. 2023, arXiv:2310.14152).
        ledger: an account that lies in the state, and goes on with it.
        team: the processes that train together. Each takes its share of every batch's rows, and
            the sum of the gradients is that of one process; all end with the same adapter.
        beside: other trainings that share this machine's memory, this one among them.

    Raises:
        As `train`; WrongBase: a start that cannot be gone on with; ConfigError: that too, or a team
            for a loss of one's own or with neighbours.
        KeyboardInterrupt passes through after the state was saved; a second one at once.
    """
    began = time.monotonic()
    begun = None if start is None else of_base(start, base)
    if begun is not None:
        config = settled(config, begun)
    material = material_of(base, data, config, validation)
    plan = derive(config, base.model.config.get_text_config().hidden_size, material.count)
    for reason in (*plan.reasons, *material.told):
        if teller:
            teller(reason)
    if config.objective or neighbours:
        team.check_alone(text("training with a loss of one's own or with neighbours"))
    learner = _Learner(base, config, material, begun, Under.of(base, beneath), neighbours, team)
    known = _identity(learner, start, neighbours)
    for reason in learner.settle(plan.steps, checkpoints if resume else None, known, beside):
        if teller:
            teller(reason)
    bare = None if begun is None and beneath is None else learner.bare_loss()
    run = Run(
        known, watcher, checkpoints, resume, config.patience if material.held else 0, teller,
        ledger, team, None if base.is_spread else learner.fit,
    )  # fmt: skip
    with base.hold(learner.contents()) as slots:
        state = descend(
            learner.factors, plan, config, partial(learner.step, slots),
            partial(learner.judge, slots), run,
        )  # fmt: skip
    full = _card(card or Card(), base, config, plan, material.kept, start)
    adapter = learner.adapter(state, name, full).with_(test_rows=material.tests(config.tests))
    _check_effect(base, adapter, material.judged[0])
    return Result(
        adapter, plan, state.first_loss, state.best_loss, state.best_step,
        time.monotonic() - began + state.earlier, len(material.kept), material.validation_rows,
        state.step, bare,
    )  # fmt: skip


class _Learner:
    """What learns on a frozen base: factors in its slots; the losses of a step, of a validation."""

    def __init__(
        self,
        base: Base,
        config: TrainConfig,
        material: Material,
        begun: Adapter | None,
        under: Under,
        neighbours: Sequence[Example | Plain],
        team: Team,
    ) -> None:
        self.base = base
        self.team = team
        self.config = config
        self.material = material
        self.under = under
        layers = base.slots.named(config.targets)
        self.factors = factors_of(base.slots, layers, config, base.device)
        if begun is not None:
            self.factors.begin_with(updates_of(begun, base, config))
        self.objective = find_objective(config.objective) if config.objective else None
        self.forward, self.head = base.forward, base.head  # made while the slots are empty
        self.fit = Fit(config, config.batch_size)  # until it is settled
        self.neighbours = Neighbours(base, neighbours, config)

    def settle(
        self, steps: int, checkpoints: Path | None, known: Identity, beside: int
    ) -> list[Text]:
        """Decide what is in memory at once, as an interrupted run did where there was one; what is
        to be told of it. Call it while the slots are empty.
        """
        before = read_told(checkpoints, known) if checkpoints else None
        lengths = self.material.batches.lengths
        self.fit = fitted(
            self.base, self.config, lengths, self.material.judged_lengths,
            packs=self.forward.packs_rows_of(max(lengths)), processes=self.team.size,
            beside=self.team.beside * beside, kept=(before or {}).get("fit"),
        )  # fmt: skip
        told = [self.fit.told] if self.fit.told else []
        if not self.forward.packs:
            told.append(text("a model of this kind cannot read rows in one line, so they are "
                             "padded"))  # fmt: skip
        self.fit.prefix = self.fit.prefix is not False and self._remember(steps)
        if self.forward.prefix:
            told.append(
                text("the layers below the lowest adapted one run once a row: {size:.0f} MB are "
                     "kept", size=self.forward.prefix.taken / 1e6)
            )  # fmt: skip
        return told

    def _remember(self, steps: int) -> bool:
        """Keep what frozen first layers say of rows that come again, where there is room."""
        judged = [row[there.bool()] for batch in self.material.judged
                  for row, there in zip(batch.ids, batch.mask, strict=True)]  # fmt: skip
        rows = [*self.material.batches.ids, *judged]
        seen = steps * self.config.batch_size + self.config.validations * len(judged)
        if not self.config.keep_prefix or self.base.is_spread or seen <= len(rows):
            return False
        if self.fit.again and not self.fit.prefix:  # memory is short
            return False
        self.forward = self.forward.remembering(self.contents(), rows, self.fit.room)
        return self.forward.prefix is not None

    def contents(self) -> dict[str, Content]:
        """What the slots hold while the factors are as they are."""
        return self.under.with_(self.factors.contents())

    def step(self, slots: SlotSet, number: int) -> Step:
        """The loss on a batch's answers, and what pulls beside it."""
        batch = self.material.batches[number]
        count = batch.supervised

        def share(given: tuple[Batch, float]) -> Tensor:
            self._act(slots)
            part, weight = given
            return self.loss(part.to(self.base.device), count) * weight

        total, loss = in_parts(self._parts(batch), share)
        if self.neighbours:
            forward = self.base.forward.recomputing() if self.fit.again else self.base.forward
            act = partial(self._act, slots)
            total = total + self.neighbours.pull(number, act, forward, self.fit.parts)
            self._act(slots)  # whatever runs again in the backward finds what acted
        if self.config.orthogonality and self.under.downs:
            weight = self.config.orthogonality / self.team.size
            total = total + weight * self.under.overlap(self.factors)
        return Step(total, loss, int(batch.mask.sum()))

    def _parts(self, batch: Batch) -> list[tuple[Batch, float]]:
        """What of a batch this process runs, and how much each part counts.

        Where the base is spread over a team, all its processes run as many parts, for they gather
        its layers together: who has fewer rows runs a single token more, for nothing.
        """
        if self.team.size == 1:
            return [(part, 1.0) for part in self.fit.parts(batch)]
        places = self.team.places(len(batch.ids))
        own = self.fit.parts(batch.rows(places)) if places else []
        largest = self.team.largest(len(batch.ids))
        missing = -(-largest // min(self.fit.rows or largest, largest)) - len(own)
        return [*((part, 1.0) for part in own), *([(batch.shortest(), 0.0)] * missing)]

    def judge(self, slots: SlotSet, pause: Pause) -> float:
        """The mean loss of the rows that judge."""
        self._act(slots)
        return self._mean_loss(pause)

    def bare_loss(self) -> float:
        """The same of the bare base. Raises SlotsBusy: somebody else holds the slots."""
        with self.base.hold({}):
            return self._mean_loss(_go_on)

    def _mean_loss(self, pause: Pause) -> float:
        team = ALONE if self.base.is_spread else self.team  # all run all of it then, together
        rows = None if self.objective else self.fit.judged
        return mean_loss(self.loss, self.material.judged, self.base.device, pause, team, rows)

    def loss(self, batch: Batch, divisor: int | None = None) -> Tensor:
        """Of a batch, or of a part of one with so many learned tokens."""
        forward = self.forward
        if self.fit.again and torch.is_grad_enabled():
            forward = forward.recomputing()
        if self.objective:
            return own_loss(forward, self.head, batch, self.objective)
        return answer_loss(forward, self.head, batch, divisor)

    def adapter(self, state: State, name: str, card: Card) -> Adapter:
        """The best factors as a value."""
        return Adapter(
            self.factors.updates(state.best), name, self.base.fingerprint, card,
            unbound=self.factors.unbound(state.best),
        )  # fmt: skip

    def _act(self, slots: SlotSet) -> None:
        if self.factors.moves:
            slots.exchange(self.contents())


def _go_on() -> None:
    """Where nobody waits to interrupt."""


def _identity(
    learner: _Learner, start: Adapter | None, neighbours: Sequence[Example | Plain]
) -> Identity:
    material, objective = learner.material, learner.objective
    return identity_of(
        learner.config,
        learner.base,
        (digest_of(rows) for rows in (material.kept, material.held, neighbours)),
        start="" if start is None else start.digest(),
        beneath=learner.under.digest,
        **{"objective.source": objective.digest if objective else ""},
    )


def _card(
    card: Card,
    base: Base,
    config: TrainConfig,
    plan: Plan,
    examples: Sequence[Example | Plain],
    start: Adapter | None,
) -> Card:
    settings = {
        **config.model_dump(mode="json"),
        "learning_rate": plan.learning_rate,
        "steps": plan.steps,
    }
    if start is not None:
        settings["start"] = {"name": start.name, "sha256": start.digest()}
    return card.with_(
        base_model=base.name,
        data_sha256=digest_of(examples),
        seeds=(config.seed,),
        config=settings,
    )


def _check_effect(base: Base, adapter: Adapter, batch: Batch) -> None:
    """An adapter that does nothing is an error: seen on a few tokens of a row that judges."""
    if not acts(base, adapter, batch.ids[:1, :PROBE]):
        raise TrainingError(
            text("the adapter does not move the base's logits"), found=text("difference 0")
        )
