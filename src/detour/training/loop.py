"""Training one adapter: data to rows, rows to batches, batches through the frozen base.

Reads top to bottom. The base is never changed: what is trained sits in its slots. The checkpoint
with the lowest validation loss is kept, and a training that changed nothing is an error. Knows
nothing of facts, reports or commands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.data.reading import Data
from detour.errors import TrainingError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, Plain, digest_of
from detour.model.rows import Batch, encode, fixed
from detour.state_file import Identity
from detour.training.checkpoint import State
from detour.training.config import Plan, TrainConfig, derive, make_config
from detour.training.descend import Progress as Progress
from detour.training.descend import Run, Step, Watcher, descend
from detour.training.kinds import factors_of
from detour.training.material import material_of, mean_loss, tokenizer_of
from detour.training.objective import (
    answer_loss,
    base_log_probabilities,
    in_parts,
    kl_to_base,
    own_loss,
)
from detour.training.own_loss import Objective, find_objective
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
    validation, neighbours, watcher, teller, checkpoints, resume, card, start, beneath). With
    `start`, a rank, alpha or targets left at their defaults are the start's own.

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
) -> Result:
    """`train` with a ready configuration; tells how it went.

    Args:
        base: the frozen model.
        data: rows to learn.
        config: all settings.
        name: the adapter's name.
        validation: rows that choose the checkpoint; by default a share of the data.
        neighbours: rows on which the adapted model is held to the base by `kl_weight`.
        watcher: is told the progress at every step.
        teller: is told in words, before the first step, what was derived and why.
        checkpoints: a folder for the state; an interrupted run leaves one there.
        resume: go on from the state in `checkpoints`.
        card: what to put on the adapter's card besides what is known here.
        start: an adapter of this base to go on from. Rank, alpha and targets that `config` does
            not set are the start's own; a higher rank or more targets begin at zero beside it.
        beneath: a chain of this base that acts while the adapter trains, and does not change: the
            adapter is what comes on top of it. With `orthogonality` λ the loss grows by
            λ Σ ‖A Aᵢᵀ‖²_F over its adapters' own A (Wang et al. 2023, arXiv:2310.14152).

    Raises:
        As `train`; ConfigError, WrongBase: a start that cannot be gone on with.
        KeyboardInterrupt passes through after the state was saved.
    """
    began = time.monotonic()
    begun: Adapter | None = None
    if start is not None:
        begun = of_base(start, base)
        config = settled(config, begun)
    material = material_of(base, data, config, validation)
    kept, held, judged = material.kept, material.held, material.judged
    plan = derive(config, base.model.config.get_text_config().hidden_size, material.count)
    for reason in material.remarks(plan.reasons):
        if teller:
            teller(reason)
    beside = encode(tokenizer_of(base), neighbours, base.longest, config.block)
    anchors = fixed(beside, config.batch_size, base.pad_id)

    layers = base.slots.named(config.targets)
    factors = factors_of(base.slots, layers, config, base.device)
    if begun is not None:
        factors.begin_with(updates_of(begun, base, config))
    under = Under.of(base, beneath)
    objective = find_objective(config.objective) if config.objective else None
    known = _identity(config, base, (kept, held, neighbours), start, under, objective)
    head, forward = base.head, base.forward
    held_to = [
        [(part, base_log_probabilities(forward, head, part.to(base.device))) for part in parts]
        for parts in (anchor.parts(config.micro_batch_size) for anchor in anchors)
    ]

    def loss_of(batch: Batch, divisor: int | None = None) -> Tensor:
        if objective:
            return own_loss(forward, head, batch, objective)
        return answer_loss(forward, head, batch, divisor)

    def step_of(step: int) -> Step:
        batch = material.batches[step]
        count = batch.supervised

        def share(part: Batch) -> Tensor:
            act()
            return loss_of(part.to(base.device), count)

        total, loss = in_parts(batch.parts(config.micro_batch_size), share)
        if anchors and config.kl_weight:
            place = step % len(anchors)
            whole = anchors[place].supervised

            def pull(given: tuple[Batch, Tensor]) -> Tensor:
                act()
                part, bare = given[0].to(base.device), given[1]
                held = config.kl_weight * kl_to_base(forward, head, part, bare)
                return held * (part.supervised / whole)

            total = total + in_parts(held_to[place], pull)[0]
        if config.orthogonality and under.downs:
            total = total + config.orthogonality * under.overlap(factors)
        return Step(total, loss, int(batch.mask.sum()))

    def judge() -> float:
        act()
        return mean_loss(loss_of, judged, base.device)

    def act() -> None:
        if factors.moves:
            slots.exchange(under.with_(factors.contents()))

    with base.hold(under.with_(factors.contents())) as slots:
        state = descend(
            factors, plan, config, step_of, judge,
            Run(known, watcher, checkpoints, resume, config.patience if held else 0),
        )  # fmt: skip
    if teller and state.step < plan.steps:
        teller(
            text("stopped after step {step} of {steps}: {count} validations without a better loss",
                 step=state.step, steps=plan.steps, count=config.patience)
        )  # fmt: skip
    full = _card(card or Card(), base, config, plan, kept, start)
    adapter = Adapter(
        factors.updates(state.best), name, base.fingerprint, full,
        unbound=factors.unbound(state.best),
    )  # fmt: skip
    _check_effect(base, adapter, state, judged[0])
    return Result(
        adapter, plan, state.first_loss, state.best_loss, state.best_step,
        time.monotonic() - began, len(kept), len(held), state.step,
    )  # fmt: skip


def _identity(
    config: TrainConfig,
    base: Base,
    data: Sequence[Sequence[Example | Plain]],
    start: Adapter | None,
    under: Under,
    objective: Objective | None,
) -> Identity:
    """What must be equal for a checkpoint to fit."""
    settings = {name: json.dumps(v) for name, v in config.model_dump(mode="json").items()}
    return {
        "base": json.dumps(base.fingerprint.to_json()),
        "start": "" if start is None else start.digest(),
        "beneath": under.digest,
        "objective.source": objective.digest if objective else "",
        "data": " ".join(digest_of(examples) for examples in data),
        **settings,
    }


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


def _check_effect(base: Base, adapter: Adapter, state: State, batch: Batch) -> None:
    """A training that changed nothing is an error, not an adapter."""
    if state.best_step == 0 or adapter.norm() == 0:
        raise TrainingError(
            text("the training changed nothing for the better"),
            expected=text(
                "a validation loss below {first_loss:.4f}, where it began",
                first_loss=state.first_loss,
            ),
            found=text("{best_loss:.4f} at best", best_loss=state.best_loss),
            hint=text("another learning rate, more steps, or rows that the base does not know yet"),
        )
    difference = base.logits(batch.ids, adapter) - base.logits(batch.ids)
    if float(difference.abs().max()) == 0.0:
        raise TrainingError(
            text("the adapter does not move the base's logits"), found=text("difference 0")
        )
