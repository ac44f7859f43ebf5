"""What a search may vary: choices and ranges of settings, from a YAML file or by default.

    rank: [4, 8, 16]                                  # one of these
    learning_rate: {low: 0.0001, high: 0.01, log: true}
    steps: {low: 40, high: 160, step: 20}             # whole numbers where the setting is whole
    targets: [all-linear, [q_proj, v_proj]]
    warmup: 0.05                                      # the same in every trial, the default too

Knows settings and numbers; knows neither bases nor Optuna.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.training.config import TrainConfig, make_config, read_config

SEARCHED = (
    "rank", "alpha", "rslora", "dora", "init", "targets", "steps", "epochs", "batch_size",
    "learning_rate", "warmup", "up_rate", "clip", "weight_decay",
)  # fmt: skip
NOT_HERE = ("objective", "validation_share", "seed")  # settings that a search has its own way for
WHOLE = ("rank", "steps", "batch_size")
WORDS = ("targets", "init", "dora", "rslora")  # settings that are no numbers
RANGE_KEYS = ("low", "high", "log", "step")

Targets: TypeAlias = "str | tuple[str, ...]"


@dataclass(frozen=True)
class Choice:
    """One of some values."""

    values: tuple[Any, ...]

    @property
    def labels(self) -> tuple[Any, ...]:
        """As a study keeps them: lists of names are one text."""
        return tuple(label(value) for value in self.values)

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - any setting's value
        """Whether it is one of them."""
        return label(value) in self.labels

    def to_json(self) -> list[Any]:
        """As in a file."""
        return [list(value) if isinstance(value, tuple) else value for value in self.values]


@dataclass(frozen=True)
class Range:
    """From `low` to `high`, both included."""

    low: float
    high: float
    log: bool = False
    step: float | None = None
    whole: bool = False

    def holds(self, value: Any) -> bool:  # noqa: ANN401 - any setting's value
        """Whether it lies in the range, on one of its steps."""
        if not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0.0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def to_json(self) -> dict[str, Any]:
        """As in a file."""
        told: dict[str, Any] = {"low": self.low, "high": self.high}
        if self.log:
            told["log"] = True
        return told if self.step is None else {**told, "step": self.step}


Dimension: TypeAlias = Choice | Range


@dataclass(frozen=True)
class Space:
    """Settings that vary, and those that are the same in every trial."""

    searched: Mapping[str, Dimension]
    fixed: Mapping[str, Any] = field(default_factory=lambda: {})

    def to_json(self) -> dict[str, Any]:
        """As in a file."""
        vary = {name: dimension.to_json() for name, dimension in self.searched.items()}
        return {**vary, **self.fixed}

    @property
    def targets(self) -> list[Targets]:
        """All that trials may adapt."""
        dimension = self.searched.get("targets")
        if isinstance(dimension, Choice):
            return list(dimension.values)
        return [self.fixed["targets"]] if "targets" in self.fixed else []


def usual(learning_rate: float, steps: int, groups: Sequence[tuple[str, ...]]) -> Space:
    """Around the default: what is searched where no file says it.

    Args:
        learning_rate: what the default configuration would take.
        steps: the same.
        groups: layers that belong together, such as those of attention.
    """
    searched: dict[str, Dimension] = {
        "learning_rate": Range(learning_rate / 10, learning_rate * 10, log=True),
        "rank": Choice((2, 4, 8, 16, 32)),
        "alpha": Range(4.0, 64.0, log=True),
        "batch_size": Choice((4, 8, 16)),
        "steps": Range(max(1, steps // 2), steps * 2, log=True, whole=True),
    }
    if len(groups) > 1:
        searched["targets"] = Choice(("all-linear", *groups))
    return Space(searched)


def read_space(path: Path) -> Space:
    """The space in a YAML file.

    Raises:
        DataError: the file cannot be read.
        ConfigError: it is not YAML; a setting that is unknown, out of range or not searched;
            nothing in it varies.
    """
    searched: dict[str, Dimension] = {}
    fixed: dict[str, Any] = {}
    values = read_config(path)
    for name, told in values.items():
        try:
            _check_setting(name)
            if _varies(name, told):
                searched[name] = _dimension(name, told)
            else:
                fixed[name] = _value(name, told)
        except ConfigError as fault:
            raise fault.at(str(path)) from None
    if not searched:
        raise ConfigError(
            text("{path} lets nothing vary", path=path),
            expected=text("a list of values, or low and high, for one of {names}",
                          names=", ".join(SEARCHED)),
        )  # fmt: skip
    if {"steps", "epochs"} <= values.keys():
        raise ConfigError(text("steps and epochs exclude each other"),
                          hint=text("give one of the two")).at(str(path))  # fmt: skip
    make_config(fixed)
    return Space(searched, fixed)


def _check_setting(name: str) -> None:
    if name not in TrainConfig.model_fields:
        make_config({name: None})  # raises, with the nearest name
    if name in NOT_HERE:
        raise ConfigError(
            text("{name} is the search's own", name=name),
            hint=text("leave it out; --seed is a flag"),
        )


def _varies(name: str, told: Any) -> bool:  # noqa: ANN401 - whatever YAML holds
    if isinstance(told, dict):
        return not name.endswith("_pattern")
    if not isinstance(told, list):
        return False
    parts = cast("list[Any]", told)
    # one list of names is one choice of layers, as in a file of settings
    return name != "targets" or any(isinstance(part, list) for part in parts) or (
        "all-linear" in parts
    )  # fmt: skip


def _dimension(name: str, told: Any) -> Dimension:  # noqa: ANN401 - whatever YAML holds
    if name not in SEARCHED:
        raise ConfigError(
            text("{name} cannot be searched", name=name),
            expected=text("one of {names}", names=", ".join(SEARCHED)),
            hint=text("one value of it holds in every trial"),
        )
    if isinstance(told, dict):
        return _range(name, cast("dict[str, Any]", told))
    values = tuple(_value(name, one) for one in told)
    if len(set(values)) < max(2, len(values)):
        raise ConfigError(
            text("{name} has not two different values to choose from", name=name),
            expected=text("different values"), found=str(told),
        )  # fmt: skip
    return Choice(values)


def _range(name: str, told: dict[str, Any]) -> Range:
    if name in WORDS:
        raise ConfigError(
            text("{name} has no range", name=name), expected=text("a list of values")
        )  # fmt: skip
    if not {"low", "high"} <= told.keys() <= set(RANGE_KEYS):
        raise ConfigError(
            text("the range of {name} is not understood", name=name),
            expected=text("low and high; log: true or step if you like"),
            found=", ".join(map(str, told)),
        )
    low, high = _value(name, told["low"]), _value(name, told["high"])
    log, step = told.get("log", False), _number(told.get("step"))
    is_told = isinstance(log, bool) and isinstance(step, int | float | None)
    if not is_told or low is None or high is None or not low < high:
        raise ConfigError(
            text("the range of {name} is not understood", name=name),
            expected=text("low below high, log true or false, and a step that is a number"),
            found=str(told),
        )
    if log and (step is not None or low <= 0):
        raise ConfigError(
            text("the range of {name} is not understood", name=name),
            expected=text("with log no step, and low above 0"), found=str(told),
        )  # fmt: skip
    return _stepped(name, Range(low, high, log, step, name in WHOLE))


def _stepped(name: str, found: Range) -> Range:
    """The range with its end on a step."""
    if found.step is None:
        return found
    wide = found.high - found.low
    whole = not found.whole or float(found.step).is_integer()
    if not (0 < found.step <= wide and whole):
        raise ConfigError(
            text("the range of {name} is not understood", name=name),
            expected=text("a step above 0 and at most {wide}; whole where {name} is",
                          wide=f"{wide:g}", name=name),
            found=str(found.step),
        )  # fmt: skip
    step = int(found.step) if found.whole else found.step
    high = found.low + math.floor(wide / step + 1e-9) * step
    return Range(found.low, high, False, step, found.whole)


def _value(name: str, told: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    """A value of a setting, checked."""
    value = told if name in WORDS else _number(told)
    if isinstance(value, list):
        value = tuple(cast("list[Any]", value))
    return getattr(make_config({name: value}), name)


def _number(value: Any) -> Any:  # noqa: ANN401 - whatever YAML holds
    """A number that YAML 1.1 reads as text: 2e-4."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def label(value: Any) -> Any:  # noqa: ANN401 - any setting's value
    """What a study and people are told of a value."""
    return ",".join(cast("tuple[str, ...]", value)) if isinstance(value, tuple) else value
