"""The study: which configuration is tried next, what came of each, kept in a SQLite file.

One process owns it; workers ask it through their jobs. A trial that was running when that process
was killed is tried again when the study is resumed. Knows Optuna and files; trains nothing.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detour.errors import ConfigError, DataError, StorageError
from detour.extras import require
from detour.language.catalogue import text
from detour.training.tune.space import Choice, Dimension, Space, label

if TYPE_CHECKING:
    import optuna

STUDY_FILE = "study.db"
_NAME = "detour tune"
_LOCK = ".lock"
_IDENTITY, _LOST = "identity", "lost"  # kept with the study
_CONFIG, _DEFAULT, _REASON, _SECONDS = "config", "default", "reason", "seconds"  # with a trial


@dataclass(frozen=True)
class Trial:
    """One configuration, and what came of it.

    Attributes:
        number: in the order of the study.
        config: settings as `detour train --config` takes them.
        params: those of them that the study chose, as it keeps them.
        state: complete, pruned or failed.
        value: validation loss (nats a token); of a pruned one the last that was taken.
        seconds: how long the training took.
        reason: why it failed, or why nothing was learned.
        is_default: whether it is what `detour train` does by itself.
    """

    number: int
    config: Mapping[str, Any]
    params: Mapping[str, Any]
    state: str
    value: float | None
    seconds: float
    reason: str = ""
    is_default: bool = False

    def to_json(self) -> dict[str, Any]:
        """As `tune.json` has it."""
        value = None if self.value is None else round(self.value, 6)
        return {
            "number": self.number,
            "state": self.state,
            "value": value,
            "default": self.is_default,
            "config": dict(self.config),
            "seconds": round(self.seconds, 2),
            **({"reason": self.reason} if self.reason else {}),
        }


class Study:
    """An open study in a folder."""

    def __init__(self, made: optuna.Study, space: Space, seed: int) -> None:
        self._optuna: Any = require("optuna", "tune")
        self._study = made
        self._space = space
        self._seed = seed
        self._running: dict[int, optuna.Trial] = {}

    def ask(self, default: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """The next trial's number and settings; the first is `default`.

        With one worker a study that was interrupted goes on as if it had not been: the draw
        depends on the seed and on the trials so far, not on how often it was opened.
        """
        optuna = self._optuna
        if not self._has_default():
            known = {n: label(v) for n, v in default.items()
                     if n in self._space.searched and self._space.searched[n].holds(v)}  # fmt: skip
            self._study.enqueue_trial(known, user_attrs={_DEFAULT: True})
        drawn = len(self.finished) + len(self._running)
        self._study.sampler = optuna.samplers.TPESampler(seed=1_000_003 * self._seed + drawn)
        trial = self._study.ask()
        settings = dict(self._space.fixed)
        fresh = trial.user_attrs.get(_DEFAULT, False)
        for name, dimension in self._space.searched.items():
            if not fresh or dimension.holds(default.get(name)):
                settings[name] = _suggested(trial, name, dimension)
        if fresh:
            settings.update(default)
        plain = {n: list(v) if isinstance(v, tuple) else v for n, v in settings.items()}
        trial.set_user_attr(_CONFIG, plain)
        self._running[trial.number] = trial
        return trial.number, plain

    def go_on(self, number: int, validations: int, loss: float) -> bool:
        """Keep a validation loss; whether the trial is worth going on with.

        It is not where its best loss so far is above the median of what others had after as many
        validations. A job that is done once more says again what is known.
        """
        trial = self._running[number]
        known = next(one for one in self._study.get_trials(deepcopy=False) if one.number == number)
        if validations not in known.intermediate_values:
            trial.report(loss, validations)
        return bool(trial.user_attrs.get(_DEFAULT)) or not trial.should_prune()

    def completed(self, number: int, value: float, seconds: float, reason: str = "") -> None:
        """The trial came to its end."""
        if not math.isfinite(value):
            return self.failed(number, f"validation loss {value}", seconds)
        trial = self._running.pop(number)
        _note(trial, seconds, reason)
        self._study.tell(trial, value)

    def pruned(self, number: int, seconds: float) -> None:
        """The trial was ended early."""
        trial = self._running.pop(number)
        _note(trial, seconds, "")
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def failed(self, number: int, reason: str, seconds: float = 0.0) -> None:
        """The trial cannot be done."""
        trial = self._running.pop(number)
        _note(trial, seconds, reason)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    @property
    def finished(self) -> list[Trial]:
        """Trials that are over, in their order; those that were lost and tried again are not."""
        return [_trial(one) for one in self._kept() if one.state.is_finished()]

    def importances(self) -> dict[str, float]:
        """How much of the losses' spread each setting accounts for, 1 in all.

        By PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255), which asks what sets the better
        trials apart. Empty with fewer than four complete trials.
        """
        evaluator = self._optuna.importance.PedAnovaImportanceEvaluator()
        complete = [one for one in self.finished if one.state == "complete"]
        common = [name for name in self._space.searched if all(name in t.params for t in complete)]
        if len(complete) < 4 or not common:
            return {}
        found = self._optuna.importance.get_param_importances(
            self._study, evaluator=evaluator, params=common
        )
        return {name: float(share) for name, share in found.items()}

    def _has_default(self) -> bool:
        return any(one.user_attrs.get(_DEFAULT) for one in self._kept())

    def _kept(self) -> list[Any]:
        lost = self._study.user_attrs.get(_LOST, [])
        return [one for one in self._study.get_trials(deepcopy=False) if one.number not in lost]


@contextmanager
def open_study(
    folder: Path, space: Space, seed: int, identity: Mapping[str, str], resume: bool
) -> Generator[Study]:
    """The study of a folder, new or resumed; nobody else may have it open.

    Raises:
        ConfigError: there is one already and it is not to be resumed, or none that is; it belongs
            to other data, another base or space; another process has it.
        DataError: the file is damaged.
        MissingExtra: Optuna is not installed.
    """
    optuna: Any = require("optuna", "tune")
    path = folder / STUDY_FILE
    check_place(folder, resume)
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _alone(folder):
        storage = None
        try:
            storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
            made = optuna.create_study(
                study_name=_NAME, storage=storage, direction="minimize", load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2),
            )  # fmt: skip
            _check_identity(made, identity, folder)
            _try_lost_again(made, optuna)
        except (
            require("sqlalchemy", "tune").exc.DatabaseError,
            optuna.exceptions.OptunaError,
            RuntimeError,
        ) as cause:
            _close(storage)
            raise DataError(
                text("{path} is damaged", path=path), found=str(cause).partition("\n")[0],
                hint=text("remove it and start anew"),
            ) from cause  # fmt: skip
        except BaseException:
            _close(storage)
            raise
        try:
            yield Study(made, space, seed)
        finally:
            _close(storage)


def check_place(folder: Path, resume: bool) -> None:
    """Whether the folder may hold this study.

    Raises:
        ConfigError: there is one already and it is not to be resumed, or none that is.
    """
    exists = (folder / STUDY_FILE).is_file()
    if exists and not resume:
        raise ConfigError(
            text("{folder} holds a study already", folder=folder),
            hint=text("--resume goes on with it; or choose another output folder"),
        )
    if resume and not exists:
        raise ConfigError(
            text("{folder} holds no study", folder=folder), hint=text("leave out --resume")
        )


@contextmanager
def _alone(folder: Path) -> Generator[None]:
    """A lock that ends with this process, however it ends: SQLite's own, on any system."""
    lock = sqlite3.connect(folder / _LOCK, timeout=0, isolation_level=None)
    try:
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as cause:
        lock.close()
        if "locked" not in str(cause):
            raise StorageError(
                text("{path} could not be written", path=folder / _LOCK), found=str(cause)
            ) from cause
        raise ConfigError(
            text("another process works on the study in {folder}", folder=folder),
            hint=text("wait for it, or choose another output folder"),
        ) from cause
    try:
        yield
    finally:
        lock.close()  # the file stays: one that is removed can be locked twice


