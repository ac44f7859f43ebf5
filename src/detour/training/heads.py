"""Training an adapter with a head: texts with classes, or with a number.

The base stays frozen: low-rank updates of its layers and the head's own values are trained
together, as PEFT does with `modules_to_save`. Knows records and headed bases; knows no chats.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from statistics import fmean, pstdev

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.data.reading import Data, check_apart, read_data
from detour.data.records import Labelled, Valued
from detour.errors import ConfigError, DataError, TrainingError
from detour.language.catalogue import text
from detour.model.headed import HeadedBase
from detour.state_file import Identity
from detour.training.batches import Order
from detour.training.config import TrainConfig, derive
from detour.training.descend import Run, Step, Watcher, descend
from detour.training.dropping import dropping
from detour.training.factors import Snapshot
from detour.training.kinds import factors_of
from detour.training.length import check_length
from detour.training.loop import Result
from detour.training.objective import in_parts
from detour.training.own_loss import Objective, Said, find_objective
from detour.training.split import held_out

HeadRow = Labelled | Valued
JUDGED_AT_ONCE = 32
_NEW = "new."


def classes_of(records: Sequence[object]) -> list[str]:
    """The names of all classes, sorted; none where the rows have numbers.

    Raises:
        DataError: a single class.
    """
    names = sorted({record.label for record in records if isinstance(record, Labelled)})
    if len(names) == 1:
        raise DataError(
            text("every row is {label!r}: there is nothing to tell apart; add rows of another "
                 "class", label=names[0]),
        )  # fmt: skip
    return names


def train_head(
    base: HeadedBase,
    data: Data,
    config: TrainConfig,
    *,
    name: str = "adapter",
    validation: Sequence[HeadRow] | None = None,
    watcher: Watcher | None = None,
    teller: Callable[[str], None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    card: Card | None = None,
) -> Result:
    """Train an adapter and a head on texts with classes (cross-entropy) or numbers (squared error).

    Args:
        base: loaded with the classes of the data, or without any for numbers.
        data: a file of any form that `detour check` knows, rows, or records.
        config: all settings; `block` and `kl_weight` mean nothing here.
        name: the adapter's name.
        validation: rows that choose the checkpoint; by default a share of the data.
        watcher: is told the progress at every step.
        teller: is told in words what was derived and why.
        checkpoints: a folder for the state; an interrupted run leaves one there.
        resume: go on from the state in `checkpoints`.
        card: what to put on the adapter's card besides what is known here.

    Raises:
        DataError: rows of another kind, or a class that the base's head does not have.
        ConfigError: a base that is not in float32.
        TrainingError: the training made nothing better, or a state of another run.
        KeyboardInterrupt passes through after the state was saved.
    """
    began = time.monotonic()
    loaded = read_data(data)
    check_apart(loaded)
    rows = headed_rows(loaded.train, base)
    check_length(base, rows, teller)
    given = loaded.validation if validation is None else validation
    if given is None:
        kept, held = held_out(rows, lambda row: row.text, config.validation_share, config.seed)
    else:
        kept, held = rows, headed_rows(given, base)
    if base.model.dtype != torch.float32:
        raise ConfigError(
            text("a head is trained in float32"),
            expected="--dtype float32", found=str(base.model.dtype),
        )  # fmt: skip
    plan = derive(config, base.width, len(kept))
    for reason in (*plan.reasons, *(() if held else (text("the loss is taken on training rows"),))):
        if teller:
            teller(reason)
    objective = find_objective(config.objective) if config.objective else None
    scale = _Scale.of(kept, base)
    weights = _Weights(base, config)
    learned, judged = _encoded(base, kept, scale), _encoded(base, held or kept[:64], scale)
    # length may tell the class: 730 docstrings, batches of like length: .67 right; mixed: .73
    order = Order([len(ids) for ids in learned.ids], config.batch_size, config.seed, bucket=1)

    def step_of(step: int) -> Step:
        places = order[step]
        size = config.micro_batch_size or len(places)

        def share(part: Sequence[int]) -> Tensor:
            act()
            return _loss(base, learned, part, objective) * (len(part) / len(places))

        parts = [places[start : start + size] for start in range(0, len(places), size)]
        with dropping(base.model, config.seed, step):
            total, loss = in_parts(parts, share)
        return Step(total, loss, sum(len(learned.ids[place]) for place in places))

    def act() -> None:
        if weights.factors.moves:
            slots.exchange(weights.factors.contents())

    def judge() -> float:
        act()
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(judged.ids), JUDGED_AT_ONCE):
                places = list(range(start, min(start + JUDGED_AT_ONCE, len(judged.ids))))
                total += float(_loss(base, judged, places, objective)) * len(places)
        return total / len(judged.ids)

    known = _identity(config, base, (kept, held), objective)
    run = Run(known, watcher, checkpoints, resume, config.patience if held else 0)
    try:
        with base.hold(weights.factors.contents()) as slots:
            state = descend(weights, plan, config, step_of, judge, run)
    finally:
        weights.put_back()
    if state.best_step == 0:
        raise TrainingError(
            text("the training changed nothing for the better"),
            expected=text(
                "a validation loss below {first_loss:.4f}, where it began",
                first_loss=state.first_loss,
            ),
            found=text("{best_loss:.4f} at best", best_loss=state.best_loss),
            hint=text("another learning rate, or more steps"),
        )
    adapter = Adapter(
        weights.factors.updates(state.best),
        name,
        base.fingerprint,
        _card(card or Card(), base, config, plan.steps, plan.learning_rate, kept),
        unbound=replace(
            weights.factors.unbound(state.best),
            weights=scale.unfolded(weights.whole(state.best), base),
        ),
    )
    return Result(
        adapter, plan, state.first_loss, state.best_loss, state.best_step,
        time.monotonic() - began, len(kept), len(held), state.step,
    )  # fmt: skip


def headed_rows(records: Sequence[object], base: HeadedBase) -> list[HeadRow]:
    """The records, known to be what the head tells.

    Raises:
        DataError: another kind, or a class that the head does not have; names the row.
    """
    wanted = Labelled if base.labels else Valued
    found: list[HeadRow] = []
    for record in records:
        if not isinstance(record, wanted):
            raise DataError(
                text("these rows are not for {kind}", kind=base.kind),
                expected="text, label" if base.labels else "text, value",
                found=type(record).__name__,
            )
        if isinstance(record, Labelled) and record.label not in base.labels:
            raise DataError(
                text("{source} has a class that the head does not know", source=record.source),
                expected=", ".join(base.labels), found=record.label,
            )  # fmt: skip
        found.append(record)
    return found


class _Weights:
    """Low-rank factors, and the head's own parameters, which are the model's."""

    def __init__(self, base: HeadedBase, config: TrainConfig) -> None:
        wanted = base.inner_layers() if config.targets == "all-linear" else None
        layers = wanted or base.slots.named(config.targets)
        self.factors = factors_of(base.slots, layers, config, base.device)
        self.new = base.new_parameters()
        self._before = {name: tensor.detach().clone() for name, tensor in self.new.items()}
        for parameter in self.new.values():
            parameter.requires_grad_(True)

    def parameters(self) -> Iterator[nn.Parameter]:
        """Factors first."""
        yield from self.factors.parameters()
        yield from self.new.values()

    def ups(self) -> Iterator[nn.Parameter]:
        """Those of the factors."""
        return self.factors.ups()

    def snapshot(self) -> Snapshot:
        """A copy of all of it."""
        whole = {f"{_NEW}{name}": tensor.detach().clone() for name, tensor in self.new.items()}
        return {**self.factors.snapshot(), **whole}

    def restore(self, taken: Snapshot) -> None:
        """The inverse of `snapshot`."""
        self.factors.restore(taken)
        self._set({name: taken[f"{_NEW}{name}"] for name in self.new})

    def whole(self, taken: Snapshot) -> dict[str, Tensor]:
        """The head's values of a snapshot."""
        return {name: taken[f"{_NEW}{name}"].cpu() for name in self.new}

    def put_back(self) -> None:
        """The model is as it was before the training."""
        self._set(self._before)
        for parameter in self.new.values():
            parameter.requires_grad_(False)
            parameter.grad = None

    def _set(self, values: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in values.items():
                self.new[name].copy_(value)


@dataclass(frozen=True)
class _Scale:
    """Numbers are learned with mean 0 and deviation 1; the head then gives them as they were."""

    middle: float = 0.0
    spread: float = 1.0

    @staticmethod
    def of(rows: Sequence[HeadRow], base: HeadedBase) -> _Scale:
        """By the training rows; a head without a bias cannot shift, so there the mean stays."""
        values = [row.value for row in rows if isinstance(row, Valued)]
        if not values:
            return _Scale()
        if getattr(base.projection, "bias", None) is None:
            return _Scale(0.0, math.sqrt(fmean(v * v for v in values)) or 1.0)
        return _Scale(fmean(values), pstdev(values) or 1.0)

    def unfolded(self, whole: Mapping[str, Tensor], base: HeadedBase) -> dict[str, Tensor]:
        """The head's values with mean and deviation put into its last layer."""
        if self == _Scale():
            return dict(whole)
        last = {id(parameter) for parameter in base.projection.parameters()}
        found: dict[str, Tensor] = {}
        for name, tensor in whole.items():
            if id(base.model.get_parameter(name)) not in last:
                found[name] = tensor
            elif tensor.ndim == 1:
                found[name] = tensor * self.spread + self.middle
            else:
                found[name] = tensor * self.spread
        return found


@dataclass(frozen=True)
class _Encoded:
    ids: list[list[int]]
    targets: Tensor
    """Numbers of classes (int64), or scaled values (float32)."""


def _encoded(base: HeadedBase, rows: Sequence[HeadRow], scale: _Scale) -> _Encoded:
    places = {label: place for place, label in enumerate(base.labels)}
    ids = base.encode([row.text for row in rows])
    if base.labels:
        chosen = [places[row.label] for row in rows if isinstance(row, Labelled)]
        return _Encoded(ids, torch.tensor(chosen))
    values = [(row.value - scale.middle) / scale.spread for row in rows if isinstance(row, Valued)]
    return _Encoded(ids, torch.tensor(values))


def _loss(base: HeadedBase, rows: _Encoded, places: Sequence[int], own: Objective | None) -> Tensor:
    """Mean over the rows: cross-entropy in nats, the squared error of scaled values, or an own."""
    outputs = base.forward([rows.ids[place] for place in places])
    wanted = rows.targets[list(places)].to(outputs.device)
    if own:
        return own(
            Said(outputs.float(), wanted, torch.arange(len(wanted), device=wanted.device),
                 len(wanted))
        )  # fmt: skip
    return cross_entropy(outputs, wanted) if base.labels else mse_loss(outputs[:, 0], wanted)


def _identity(
    config: TrainConfig,
    base: HeadedBase,
    data: Sequence[Sequence[HeadRow]],
    objective: Objective | None,
) -> Identity:
    settings = {name: json.dumps(v) for name, v in config.model_dump(mode="json").items()}
    return {
        "base": json.dumps(base.fingerprint.to_json()),
        "labels": json.dumps(base.labels),
        "data": " ".join(_digest(rows) for rows in data),
        "objective.source": objective.digest if objective else "",
        **settings,
    }


def _digest(rows: Sequence[HeadRow]) -> str:
    told = [[row.text, row.label if isinstance(row, Labelled) else row.value] for row in rows]
    return sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def _card(
    card: Card,
    base: HeadedBase,
    config: TrainConfig,
    steps: int,
    rate: float,
    rows: Sequence[HeadRow],
) -> Card:
    settings = config.model_dump(mode="json", exclude={"block", "kl_weight"})
    return card.with_(
        base_model=base.name,
        data_sha256=_digest(rows),
        seeds=(config.seed,),
        config={
            **settings,
            "learning_rate": rate,
            "steps": steps,
            "head": {"kind": base.kind, "labels": list(base.labels), "pooling": base.pooling},
            "peft": {"task_type": "SEQ_CLS"},
        },
    )
