"""Every setting of a training run, with defaults that act.

What is left open (learning rate, steps) is derived from the base and the data, with the reason
said aloud. Knows numbers; knows no tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.model.examples import BLOCK, read_text

FEWEST_STEPS = 60  # a single fact with replay needed 60 steps of 8 rows
RATE_AT_2048 = 2e-4  # the usual LoRA rate for a model 2,048 wide; narrower models take more
LOWEST_RATE, HIGHEST_RATE = 1e-4, 1.5e-3


class TrainConfig(BaseModel):
    """Settings of `train`. Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    rank: int = Field(8, ge=1, le=1024, description="rank of every layer's update")
    alpha: float = Field(16.0, gt=0, description="the update's scale is alpha / rank")
    rslora: bool = Field(False, description="the update's scale is alpha / √rank instead")
    rank_pattern: dict[str, int] = Field(
        default_factory=dict, description="ranks of layers whose names end in a regular expression"
    )
    alpha_pattern: dict[str, float] = Field(default_factory=dict, description="the same for alpha")
    dora: bool = Field(False, description="the length of each row of the weight is trained apart")
    init: Literal["random", "pissa"] = Field(
        "random", description="random, or pissa: begin with the weight's principal directions"
    )
    targets: str | tuple[str, ...] = Field(
        "all-linear", description="layers to adapt: all-linear, names, or a regular expression"
    )
    steps: int | None = Field(None, ge=1, description="optimiser steps; default: from the data")
    epochs: float | None = Field(None, gt=0, description="passes over the data, instead of steps")
    batch_size: int = Field(8, ge=1, description="rows a step")
    micro_batch_size: int | None = Field(
        None,
        ge=1,
        description="rows of a step in memory at once; default: all that fit; changes gradients by "
        "rounding only",
    )
    learning_rate: float | None = Field(
        None, ge=0, description="highest rate; default: from the base's width"
    )
    warmup: float = Field(0.1, ge=0, lt=1, description="share of steps in which the rate rises")
    up_rate: float = Field(
        1.0, gt=0, description="rate of the up factors as a multiple of the down factors' (LoRA+)"
    )
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay of the factors")
    validation_share: float = Field(0.1, ge=0, lt=1, description="share of rows held out")
    validations: int = Field(6, ge=1, description="how often the validation loss is taken")
    patience: int = Field(
        3, ge=0, description="stop after so many validations no better than the best; 0: never"
    )
    objective: str | None = Field(
        None, description="a loss of your own, module:function or file.py:function"
    )
    kl_weight: float = Field(0.0, ge=0, description="weight of KL(base || adapted) on neighbours")
    orthogonality: float = Field(
        0.0, ge=0, description="weight of the overlap with what acts beneath (O-LoRA)"
    )
    keep_prefix: bool = Field(
        True, description="run the layers below the lowest adapted one once a row, if memory allows"
    )
    checkpointing: bool | None = Field(
        None,
        description="compute layers again in the backward; default: where memory asks for it",
    )
    tests: int = Field(
        40, ge=0, description="held-out rows kept beside the adapter, to measure chains by; 0: none"
    )
    block: int = Field(BLOCK, ge=8, description="tokens of plain text in a row")
    seed: int = Field(0, ge=0, description="seed of the factors and of the order of rows")


@dataclass(frozen=True)
class Plan:
    """A run's settings with nothing left open, and why they were chosen."""

    learning_rate: float
    steps: int
    reasons: tuple[str, ...]


