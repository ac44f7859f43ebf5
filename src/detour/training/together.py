"""Adapters that learn to be stacked: several at once, or one in the company of finished ones.

Every row names the adapters that act on it, and how strongly; its answer is what all of these
together shall say. So an adapter meets the others while it can still make room for them. Reads as
`loop` does. Knows bases and rows; knows nothing of facts, styles or commands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.errors import ConfigError, DataError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, Plain, digest_of
from detour.model.rows import Batch, Encoded, encode, fixed
from detour.slots.content import Content
from detour.training.batches import Batches
from detour.training.config import Plan, TrainConfig, derive, make_config
from detour.training.descend import Ledger, Pause, Run, Step, Watcher, descend
from detour.training.fit import JUDGED_AT_ONCE
from detour.training.identity import identity_of
from detour.training.kinds import size_of
from detour.training.material import judges, mean_loss, tokenizer_of
from detour.training.objective import answer_loss, in_parts
from detour.training.split import held_out
from detour.training.stacked import Stacked

PLAIN_ONLY = ("dora", "init", "objective", "kl_weight", "orthogonality", "checkpointing")


@dataclass(frozen=True)
class Composed:
    """A row, and the adapters that act on it, by name; one that is not named does not."""

    row: Example | Plain
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Ensemble:
    """What a training together gave.

    Attributes:
        adapters: by name, those that learned.
        plan: rate and steps.
        first_loss: before the first step, nats a token.
        best_loss: that of the adapters.
        best_step: after which they are taken.
        seconds: that it took.
        rows: that were learned.
        validation_rows: that chose the checkpoint; 0 where nothing was held out.
        steps: that were taken: fewer than planned where nothing got better any more.
    """

    adapters: Mapping[str, Adapter]
    plan: Plan
    first_loss: float
    best_loss: float
    best_step: int
    seconds: float
    rows: int
    validation_rows: int = 0
    steps: int = 0


def train_together(
    base: Base,
    rows: Sequence[Composed],
    names: Sequence[str],
    config: TrainConfig,
    *,
    company: Mapping[str, Adapter] | None = None,
    start: Mapping[str, Adapter] | None = None,
    validation: Sequence[Composed] | None = None,
    watcher: Watcher | None = None,
    teller: Callable[[str], None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    ledger: Ledger | None = None,
) -> Ensemble:
    """Train the named adapters on rows of chains.

    Args:
        base: the frozen model.
        rows: with the adapters that act on each.
        names: of the adapters that learn.
        config: of each of them; rank and alpha are those of one.
        company: others that act and stay as they are.
        start: adapters of this base at which some of the named begin, of at most that rank.
        validation: rows that choose the checkpoint; by default a share of `rows`.
        watcher: is told the progress at every step.
        teller: is told in words what was derived.
        checkpoints: a folder for the state of an interrupted run.
        resume: go on from there.
        ledger: an account that lies in the state, and goes on with it.

    Raises:
        ConfigError: a setting that such a training does not know, a name that comes twice, or an
            adapter of the output layer.
        DataError: a row that names an adapter that is not there, or on which none acts.
        WrongBase, SlotError: an adapter of another base.
        TrainingError: nothing got better.
        SlotsBusy: somebody else holds the slots.
        KeyboardInterrupt passes through after the state was saved.
    """
    began = time.monotonic()
    present = {name: _bound(base, one) for name, one in (company or {}).items()}
    columns = [*names, *present]
    _check(config, columns, [*rows, *(validation or ())])
    kept, held = _parted(rows, validation, config)
    learned, judged = (_encoded(base, part, columns, config) for part in (kept, held))
    plan = derive(config, base.model.config.get_text_config().hidden_size, len(learned))
    for reason in plan.reasons:
        if teller:
            teller(reason)
    layers = base.slots.named(config.targets)
    check_head(base, "targets", layers)
    for name, one in present.items():
        check_head(base, name, one.updates)
    factors = Stacked(
        {layer: base.slots.shapes[layer] for layer in layers},
        {layer: size_of(config, layer) for layer in layers},
        [config.seed + place for place in range(len(names))], list(present.values()), base.device,
    )  # fmt: skip
    for name, adapter in (start or {}).items():
        factors.begin_with(list(names).index(name), _bound(base, adapter).updates)
    batches = Batches(learned, config.batch_size, base.pad_id, config.seed)
    judging = judges(judged, learned, config.seed, teller or (lambda _: None))
    learner = _Learner(base, factors, batches, config, fixed(judging, JUDGED_AT_ONCE, base.pad_id))
    known = identity_of(
        config, base, (_digest(part) for part in (kept, held)), together=" ".join(names),
        company=" ".join(one.digest() for one in present.values()),
        start=" ".join(f"{name} {one.digest()}" for name, one in (start or {}).items()),
    )  # fmt: skip
    run = Run(
        known, watcher, checkpoints, resume, config.patience if held else 0, teller, ledger
    )  # fmt: skip
    with base.hold(learner.contents(judging[0])):
        state = descend(factors, plan, config, learner.step, learner.judge, run)
    made = {
        name: Adapter(
            factors.updates(state.best, place), name, base.fingerprint,
            _card(base, config, plan, kept, name, columns), _tests(held, name, config.tests),
        )
        for place, name in enumerate(names)
    }  # fmt: skip
    return Ensemble(
        made, plan, state.first_loss, state.best_loss, state.best_step,
        time.monotonic() - began + state.earlier, len(kept), min(len(held), len(judging)),
        state.step,
    )  # fmt: skip


class _Learner:
    """Losses of a step and of a validation, with what acts on each row in the slots."""

    def __init__(
        self,
        base: Base,
        factors: Stacked,
        batches: Batches,
        config: TrainConfig,
        judged: Sequence[Batch],
    ) -> None:
        self.base, self.factors, self.batches = base, factors, batches
        self.parts, self.judged = config.micro_batch_size, judged
        self.forward, self.head = base.forward, base.head  # made while the slots are empty

    def contents(self, row: Encoded) -> Mapping[str, Content]:
        """Of one row: what is held before the first batch comes."""
        return self.factors.contents(torch.tensor([row.gate], device=self.base.device))

    def step(self, number: int) -> Step:
        """The loss on a batch's answers."""
        batch = self.batches[number]
        share = partial(self.loss, divisor=batch.supervised)
        total, loss = in_parts(batch.parts(self.parts), share)
        return Step(total, loss, int(batch.mask.sum()))

    def judge(self, pause: Pause) -> float:
        """The mean loss of the rows that judge."""
        return mean_loss(self.loss, self.judged, self.base.device, pause, rows=self.parts)

    def loss(self, batch: Batch, divisor: int | None = None) -> Float[Tensor, ""]:
        """Of a batch, or of a part of one with so many learned tokens."""
        own = batch.to(self.base.device)
        assert own.gate is not None
        self.base.slots.exchange(self.factors.contents(own.gate))
        with self.base.slots.rows(*self.forward.row_index(own)):
            return answer_loss(self.forward, self.head, own, divisor)


