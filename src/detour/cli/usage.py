"""Click's usage errors as errors of ours, in words that a catalogue can translate.

Built from what the exception knows; in English they read as Click's own. Knows Click; knows no
verb.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from detour.errors import ConfigError
from detour.language.catalogue import Text, text

_KINDS = {  # what Click calls types of values
    "integer": text("integer"),
    "float": text("float"),
    "integer range": text("integer range"),
    "float range": text("float range"),
}


def usage_error(cause: click.ClickException) -> ConfigError:
    """The error, with the usage line as what was expected."""
    context = cause.ctx if isinstance(cause, click.UsageError) else None
    usage = context.get_usage().removeprefix("Usage: ") if context else ""
    return ConfigError(
        _message(cause) or cause.format_message().rstrip("."),
        expected=" ".join(usage.split()),
        hint=f"{context.command_path} --help" if context else "",
    )


def _message(cause: click.ClickException) -> Text | None:
    """What is wrong; None for what is so rare that it stays in Click's English."""
    if isinstance(cause, click.NoSuchOption):
        told = text("No such option {name!r}", name=cause.option_name)
        return _with_nearest(told, cause.possibilities or ())
    if isinstance(cause, click.BadOptionUsage):
        if "requires an argument" in cause.message:
            return text("Option {name!r} requires an argument", name=cause.option_name)
        if "does not take a value" in cause.message:
            return text("Option {name!r} does not take a value", name=cause.option_name)
        return None
    if isinstance(cause, click.MissingParameter):
        return _missing(cause)
    if isinstance(cause, click.BadParameter):
        name = _source(cause)
        fault = _fault(cause.message.rstrip("."))
        return text("Invalid value for {name}: {fault}", name=name, fault=fault)
    return _other(cause)


def _source(cause: click.BadParameter) -> str:
    """The flag, or the environment variable that the value came from."""
    param, context = cause.param, cause.ctx
    if param is None:
        return ""
    told = param.get_error_hint(context)
    if context is None or not isinstance(param.envvar, str):
        return told
    source = context.get_parameter_source(param.name)
    return param.envvar if source is click.core.ParameterSource.ENVIRONMENT else told


def _with_nearest(told: Text, near: Sequence[str]) -> Text:
    names = ", ".join(map(repr, sorted(near)))
    if not near:
        return told
    if len(near) == 1:
        return text("{told}. Did you mean {name}?", told=told, name=names)
    return text("{told}. (Did you mean one of: {names}?)", told=told, names=names)


def _missing(cause: click.MissingParameter) -> Text | None:
    if cause.param is None:
        return None
    name = cause.param.get_error_hint(cause.ctx)
    if cause.param.param_type_name == "argument":
        return text("Missing argument {name}", name=name)
    return text("Missing option {name}", name=name)


def _fault(told: str) -> str:
    """What is wrong with a value; Click keeps no more of it than the sentence."""
    match = re.fullmatch(r"(.+) is not a valid ([a-z ]+)", told, re.DOTALL)
    if match and (kind := _KINDS.get(match[2])):
        return text("{value} is not a valid {kind}", value=match[1], kind=kind)
    if match := re.fullmatch(r"(.+) is not in the range (\S+)", told, re.DOTALL):
        return text("{value} is not in the range {range}", value=match[1], range=match[2])
    if match := re.fullmatch(r"(.+) is not one of (.+)", told, re.DOTALL):
        return text("{value} is not one of {choices}", value=match[1], choices=match[2])
    return told


def _other(cause: click.ClickException) -> Text | None:
    if match := re.fullmatch(r"Got unexpected extra argument \((.*)\)", cause.message, re.DOTALL):
        return text("Got unexpected extra argument ({name})", name=match[1])
    if match := re.fullmatch(r"Got unexpected extra arguments \((.*)\)", cause.message, re.DOTALL):
        return text("Got unexpected extra arguments ({names})", names=match[1])
    if match := re.fullmatch(r"No such command (\S+?)\.?", cause.message):
        told = text("No such command {name}", name=match[1])
        return _with_nearest(told, getattr(cause, "possibilities", None) or ())
    if cause.message == "Missing command.":
        return text("Missing command")
    return None