def make_config(values: Mapping[str, Any]) -> TrainConfig:
    """A checked configuration.

    Raises:
        ConfigError: an unknown key (with the nearest known one) or a value out of range.
    """
    known = list(TrainConfig.model_fields)
    for key in values:
        if key not in known:
            close = get_close_matches(str(key), known, n=1)
            raise ConfigError(
                text("unknown setting {key!r}", key=key),
                expected=text("one of {names}", names=", ".join(known)),
                found=str(key),
                hint=text("did you mean {close!r}?", close=close[0])
                if close
                else text("see detour train --help"),
            )
    try:
        config = TrainConfig(**values)
    except ValidationError as cause:
        fault = cause.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        found = repr(fault["input"])
        raise ConfigError(
            text("setting {key} is out of range", key=key), expected=_wanted(fault), found=found
        ) from cause
    for key in (*config.rank_pattern, *config.alpha_pattern):
        _check_pattern(key)
    for setting in ("rank_pattern", "alpha_pattern"):
        for key, value in getattr(config, setting).items():
            if value > 0:
                continue
            raise ConfigError(
                text("setting {key} is out of range", key=f"{setting}.{key}"),
                expected=text("a number above {limit}", limit="0"),
                found=str(value),
            )
    if config.objective and config.micro_batch_size:
        raise ConfigError(
            text("{one} and {other} exclude each other", one="objective", other="micro_batch_size"),
            hint=text("a loss of your own is taken over whole batches: give a smaller batch_size"),
        )
    if config.dora and config.init != "random":
        raise ConfigError(
            text("{one} and {other} exclude each other", one="dora", other=f"init: {config.init}"),
            hint=text("give one of the two"),
        )
    if config.steps is not None and config.epochs is not None:
        raise ConfigError(
            text("steps and epochs exclude each other"), hint=text("give one of the two")
        )
    return config


def _check_pattern(key: str) -> None:
    try:
        re.compile(key)
    except re.error as cause:
        raise ConfigError(
            text("{pattern!r} is no regular expression", pattern=key), found=str(cause),
            expected=text("the end of a layer's name, such as {example}", example="q_proj"),
        ) from cause  # fmt: skip


def _wanted(fault: Mapping[str, Any]) -> str:
    """What pydantic expected, in words that can be translated."""
    kind, limits = fault["type"], fault.get("ctx", {})
    if kind == "greater_than_equal":
        return text("a number of at least {limit}", limit=f"{limits['ge']:g}")
    if kind == "greater_than":
        return text("a number above {limit}", limit=f"{limits['gt']:g}")
    if kind == "less_than_equal":
        return text("a number of at most {limit}", limit=f"{limits['le']:g}")
    if kind == "less_than":
        return text("a number below {limit}", limit=f"{limits['lt']:g}")
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return text("a whole number")
    if kind in ("float_type", "float_parsing"):
        return text("a number")
    if kind in ("bool_type", "bool_parsing"):
        return text("true or false")
    if kind == "literal_error":
        return str(fault["ctx"]["expected"])
    if kind == "finite_number":
        return text("a finite number")
    return fault["msg"]


def read_config(path: Path) -> dict[str, Any]:
    """The keys of a YAML configuration file.

    Raises:
        DataError: the file cannot be read. ConfigError: it is not a YAML mapping.
    """
    try:
        value = yaml.safe_load(read_text(path, text("lines such as rank: 8")))
    except yaml.YAMLError as cause:
        found = str(cause).replace("\n", " ")
        raise ConfigError(text("{path} is not YAML", path=path), found=found) from cause
    if not isinstance(value, dict):
        raise ConfigError(
            text("{path} is not a mapping", path=path), expected=text("lines such as rank: 8")
        )
    return cast("dict[str, Any]", value)


def derive(config: TrainConfig, width: int, rows: int) -> Plan:
    """Fill in what was left open, from the base's hidden width and the number of rows."""
    reasons: list[str] = []
    rate = config.learning_rate
    if rate is None:
        rate = min(HIGHEST_RATE, max(LOWEST_RATE, RATE_AT_2048 * 2048 / width))
        reasons.append(
            text("learning rate {rate:.1e}: the base is {width} wide", rate=rate, width=width)
        )
    per_epoch = -(-rows // min(config.batch_size, rows))
    if config.steps is not None:
        return Plan(rate, config.steps, tuple(reasons))
    if config.epochs is not None:
        return Plan(rate, max(1, round(config.epochs * per_epoch)), tuple(reasons))
    steps = max(FEWEST_STEPS, 3 * per_epoch)
    why = text("three epochs") if steps > FEWEST_STEPS else text("the fewest that hold")
    reasons.append(
        text(
            "{steps} steps: {why} for {rows} rows in batches of {size}",
            steps=steps,
            why=why,
            rows=rows,
            size=config.batch_size,
        )
    )
    return Plan(rate, steps, tuple(reasons))


def rate_at(step: int, plan: Plan, warmup: float) -> float:
    """The learning rate of a step: linear warm-up, then a cosine down to a tenth."""
    rising = math.ceil(warmup * plan.steps)
    if step < rising:
        return plan.learning_rate * (step + 1) / rising
    done = (step - rising) / max(1, plan.steps - rising)
    return plan.learning_rate * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))