def _bound(base: Base, adapter: Adapter) -> Adapter:
    (term,) = base.bind(Chain.of(adapter)).terms
    return term.adapter


def check_plain(config: TrainConfig) -> None:
    """Refuse settings that adapters which learn together do not know. Raises ConfigError."""
    usual = make_config({})
    for setting in PLAIN_ONLY:
        if getattr(config, setting) != getattr(usual, setting):
            raise ConfigError(
                text("{setting} is not known where adapters learn together", setting=setting),
                hint=text("leave it out"),
            )


def _check(config: TrainConfig, columns: Sequence[str], rows: Sequence[Composed]) -> None:
    check_plain(config)
    if twice := [name for name in columns if columns.count(name) > 1]:
        raise ConfigError(text("two adapters are called {name}", name=twice[0]))
    for composed in rows:
        place = composed.row.source or text("a row")
        if unknown := set(composed.weights) - set(columns):
            raise DataError(
                text("{place} names an adapter that is not there", place=place),
                expected=", ".join(columns), found=", ".join(sorted(unknown)),
            )  # fmt: skip
        if not any(composed.weights.values()):
            raise DataError(
                text("on {place} no adapter acts", place=place),
                expected=text("a weight that is not 0"),
            )


def check_head(base: Base, who: str, layers: Iterable[str]) -> None:
    """Refuse what changes the output layer: it sees answers only, and knows no rows."""
    outer = {*base.slots.linear_names(exclude_head=False)} - {*base.slots.linear_names()}
    if found := outer & {*layers}:
        raise ConfigError(
            text("{who}: the output layer cannot be changed row by row", who=who),
            expected=text("other layers only"), found=", ".join(found),
        )  # fmt: skip


def _parted(
    rows: Sequence[Composed], validation: Sequence[Composed] | None, config: TrainConfig
) -> tuple[list[Composed], list[Composed]]:
    if validation is not None:
        return list(rows), list(validation)
    return held_out(rows, lambda one: one.row.prompt, config.validation_share, config.seed)


def _encoded(
    base: Base, rows: Sequence[Composed], columns: Sequence[str], config: TrainConfig
) -> list[Encoded]:
    """Every row, or block of a text, with its gate."""
    tokenizer = tokenizer_of(base)
    return [
        replace(one, gate=tuple(float(composed.weights.get(name, 0.0)) for name in columns))
        for composed in rows
        for one in encode(tokenizer, [composed.row], base.longest, config.block)
    ]


def _digest(rows: Sequence[Composed]) -> str:
    told = json.dumps([sorted(one.weights.items()) for one in rows], ensure_ascii=False)
    return sha256((digest_of([one.row for one in rows]) + told).encode()).hexdigest()


def _tests(held: Sequence[Composed], name: str, most: int) -> tuple[dict[str, Any], ...]:
    """Held-out conversations on which only this adapter acts, to be kept beside it."""
    alone = [
        one.row for one in held
        if isinstance(one.row, Example) and {n for n, w in one.weights.items() if w} == {name}
    ][:most]  # fmt: skip
    return tuple({"messages": [dict(turn) for turn in row.messages]} for row in alone)


def _card(
    base: Base,
    config: TrainConfig,
    plan: Plan,
    rows: Sequence[Composed],
    name: str,
    columns: Sequence[str],
) -> Card:
    settings = {
        **config.model_dump(mode="json"),
        "learning_rate": plan.learning_rate,
        "steps": plan.steps,
        "company": [other for other in columns if other != name],
    }
    return Card(
        base_model=base.name, data_sha256=_digest(rows), seeds=(config.seed,), config=settings
    )
