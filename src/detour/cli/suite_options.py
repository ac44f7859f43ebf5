"""What commands with `--suite` have in common: options of lm-eval, and which flags exclude which.

Knows Click and names of flags; knows no benchmark.
"""

from __future__ import annotations

from collections.abc import Set

import click
from click.core import ParameterSource

from detour.cli.options import AnyCommand
from detour.errors import ConfigError
from detour.language.catalogue import text

COMMON = frozenset({"limit", "allow_code_execution", "chat_template"})
SHARED = frozenset({"suite", "base_name", "device", "dtype", "quantize", "as_json"})


def harness_options(command: AnyCommand) -> AnyCommand:
    """--limit, --allow-code-execution and --chat-template."""
    for option in (
        click.option("--chat-template", is_flag=True,
                     help="Suite: prompts as conversations, by the base's template."),
        click.option("--allow-code-execution", is_flag=True,
                     help="Suite: run what the model writes (HumanEval, MBPP)."),
        click.option("--limit", type=click.IntRange(min=1),
                     help="Suite: the first so many items of each benchmark.  [default: all]"),
    ):  # fmt: skip
        command = option(command)
    return command


def check_flags(with_suite: bool, own: Set[str], shared: Set[str], example: str) -> None:
    """Refuse flags that do not go with what is asked for.

    Args:
        with_suite: whether `--suite` is given.
        own: parameters that need it.
        shared: parameters that go with and without it; all others exclude it.
        example: what to try, such as `--suite t2l-ten`.

    Raises:
        ConfigError: names the first such flag.
    """
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        flag = parameter.opts[0] if parameter.opts[0].startswith("-") else name.upper()
        if with_suite and name not in own | shared:
            raise ConfigError(text("{flag} does not go with --suite", flag=flag))
        if not with_suite and name in own:
            raise ConfigError(text("{flag} goes with --suite only", flag=flag), hint=example)
