"""`detour check DATA`: what data are, what is wrong with them, and whether to train on them.

Knows Click; the looking is `data/report.py`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import base_option, json_option
from detour.cli.output import console, heading, is_terminal, one_line, print_json, print_table, say
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.data.clean import Cleaned
    from detour.data.report import DataReport, Decoded, Watch

COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}
VERDICTS = {"ready": "green", "dirty": "yellow", "too_few": "yellow", "unusable": "red"}
LONGEST_EXAMPLE = 600  # characters shown of a decoded row
_PATH = click.Path(path_type=Path)


def data_options(command: Any) -> Any:  # noqa: ANN401 - any command
    """--column and --format, wherever rows are read."""
    for option in (
        click.option("--format", "format_name", metavar="NAME",
                     help="What the rows are, where their columns do not say it."),
        click.option("--column", "columns", multiple=True, metavar="ROLE=NAME",
                     help="Which column plays a role, such as prompt=question; can be repeated."),
    ):  # fmt: skip
        command = option(command)
    return command


@click.command("check")
@click.argument("data")
@data_options
@base_option
@click.option("--names", is_flag=True, help="Take names behind titles for personal data too.")
@click.option("--no-near", is_flag=True, help="Do not look for near duplicates.")
@click.option("--sample", type=click.IntRange(min=1), default=20_000, show_default=True,
              help="Rows to look at closely.")  # fmt: skip
@click.option("--fix", type=_PATH, metavar="OUT", help="Write a cleaned copy.")
@click.option("--redact", is_flag=True, help="Replace personal data in the copy.")
@click.option(
    "--to", metavar="FORM", help="Write the copy as messages, prompt_completion or openai."
)
@click.option("--convert", type=_PATH, metavar="OUT", help="Write a copy without cleaning it.")
@click.option("--html", type=_PATH, metavar="FILE", help="Write the report as a page.")
@json_option
def command(
    data: str,
    columns: tuple[str, ...],
    format_name: str | None,
    base_name: str,
    names: bool,
    no_near: bool,
    sample: int,
    fix: Path | None,
    redact: bool,
    to: str | None,
    convert: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Look at DATA before training: a JSONL, JSON, CSV, Parquet or text file, a folder with
    train, valid and test, or org/name of a dataset on the Hub.
    """
    output = _output(fix, convert, redact, to)
    from detour.data.clean import Cleaning, write_cleaned
    from detour.data.report import Look, look_at
    from detour.data.table import open_table
    from detour.model.loading import load_tokenizer

    look = Look(roles(columns), format_name, names, sample, not no_near)
    table = open_table(data)
    tokenizer, limit = load_tokenizer(base_name)
    with _watched() as watch:
        report = look_at(table, tokenizer, limit, look, watch)
    cleaned: Cleaned | None = None
    if output and report.format:
        cleaning = Cleaning(fix is not None, redact, names, to)
        cleaned = write_cleaned(table, report.format, report.labels, output, cleaning)
    if html:
        from detour.data.page import page
        from detour.files import write_text_atomically

        write_text_atomically(html, page(report))
    if as_json:
        told = report.to_json()
        print_json({**told, **({"cleaned": cleaned.to_json()} if cleaned else {})})
        return
    _say(report)
    if cleaned and output:
        _say_cleaned(cleaned, output)


def roles(columns: tuple[str, ...]) -> dict[str, str]:
    """`prompt=question` as `{"prompt": "question"}`. Raises ConfigError."""
    found: dict[str, str] = {}
    for one in columns:
        role, sign, name = one.partition("=")
        if not sign or not role or not name:
            raise ConfigError(
                text("--column {given} names no role and no column", given=one),
                expected="ROLE=NAME", hint="--column prompt=question",
            )  # fmt: skip
        found[role.strip()] = name
    return found


def _output(fix: Path | None, convert: Path | None, redact: bool, to: str | None) -> Path | None:
    if fix and convert:
        raise ConfigError(text("--fix and --convert exclude each other"))
    output = fix or convert
    if (redact or to) and output is None:
        raise ConfigError(
            text("--redact and --to change a copy, and none is written"),
            hint="--fix OUT.jsonl",
        )  # fmt: skip
    return output


@contextmanager
def _watched() -> Generator[Watch | None]:
    """A bar over the bytes that were read, in a terminal."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def watch(split: str, done: int, total: int) -> None:
            if split not in tasks:
                tasks[split] = bars.add_task(split, total=total)
            bars.update(tasks[split], completed=done, total=total)

        yield watch


def _say(report: DataReport) -> None:
    rows = ", ".join(f"{split} {count}" for split, count in report.rows.items())
    heading(f"{report.name}: {report.form}, {rows} rows")
    say(f"{report.told}")
    tokens = report.tokens
    if tokens:
        say(
            f"tokens a row: median {tokens.median:.0f}, most {tokens.most} of {tokens.limit}; "
            f"learned: median {tokens.supervised_median:.0f}, least {tokens.supervised_least}; "
            f"{tokens.total} tokens in all"
            + (f" (counted on {tokens.rows} rows)" if tokens.rows < report.usable else "")
        )
    for name, counts in (("labels", report.labels), ("languages", report.languages),
                         ("licences", report.licences)):  # fmt: skip
        if counts:
            told = ", ".join(f"{one_line(key)} {count}" for key, count in list(counts.items())[:12])
            say(f"{name}: {told}" + (f" and {len(counts) - 12} more" if len(counts) > 12 else ""))
    if report.example:
        say()
        _say_example(report.example)
    if report.findings:
        say()
        rows_of = [
            (finding.severity, finding.code, str(finding.rows), str(finding.advice))
            for finding in report.findings
        ]
        print_table(("", "finding", "rows", "what to do"), rows_of)
        for finding in report.findings:
            if finding.where:
                say(f"{finding.code}: {', '.join(finding.where)}")
    say()
    click.secho(f"{report.verdict}: {one_line(str(report.advice))}", fg=VERDICTS[report.verdict])


def _say_example(example: Decoded) -> None:
    """What is learned stands out: in colour, or between double brackets where there is none."""
    say(f"as the model sees {example.source} (what is learned is marked):")
    left = LONGEST_EXAMPLE
    for piece, learned in example.pieces:
        shown = piece if len(piece) <= left else piece[:left] + " …"
        left -= len(shown)
        if not learned:
            say(shown, end="")
        elif is_terminal(sys.stdout):
            click.secho(shown, fg="green", nl=False)
        else:
            say(f"[[{shown}]]", end="")
        if left <= 0:
            break
    say()


def _say_cleaned(cleaned: Cleaned, output: Path) -> None:
    kept = ", ".join(f"{split} {count}" for split, count in cleaned.kept.items())
    say(f"{output}: {kept} rows")
    for name, counts in (("dropped", cleaned.dropped), ("mended", cleaned.mended)):
        if counts:
            say(f"{name}: {', '.join(f'{why} {count}' for why, count in counts.items())}")
