"""A search from rows to the best configuration: look, try, judge.

The rows are parted once. Trials learn some and are chosen by others; the test rows are touched only
after the search, where the best and the default are trained once more, with a seed that no trial
had, and compared question by question. Knows rows, workers and the study.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detour.adapter.adapter import Adapter
from detour.data.reading import Loaded, check_apart, learnable
from detour.errors import DataError, TrainingError
from detour.extras import require
from detour.fanout.jobs import Done, Fanout
from detour.files import check_writable
from detour.language.catalogue import text
from detour.measure.statistics import Figure, resampled
from detour.training.split import split
from detour.training.tune.space import Space, usual
from detour.training.tune.study import Study, Trial, check_place, open_study
from detour.training.tune.work import Asked, Judged, Look, Rows, Seen, Setting, run_trial
from detour.training.tune.work import judge as judge_work
from detour.training.tune.work import look as look_work

HELD = 0.2  # share of rows that judge in the end, and of the rest that choose
DRAWS = 10_000  # bootstrap sets of the comparison
FAR = 0.1  # nats a token of neutral text that are worth a word
MUCH = 2.0  # times the default's
Teller = Callable[[str], None]


@dataclass(frozen=True)
class Wanted:
    """How to search.

    Attributes:
        trials: configurations in all, the default among them.
        workers: trainings at once.
        seed: of the draws and of the trainings.
        address: of a Ray cluster; None for processes of this machine.
        resume: go on with the study that is there.
    """

    trials: int = 20
    workers: int = 2
    seed: int = 0
    address: str | None = None
    resume: bool = False


@dataclass(frozen=True)
class Comparison:
    """The best configuration and the default on rows that no trial has seen.

    Attributes:
        rows: how many.
        default, best: nats a token.
        difference: best less default, with the 95 % bootstrap interval over questions; n is their
            number.
        adapter: of the best configuration; None where it learned nothing.
        kl_default, kl_best: how far neutral text is moved, in nats a token: no trial is chosen by
            that, so a rate that learns fast may do harm elsewhere.
    """

    rows: int
    default: float
    best: float
    difference: Figure
    adapter: Adapter | None
    kl_default: float = 0.0
    kl_best: float = 0.0

    @property
    def harms(self) -> bool:
        """Whether the best moves neutral text far, and much farther than the default."""
        return self.kl_best > max(FAR, MUCH * self.kl_default)

    @property
    def verdict(self) -> str:
        """better, worse, or noise; same where the default is the best."""
        if self.difference.low == self.difference.high == 0:
            return "same"
        if self.difference.high < 0:
            return "better"
        return "worse" if self.difference.low > 0 else "noise"

    def to_json(self) -> dict[str, Any]:
        """As `tune.json` has it."""
        return {
            "rows": self.rows,
            "default": round(self.default, 6),
            "best": round(self.best, 6),
            "difference": self.difference.to_json(),
            "verdict": self.verdict,
            "kl_default": round(self.kl_default, 6),
            "kl_best": round(self.kl_best, 6),
        }


@dataclass(frozen=True)
class Found:
    """A search that is over.

    Attributes:
        seen: base and rows as they were before it.
        space: what varied.
        rows: which were for what.
        trials: all of them, in order.
        importances: share of the losses' spread by setting.
        comparison: on the test rows.
        seconds: how long this call took; of a resumed search its last part.
    """

    seen: Seen
    space: Space
    rows: Rows
    trials: Sequence[Trial]
    importances: Mapping[str, float]
    comparison: Comparison
    seconds: float

    @property
    def default(self) -> Trial:
        """The configuration that `detour train` takes by itself."""
        return next(one for one in self.trials if one.is_default)

    @property
    def best(self) -> Trial:
        """The one with the lowest validation loss, the earlier one of two."""
        return best_of(self.trials)

    def count(self, state: str) -> int:
        """How many trials ended so."""
        return sum(one.state == state for one in self.trials)


def parted(loaded: Loaded, seed: int) -> Rows:
    """Rows to learn, to choose and to judge by: the data's own parts, else shares of `train`.

    Rows with the same question stay together.

    Raises:
        DataError: they are not conversations or texts, stand in two parts, or are too few.
    """
    check_apart(loaded)
    learned = learnable(loaded)
    own = {part: learnable(loaded, part) for part in ("validation", "test") if part in loaded.parts}
    parts: dict[str, list[Any]] = {}
    for part in ("test", "validation"):
        held = own.get(part)
        if held is None:
            learned, held = split(learned, HELD, seed)
        if not held:
            raise DataError(
                text("too few rows to hold some out for {part}", part=part),
                expected=text("at least {count} different questions or texts", count=12),
                found=str(len(learned)),
                hint=text("more rows, or a folder with train, validation and test"),
            )
        parts[part] = held
    return Rows(tuple(learned), tuple(parts["validation"]), tuple(parts["test"]))


def check_packages(address: str | None) -> None:
    """Raises MissingExtra: Optuna, or Ray where there is an address, is not installed."""
    require("optuna", "tune")
    if address:
        require("ray", "scale")


def search(
    setting: Setting,
    folder: Path,
    wanted: Wanted,
    *,
    space: Space | None = None,
    teller: Teller = lambda _: None,
) -> Found:
    """Search, compare, and keep the study in the folder.

    Args:
        setting: base and rows.
        folder: where the study is kept, and resumed.
        wanted: how to search.
        space: what varies; by default around what `detour train` would take.
        teller: is told in words what happens.

    Raises:
        ConfigError: as `open_study`, or no cluster. SlotError: targets that name no layer.
        MissingExtra: Optuna, or Ray where an address is given.
        TrainingError: the default configuration cannot be trained.
        KeyboardInterrupt passes through; the study is kept.
    """
    began = time.monotonic()
    check_packages(wanted.address)
    check_place(folder, wanted.resume)
    check_writable(folder)
    with _fanout(setting, wanted) as fanout:
        fixed = {**(space.fixed if space else {}), "seed": wanted.seed}
        seen: Seen = _only(fanout.run(look_work, [Look(fixed, space.targets if space else [])]))
        space = space or usual(seen.learning_rate, seen.steps, seen.groups)
        space = Space(space.searched, fixed)
        identity = {
            "base": json.dumps(seen.fingerprint),
            "data": setting.rows.digest,
            "space": json.dumps(space.to_json()),
        }
        with open_study(folder, space, wanted.seed, identity, wanted.resume) as study:
            _try_all(fanout, study, default_of(space, seen), seen, wanted, teller)
            trials = study.finished
            importances = study.importances()
        _check_default(trials)
        comparison = _compare(fanout, trials, setting.rows, wanted.seed, folder.name, teller)
    return Found(seen, space, setting.rows, trials, importances, comparison,
                 time.monotonic() - began)  # fmt: skip


def default_of(space: Space, seen: Seen) -> dict[str, Any]:
    """What `detour train` takes by itself, with what every trial has in common."""
    from detour.training.config import TrainConfig

    derived = {"learning_rate": seen.learning_rate, "steps": seen.steps}
    usual = {
        name: derived.get(name, TrainConfig.model_fields[name].default)
        for name in {**space.searched, **derived}
    }
    told = {name: value for name, value in usual.items() if value is not None}
    if space.fixed.get("epochs") is not None:
        told.pop("steps")
    return {**told, **space.fixed}


def best_of(trials: Sequence[Trial]) -> Trial:
    """The lowest loss of those that came to their end, the earlier one of two."""
    ended = [one for one in trials if one.state == "complete" and one.value is not None]
    return min(ended, key=lambda one: (one.value, one.number))


def _fanout(setting: Setting, wanted: Wanted) -> Fanout:
    if wanted.address is None:
        return Fanout.here(setting, wanted.workers)
    gpus = 1 if setting.device == "cuda" else 0
    return Fanout.on_cluster(wanted.address, setting, wanted.workers, gpus=gpus)


def _try_all(
    fanout: Fanout,
    study: Study,
    default: Mapping[str, Any],
    seen: Seen,
    wanted: Wanted,
    teller: Teller,
) -> None:
    """Trials until there are as many as asked for."""

    def arguments() -> Generator[Asked]:
        for _ in range(wanted.trials - len(study.finished)):
            number, settings = study.ask(default)
            yield Asked(number, settings, seen.untrained)

    def answer(argument: Asked, told: tuple[int, float]) -> bool:
        return study.go_on(argument.number, *told)

    def lost(argument: Asked, reason: str) -> None:
        teller(text("trial {number} is done again: {reason}",
                    number=argument.number, reason=reason))  # fmt: skip

    for done in fanout.run(run_trial, arguments(), answer=answer, lost=lost):
        _keep(study, done)
        teller(_line(study.finished, done.argument.number, wanted.trials))


def _keep(study: Study, done: Done) -> None:
    number, measured = done.argument.number, done.value
    if done.error is not None:
        study.failed(number, str(done.error))
    elif measured.value is None:
        study.pruned(number, measured.seconds)
    else:
        study.completed(number, measured.value, measured.seconds, measured.remark)


def _line(trials: Sequence[Trial], number: int, count: int) -> str:
    trial = next(one for one in trials if one.number == number)
    told = "  ".join(f"{name}={_short(value)}" for name, value in trial.params.items())
    if trial.state == "failed":
        return text("{done}/{count}  trial {number} failed: {reason}", done=len(trials),
                    count=count, number=number, reason=trial.reason)  # fmt: skip
    if trial.state == "pruned":
        return text("{done}/{count}  trial {number} ended early  {settings}",
                    done=len(trials), count=count, number=number, settings=told)  # fmt: skip
    best = best_of(trials)
    return text("{done}/{count}  trial {number}: {value:.4f}  (best {best:.4f}, trial {which})  "
                "{settings}", done=len(trials), count=count, number=number, value=trial.value,
                best=best.value, which=best.number, settings=told)  # fmt: skip


def _short(value: Any) -> str:  # noqa: ANN401 - any setting's value
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _check_default(trials: Sequence[Trial]) -> None:
    default = next(one for one in trials if one.is_default)
    if default.state != "complete":
        raise TrainingError(
            text("the default configuration cannot be trained, so nothing can be compared with it"),
            found=default.reason,
            hint=text("settings that fit, such as batch_size: 2, as single values in --space"),
        )


def _compare(
    fanout: Fanout, trials: Sequence[Trial], rows: Rows, seed: int, name: str, teller: Teller
) -> Comparison:
    """Both trained once more, with another seed than the one that chose the best."""
    default, best = next(one for one in trials if one.is_default), best_of(trials)
    teller(text("training the best and the default once more, to compare them"))
    chosen = [default] if best.number == default.number else [default, best]
    wanted = [(name, {**one.config, "seed": seed + 1}) for one in chosen]
    judged: list[tuple[Any, Judged]] = []  # two equal settings give the same, whichever is which
    for done in fanout.run(judge_work, wanted):
        if done.error:
            raise done.error
        judged.append((done.argument, done.value))
    first, last = (
        next(value for argument, value in judged if argument == one)
        for one in (wanted[0], wanted[-1])
    )
    pairs = [(one[0], other[0], one[1])
             for one, other in zip(first.losses, last.losses, strict=True)]  # fmt: skip
    tokens = sum(count for _, _, count in pairs)
    return Comparison(
        len(rows.test), sum(one for one, _, _ in pairs) / tokens,
        sum(other for _, other, _ in pairs) / tokens,
        resampled(pairs, _difference, DRAWS), last.adapter, first.kl, last.kl,
    )  # fmt: skip


def _difference(pairs: Sequence[tuple[float, float, int]]) -> float:
    """Nats a token: the best's less the default's, over (default, best, tokens)."""
    return sum(best - default for default, best, _ in pairs) / sum(n for _, _, n in pairs)


def _only(run: Generator[Done]) -> Any:  # noqa: ANN401 - whatever the job returns
    (done,) = run
    if done.error:
        raise done.error
    return done.value
