"""What a worker does: load the base once, then look at it, train trials, and judge the best.

Runs in processes of their own, so everything here can be pickled. Knows bases, rows and trainings;
knows no study.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detour.adapter.adapter import Adapter
from detour.errors import TrainingError
from detour.fanout.jobs import Ask
from detour.measure.metrics import normalised
from detour.measure.retention import retention
from detour.model.base import Base
from detour.model.examples import Example, Plain, digest_of
from detour.model.likelihood import log_likelihoods
from detour.model.rows import encode
from detour.training.config import derive, make_config
from detour.training.descend import Progress
from detour.training.loop import train_with
from detour.training.material import material_of, mean_loss, tokenizer_of
from detour.training.objective import answer_loss
from detour.training.tune.space import Targets

Row = Example | Plain


@dataclass(frozen=True)
class Rows:
    """What is learned, what chooses, and what is only looked at in the end."""

    learned: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]

    @property
    def digest(self) -> str:
        """Which rows these are."""
        return " ".join(map(digest_of, (self.learned, self.validation, self.test)))


@dataclass(frozen=True)
class Setting:
    """The base and the rows, as told to every worker; calling it makes the worker ready."""

    base: str
    rows: Rows
    device: str | None = None
    dtype: str | None = None
    quantize: str | None = None
    workers: int = 1
    """That may share this machine's memory."""

    def __call__(self) -> Ready:
        """Load the base. Raises as `Base.load`."""
        base = Base.load(
            self.base, dtype=self.dtype, device=self.device, quantize=self.quantize
        )  # fmt: skip
        return Ready(base, self.rows, self.workers)


@dataclass(frozen=True)
class Ready:
    """What a worker keeps from job to job."""

    base: Base
    rows: Rows
    workers: int = 1


@dataclass(frozen=True)
class Seen:
    """What is known of base and rows before the first trial.

    Attributes:
        base: the base's name.
        fingerprint: which weights these are.
        learning_rate, steps: what the default configuration takes.
        untrained: validation loss of the base (nats a token).
        groups: suffixes of layers that belong together, such as those of attention.
    """

    base: str
    fingerprint: Mapping[str, Any]
    learning_rate: float
    steps: int
    untrained: float
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Look:
    """What to look at: settings of every trial, and all targets that a trial may have."""

    fixed: Mapping[str, Any]
    targets: Sequence[Targets]


def look(ready: Ready, wanted: Look, _: Ask) -> Seen:
    """The base and the rows.

    Raises:
        SlotError: targets that name no layer.
        DataError, BaseError: rows or a tokenizer that cannot be used.
    """
    base = ready.base
    for targets in wanted.targets:
        base.slots.named(targets)
    config = make_config(wanted.fixed)
    material = material_of(base, ready.rows.learned, config, ready.rows.validation)
    plan = derive(config, base.model.config.get_text_config().hidden_size, material.count)
    forward, head = base.forward, base.head
    untrained = mean_loss(
        lambda batch: answer_loss(forward, head, batch), material.judged, base.device, lambda: None
    )
    return Seen(base.name, base.fingerprint.to_json(), plan.learning_rate, plan.steps, untrained,
                groups_of(base.slots.linear_names()))  # fmt: skip


def groups_of(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """`…self_attn.q_proj` and `…mlp.up_proj` as two groups of suffixes, each once, in order."""
    groups: dict[str, dict[str, None]] = {}
    for name in names:
        parts = name.split(".")
        if len(parts) > 1:
            groups.setdefault(parts[-2], {})[".".join(parts[-2:])] = None
    return tuple(tuple(suffixes) for suffixes in groups.values())


@dataclass(frozen=True)
class Measured:
    """A trial that is over.

    Attributes:
        value: its best validation loss (nats a token); None where it was pruned.
        seconds: how long it took.
        remark: why nothing was learned, where that is so.
    """

    value: float | None
    seconds: float
    remark: str = ""


class _Pruned(Exception):
    """The study has seen enough of this trial."""


@dataclass(frozen=True)
class Asked:
    """A trial's number, its settings, and the base's loss, which one that learns nothing has."""

    number: int
    settings: Mapping[str, Any]
    untrained: float


def run_trial(ready: Ready, asked: Asked, ask: Ask) -> Measured:
    """Train with some settings; `ask((how many validations, loss))` says whether to go on.

    Raises:
        ConfigError, SlotError: settings that do not go together or do not fit the base.
    """
    began = time.monotonic()
    told = 0

    def watch(progress: Progress) -> None:
        nonlocal told
        if progress.validation is not None:
            told += 1
            if not ask((told, progress.validation)):
                raise _Pruned

    try:
        result = train_with(
            ready.base, ready.rows.learned, make_config(asked.settings),
            validation=ready.rows.validation, watcher=watch, beside=ready.workers,
        )  # fmt: skip
    except _Pruned:
        return Measured(None, time.monotonic() - began)
    except TrainingError as fault:
        return Measured(asked.untrained, time.monotonic() - began, str(fault))
    return Measured(result.best_loss, time.monotonic() - began)


@dataclass(frozen=True)
class Judged:
    """A configuration on rows that no trial has seen.

    Attributes:
        losses: by question (rows that ask the same are one) nats and tokens.
        adapter: what was trained; None where nothing was learned.
        kl: of neutral text, KL(base || adapted) in nats a token: what was changed besides.
    """

    losses: tuple[tuple[float, int], ...]
    adapter: Adapter | None
    kl: float


def judge(ready: Ready, asked: tuple[str, Mapping[str, Any]], _: Ask) -> Judged:
    """Train once more and take the loss on the test rows.

    Raises: as `run_trial`.
    """
    name, settings = asked
    config = make_config(settings)
    try:
        adapter = train_with(
            ready.base, ready.rows.learned, config, name=name, validation=ready.rows.validation
        ).adapter
    except TrainingError:
        adapter = None
    kl = retention(ready.base, adapter).kl_mean if adapter else 0.0
    return Judged(losses_of(ready.base, ready.rows.test, adapter, config.block), adapter, kl)


def losses_of(
    base: Base, rows: Sequence[Row], adapter: Adapter | None, block: int
) -> tuple[tuple[float, int], ...]:
    """By question the loss (nats) and the tokens it is over."""
    tokenizer = tokenizer_of(base)
    encoded = [
        (normalised(row.prompt), one)
        for row in rows
        for one in encode(tokenizer, [row], base.longest, block)
    ]
    likely = log_likelihoods(base, [one for _, one in encoded], adapter)
    found: dict[str, tuple[float, int]] = {}
    for (question, one), told in zip(encoded, likely, strict=True):
        nats, tokens = found.get(question, (0.0, 0))
        found[question] = (nats - told, tokens + sum(one.learned[1:]))
    return tuple(found.values())
