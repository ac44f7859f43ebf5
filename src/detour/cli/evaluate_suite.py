"""Public benchmarks of `detour evaluate --suite`: their options, and the run.

Knows Click and the benchmarks; the rest of the command does not know them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import AnyCommand, load_base, parse_chain
from detour.cli.output import note
from detour.cli.suite_options import COMMON, SHARED, check_flags, harness_options
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.evaluate.benchmarks import Arms

_EXAMPLE = "--suite lm-eval:t2l-ten"


def suite_options(command: AnyCommand) -> AnyCommand:
    """--suite, and what goes with it alone."""
    for option in (
        harness_options,
        click.option("--shots", type=click.IntRange(min=0),
                     help="Suite: worked examples before every item.  [default: as defined]"),
        click.option("--tasks-folder", metavar="DIR",
                     type=click.Path(path_type=Path, exists=True, file_okay=False),
                     help="Suite: definitions of your own, in the harness's YAML."),
        click.option("--suite", metavar="lm-eval:TASKS",
                     help="Benchmarks of lm-eval, with commas, instead of DATA."),
    ):  # fmt: skip
        command = option(command)
    return command


def data_or_suite(data: str | None, suite: dict[str, Any]) -> str | None:
    """DATA, or None where a suite is asked for instead.

    Raises:
        ConfigError: neither is, both are, or flags that do not go with what is.
    """
    own = COMMON | {"tasks_folder", "shots"}
    check_flags(bool(suite["suite"]), own, SHARED | {"chain_text"}, _EXAMPLE)
    if data is None and not suite["suite"]:
        raise ConfigError(
            text("nothing to measure on is given"),
            expected=text("DATA, or {suite}", suite=_EXAMPLE),
        )
    return data


def evaluate_suite(
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    chain_text: str | None,
    suite: dict[str, Any],
) -> tuple[dict[str, Any], Arms]:
    """What ran, for JSON, and the figures; raises as `load_benchmarks` and `run_benchmarks`."""
    from detour.evaluate.benchmarks import load_benchmarks, names_of, run_benchmarks

    chain = parse_chain(chain_text)
    benchmarks = load_benchmarks(
        names_of(suite["suite"]), suite["tasks_folder"], suite["shots"],
        suite["allow_code_execution"], teller=note,
    )  # fmt: skip
    arms = run_benchmarks(
        load_base(base_name, device, dtype, quantize), benchmarks, chain,
        limit=suite["limit"], chat_template=suite["chat_template"], teller=note,
    )  # fmt: skip
    told = {
        "kind": "suite",
        "suite": suite["suite"],
        "benchmarks": list(benchmarks.loaded),
        "skipped": dict(benchmarks.skipped),
    }
    return told, arms
