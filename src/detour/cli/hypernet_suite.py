"""The public benchmarks of `detour hypernet evaluate --suite`: its options and its table.

Knows Click and the suite; the rest of the command does not know the suite.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import AnyCommand, load_base
from detour.cli.output import note, print_json, print_table, say
from detour.cli.suite_options import COMMON, SHARED, check_flags, harness_options
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.evaluate.suite import SuiteTable


def suite_options(command: AnyCommand) -> AnyCommand:
    """--suite, and what goes with it alone."""
    for option in (
        harness_options,
        click.option("--benchmarks", metavar="NAMES",
                     help="Suite: only these, with commas.  [default: all ten]"),
        click.option("--suite", type=click.Choice(["t2l-ten"]),
                     help="Public benchmarks by lm-eval, instead of TASKS."),
    ):  # fmt: skip
        command = option(command)
    return command


def tasks_or_suite(tasks: Path | None, suite: dict[str, Any]) -> Path | None:
    """TASKS, or None where the suite is asked for instead.

    Raises:
        ConfigError: neither is, or options that do not go with what is.
    """
    own = COMMON | {"benchmarks"}
    check_flags(bool(suite["suite"]), own, SHARED | {"hypernet"}, "--suite t2l-ten")
    if tasks is None and not suite["suite"]:
        raise ConfigError(
            text("nothing to measure on is given"),
            expected=text("TASKS, a folder with one folder a task, or --suite t2l-ten"),
        )
    return tasks


def evaluate_suite(
    hypernet: Path,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    as_json: bool,
    suite: dict[str, Any],
) -> None:
    """Measure the hypernetwork on the suite's benchmarks; raises as `run_suite`."""
    from detour.evaluate.suite import chosen_benchmarks, run_suite
    from detour.hypernetwork.saved import load_generator

    benchmarks = chosen_benchmarks(suite["benchmarks"])
    generator = load_generator(hypernet)
    table = run_suite(
        load_base(base_name, device, dtype, quantize),
        generator,
        benchmarks,
        limit=suite["limit"],
        allow_code=suite["allow_code_execution"],
        chat_template=suite["chat_template"],
        teller=note,
    )
    if as_json:
        print_json(table.to_json())
    else:
        _print(table)


def _print(table: SuiteTable) -> None:
    from detour.evaluate.t2l_ten import PUBLISHED

    rows: list[tuple[str, ...]] = []
    for benchmark in table.benchmarks:
        scores = table.scores[benchmark.name]
        values = (f"{scores[arm].value:.3f}" for arm in table.arms)
        rows.append((benchmark.name, *values, str(len(scores["base"].items))))
    averages = (f"{table.average(arm):.3f}" for arm in table.arms)
    rows.append((f"average of {len(table.benchmarks)}", *averages, ""))
    print_table(("benchmark", *table.arms, "n"), rows)
    for other in ("wrong", "junk"):
        figure = table.difference("generated", other)
        say(f"matched minus {other}, over benchmarks: {figure}")
    for key in ("average_of_10", "average_of_8"):
        told = ", ".join(f"{name} {_percent(value)}" for name, value in PUBLISHED[key].items())
        say(f"published for {PUBLISHED['base']}, {key.replace('_', ' ')}, in percent: {told}")
    say(f"({PUBLISHED['source']}; with prompts and scoring of its own)")


def _percent(value: float | list[float]) -> str:
    return "–".join(map(str, value)) if isinstance(value, list) else str(value)
