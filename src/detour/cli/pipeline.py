"""What `detour train` is asked for: its flags over its YAML file, ours or another program's.

Knows Click, flags and files; trains nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from detour.cli.output import note
from detour.cli.rows import RowOptions
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.training.pipeline import Pipeline


@dataclass(frozen=True)
class Asked:
    """A training as asked for: what is left open is None or empty."""

    data: str
    output: Path
    base: str
    whole: bool
    reading: RowOptions
    dtype: str | None = None
    quantize: str | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


def asked(
    data: str | None,
    output: Path | None,
    base: str,
    reading: RowOptions,
    *,
    dtype: str | None,
    quantize: str | None,
    whole: bool,
    config_file: Path | None,
    flags: dict[str, Any],
    t: Catalogue,
) -> Asked:
    """Flags win over the file; what the file wants otherwise than can be done is said.

    Raises:
        ConfigError: no data or no folder named anywhere; a setting that is none.
        DataError: the file cannot be read.
    """
    file = _file(config_file)
    settings, pipeline = _settings(file, config_file)
    if pipeline:
        note(t("{file} is a pipeline of {program}", file=config_file, program=pipeline.kind))
        for line in pipeline.left:
            note(t("not followed: {line}", line=line))
        if click.get_current_context().get_parameter_source("base_name") == ParameterSource.DEFAULT:
            base = pipeline.base
        data, output = data or pipeline.data, output or _folder(pipeline.output)
        reading = reading.over(pipeline.columns, pipeline.format_name)
        dtype, quantize = dtype or pipeline.dtype, quantize or pipeline.quantize
    if not data or not output:
        raise ConfigError(
            text("there is nothing to train on") if not data else text("there is no folder named"),
            expected="DATA" if not data else "-o FOLDER",
            hint=text("detour train DATA -o FOLDER; the file of --config may name both where it "
                      "is one of Axolotl or LlamaFactory"),
        )  # fmt: skip
    return Asked(
        data, output, base, whole or bool(pipeline and pipeline.whole), reading, dtype, quantize,
        settings_over(settings, flags),
    )  # fmt: skip


def _file(path: Path | None) -> dict[str, Any]:
    from detour.training.config import read_config

    return read_config(path) if path else {}


def _folder(told: str) -> Path | None:
    return Path(told) if told else None


def _settings(file: dict[str, Any], path: Path | None) -> tuple[dict[str, Any], Pipeline | None]:
    if path is None:
        return file, None
    from detour.training.pipeline import pipeline_of

    pipeline = pipeline_of(file, path)
    return (dict(pipeline.settings), pipeline) if pipeline else (file, None)


def settings_over(settings: dict[str, Any], flags: dict[str, Any]) -> dict[str, Any]:
    """Settings of a file, overridden by the flags that were given.

    Raises:
        ConfigError: a setting that is none, or out of range.
    """
    from detour.training.config import make_config

    given = {name: value for name, value in flags.items() if value is not None}
    if isinstance(given.get("targets"), str) and given["targets"] != "all-linear":
        given["targets"] = tuple(part.strip() for part in given["targets"].split(","))
    settings = overridden(settings, given)
    make_config(settings)
    return settings


def settings_from(config_file: Path | None, flags: dict[str, Any]) -> dict[str, Any]:
    """Settings of our own YAML file, overridden by the flags. Raises as `settings_over`."""
    return settings_over(_file(config_file), flags)


def overridden(settings: dict[str, Any], by: dict[str, Any]) -> dict[str, Any]:
    """`settings` where `by` says nothing else; steps and epochs say the same, in two ways."""
    kept = dict(settings)
    for name, same in (("steps", "epochs"), ("epochs", "steps")):
        if by.get(name) is not None:
            kept.pop(same, None)
    return {**kept, **by}
