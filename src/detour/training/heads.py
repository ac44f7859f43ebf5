"""Training an adapter with a head: texts with classes, or with a number.

The base stays frozen: low-rank updates of its layers and the head's own values are trained
together, as PEFT does with `modules_to_save`. Knows records and headed bases; knows no chats.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, mse_loss

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.data.reading import Data, Loaded, check_apart, read_data
from detour.data.records import Labelled, Valued
from detour.errors import ConfigError, DataError
from detour.language.catalogue import text
from detour.model.headed import HeadedBase
from detour.slots.install import SlotSet
from detour.training.batches import Order
from detour.training.checkpoint import State
from detour.training.config import Plan, TrainConfig, derive
from detour.training.descend import Ledger, Pause, Run, Step, Watcher, descend
from detour.training.dropping import dropping
from detour.training.head_weights import HeadRow, HeadWeights, Scale
from detour.training.identity import identity_of
from detour.training.length import check_length
from detour.training.loop import Result
from detour.training.material import judges, with_validation
from detour.training.objective import in_parts
from detour.training.own_loss import Objective, Said, find_objective
from detour.training.split import held_out

JUDGED_AT_ONCE = 32


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
    ledger: Ledger | None = None,
) -> Result:
    """Train an adapter and a head on texts with classes (cross-entropy) or numbers (squared error).

    Args:
        base: loaded with the classes of the data, or without any for numbers.
        data: a file of any form that `detour check` knows, rows, or records.
        config: all settings; `block`, `kl_weight` and `keep_prefix` mean nothing here. Dropout is
            drawn for each part of a step, so `micro_batch_size` changes what is learned a little.
        name: the adapter's name.
        validation: rows that choose the checkpoint; by default a share of the data.
        watcher: is told the progress at every step.
        teller: is told in words what was derived and why.
        checkpoints: a folder for the state, of an interrupted run or at the end.
        resume: go on from the state in `checkpoints`.
        card: what to put on the adapter's card besides what is known here.
        ledger: an account that lies in the state, and goes on with it.

    Raises:
        DataError: rows of another kind, a class that the base's head does not have, or rows that
            judge and are learned too.
        ConfigError: a base that is not in float32; `checkpointing`.
        TrainingError: the training made nothing better, or a state of another run.
        KeyboardInterrupt passes through after the state was saved.
    """
    began = time.monotonic()
    if base.model.dtype != torch.float32:
        raise ConfigError(
            text("a head is trained in float32"),
            expected="--dtype float32", found=str(base.model.dtype),
        )  # fmt: skip
    if config.checkpointing is not None:
        raise ConfigError(
            text("{names} mean nothing where a head is trained", names="checkpointing"),
            hint=text("leave them away"),
        )
    lesson = _Lesson.of(base, data, config, validation, teller)
    plan = derive(config, base.width, len(lesson.kept))
    for reason in (*plan.reasons, *lesson.told):
        if teller:
            teller(reason)
    objective = find_objective(config.objective) if config.objective else None
    learner = _Learner(base, config, lesson, objective)
    run = Run(
        identity_of(
            config, base, (digest_of_rows(rows) for rows in (lesson.kept, lesson.held)),
            labels=json.dumps(base.labels),
            micro_batch_size=json.dumps(config.micro_batch_size),  # dropout is dealt to parts
            **{"objective.source": objective.digest if objective else ""},
        ),
        watcher, checkpoints, resume, config.patience if lesson.held else 0, teller, ledger,
    )  # fmt: skip
    try:
        with base.hold(learner.weights.factors.contents()) as slots:
            state = descend(
                learner.weights, plan, config, partial(learner.step, slots),
                partial(learner.judge, slots), run,
            )  # fmt: skip
    finally:
        learner.weights.put_back()
    full = _card(card or Card(), base, config, plan, lesson.kept)
    return Result(
        learner.adapter(state, name, full), plan, state.first_loss, state.best_loss,
        state.best_step, time.monotonic() - began + state.earlier, len(lesson.kept),
        len(lesson.held), state.step,
    )  # fmt: skip


def kept_and_held(
    base: HeadedBase,
    loaded: Loaded,
    config: TrainConfig,
    teller: Callable[[str], None] | None = None,
) -> tuple[list[HeadRow], list[HeadRow]]:
    """The rows that are learned, and those that judge: of their own part, or held out."""
    kept = headed_rows(loaded.train, base)
    if loaded.validation is not None:
        return kept, headed_rows(loaded.validation, base)
    return held_out(kept, lambda row: row.text, config.validation_share, config.seed, teller)


@dataclass(frozen=True)
class _Lesson:
    """Rows that are learned, held out, and judge; and what is said of them."""

    kept: Sequence[HeadRow]
    held: Sequence[HeadRow]
    judges: Sequence[HeadRow]
    told: Sequence[str]

    @staticmethod
    def of(
        base: HeadedBase,
        data: Data,
        config: TrainConfig,
        validation: Sequence[HeadRow] | None,
        teller: Callable[[str], None] | None,
    ) -> _Lesson:
        """Read, hold out, draw. Raises DataError: as `train_head`."""
        told: list[str] = []
        loaded = with_validation(read_data(data), validation)
        check_apart(loaded)
        kept, held = kept_and_held(base, loaded, config, told.append)
        check_length(base, [*kept, *(held if loaded.validation is None else ())], teller)
        return _Lesson(kept, held, judges(held, kept, config.seed, told.append, _kind), told)


def _kind(row: HeadRow) -> str:
    """Of what each kind has its share among the rows that judge: the class."""
    return row.label if isinstance(row, Labelled) else ""


class _Learner:
    """What learns on a base with a head, and the losses of a step and of a validation."""

    def __init__(
        self, base: HeadedBase, config: TrainConfig, lesson: _Lesson, objective: Objective | None
    ) -> None:
        self.base = base
        self.config = config
        self.objective = objective
        self.scale = Scale.of(lesson.kept, base)
        self.weights = HeadWeights(base, config)
        self.learned = _encoded(base, lesson.kept, self.scale)
        self.judged = _encoded(base, lesson.judges, self.scale)
        # length may tell the class: 730 docstrings, batches of like length: .67 right; mixed: .73
        lengths = [len(ids) for ids in self.learned.ids]
        self.order = Order(lengths, config.batch_size, config.seed, bucket=1)

    def step(self, slots: SlotSet, number: int) -> Step:
        """The loss of a step: the mean over its rows."""
        places = self.order[number]
        size = self.config.micro_batch_size or len(places)

        def share(part: Sequence[int]) -> Tensor:
            self._act(slots)
            return self._loss(self.learned, part) * (len(part) / len(places))

        parts = [places[start : start + size] for start in range(0, len(places), size)]
        with dropping(self.base.model, self.config.seed, number):
            total, loss = in_parts(parts, share)
        return Step(total, loss, sum(len(self.learned.ids[place]) for place in places))

    def judge(self, slots: SlotSet, pause: Pause) -> float:
        """The mean loss of the rows that judge."""
        self._act(slots)
        total, count = 0.0, len(self.judged.ids)
        with torch.no_grad():
            for start in range(0, count, JUDGED_AT_ONCE):
                places = list(range(start, min(start + JUDGED_AT_ONCE, count)))
                total += float(self._loss(self.judged, places)) * len(places)
                pause()
        return total / count

    def adapter(self, state: State, name: str, card: Card) -> Adapter:
        """The best weights as a value."""
        factors, best = self.weights.factors, state.best
        whole = self.scale.unfolded(self.weights.whole(best), self.base)
        return Adapter(
            factors.updates(best), name, self.base.fingerprint, card,
            unbound=replace(factors.unbound(best), weights=whole),
        )  # fmt: skip

    def _act(self, slots: SlotSet) -> None:
        if self.weights.factors.moves:
            slots.exchange(self.weights.factors.contents())

    def _loss(self, rows: _Encoded, places: Sequence[int]) -> Tensor:
        return _loss(self.base, rows, places, self.objective)


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


def check_parts(loaded: Loaded, base: HeadedBase) -> None:
    """Nothing, if the head can be judged on every part of the data: see it before the training.

    Raises:
        DataError: as `headed_rows`; or a part with a single number, which has no spread.
    """
    for split, records in loaded.parts.items():
        if len(headed_rows(records, base)) < 2 and not base.labels:
            raise DataError(
                text("{split} has too few rows to measure anything on", split=split),
                expected=text("at least {count} rows", count=2), found=str(len(records)),
            )  # fmt: skip


@dataclass(frozen=True)
class _Encoded:
    ids: list[list[int]]
    targets: Tensor
    """Numbers of classes (int64), or scaled values (float32)."""


def _encoded(base: HeadedBase, rows: Sequence[HeadRow], scale: Scale) -> _Encoded:
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


def digest_of_rows(rows: Sequence[HeadRow]) -> str:
    """sha256 over all texts and answers, in order: what the card records as the data."""
    told = [[row.text, row.label if isinstance(row, Labelled) else row.value] for row in rows]
    return sha256(json.dumps(told, ensure_ascii=False).encode()).hexdigest()


def _card(
    card: Card,
    base: HeadedBase,
    config: TrainConfig,
    plan: Plan,
    rows: Sequence[HeadRow],
) -> Card:
    settings = config.model_dump(mode="json", exclude={"block", "kl_weight"})
    return card.with_(
        base_model=base.name,
        data_sha256=digest_of_rows(rows),
        seeds=(config.seed,),
        config={
            **settings,
            "learning_rate": plan.learning_rate,
            "steps": plan.steps,
            "head": {"kind": base.kind, "labels": list(base.labels), "pooling": base.pooling},
            "peft": {"task_type": "SEQ_CLS"},
        },
    )