def _check_identity(made: Any, identity: Mapping[str, str], folder: Path) -> None:  # noqa: ANN401
    before: dict[str, str] = made.user_attrs.get(_IDENTITY, {})
    if not before:
        made.set_user_attr(_IDENTITY, dict(identity))
        return
    changed = [part for part in identity if before.get(part) != identity[part]]
    if changed:
        raise ConfigError(
            text("{folder} holds another study", folder=folder),
            expected=text("the same base, data and settings"),
            found=text("changed: {parts}", parts=", ".join(changed)),
            hint=text("leave out --resume, or choose another output folder"),
        )


def _try_lost_again(made: Any, optuna: Any) -> None:  # noqa: ANN401 - Optuna is imported lazily
    """Trials that ran when their process was killed: queued anew, and marked as lost."""
    states = optuna.trial.TrialState
    running = made.get_trials(states=(states.RUNNING,))
    known = made.user_attrs.get(_LOST, [])
    made.set_user_attr(_LOST, sorted({*known, *(trial.number for trial in running)}))
    for trial in running:
        if not trial.user_attrs.get(_DEFAULT):
            made.enqueue_trial(trial.params)
        made.tell(trial.number, state=states.FAIL)


def _suggested(trial: Any, name: str, dimension: Dimension) -> Any:  # noqa: ANN401
    if isinstance(dimension, Choice):
        told = trial.suggest_categorical(name, dimension.labels)
        return dimension.values[dimension.labels.index(told)]
    if dimension.whole:
        low, high, step = int(dimension.low), int(dimension.high), int(dimension.step or 1)
        return trial.suggest_int(name, low, high, step=step, log=dimension.log)
    low, high = float(dimension.low), float(dimension.high)
    return trial.suggest_float(name, low, high, step=dimension.step, log=dimension.log)


def _note(trial: Any, seconds: float, reason: str) -> None:  # noqa: ANN401
    trial.set_user_attr(_SECONDS, seconds)
    if reason:
        trial.set_user_attr(_REASON, reason)


def _trial(one: Any) -> Trial:  # noqa: ANN401
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(one.state.name, "failed")
    value = one.value if state != "failed" else None
    known = one.user_attrs
    return Trial(
        one.number, known.get(_CONFIG, {}), dict(one.params), state, value,
        known.get(_SECONDS, 0.0), known.get(_REASON, ""), bool(known.get(_DEFAULT)),
    )  # fmt: skip


def _close(storage: Any) -> None:  # noqa: ANN401
    if storage is not None:
        storage.remove_session()
        storage.engine.dispose()
