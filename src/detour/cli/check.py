"""`detour check DATA`: what data are, what is wrong with them, and whether to train on them.

Knows Click; the looking is `data/report.py`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import base_option, check_absent, json_option, lang_option
from detour.cli.output import (
    console,
    heading,
    is_terminal,
    one_line,
    plain,
    print_json,
    print_table,
    say,
)
from detour.cli.rows import RowOptions, row_options
from detour.errors import ConfigError, DataError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from detour.data.clean import Cleaned
    from detour.data.records import Record
    from detour.data.report import DataReport, Decoded, Watch

VERDICTS = {"ready": "green", "dirty": "yellow", "too_few": "yellow", "unusable": "red"}
LONGEST_EXAMPLE = 600  # characters shown of a decoded row
COUNTS = 12  # labels, languages or licences that are told
NOT_READY = 1  # what --strict exits with
_PATH = click.Path(path_type=Path)


@click.command("check")
@click.argument("data")
@row_options
@base_option
@click.option("--names", is_flag=True, help="Take names behind titles for personal data too.")
@click.option("--no-near", is_flag=True, help="Do not look for near duplicates.")
@click.option("--sample", type=click.IntRange(min=1), default=20_000, show_default=True,
              help="Rows to look at closely.")  # fmt: skip
@click.option("--fix", type=_PATH, metavar="OUT", help="Write a cleaned copy.")
@click.option("--redact", is_flag=True, help="Replace personal data in the copy.")
@click.option(
    "--rename-label",
    "renames",
    multiple=True,
    metavar="OLD=NEW",
    help="With --fix: give a class another name in the copy; can be repeated.",
)
@click.option(
    "--to", metavar="FORM", help="Write the copy as messages, prompt_completion or openai."
)
@click.option("--convert", type=_PATH, metavar="OUT", help="Write a copy without cleaning it.")
@click.option("--html", type=_PATH, metavar="FILE", help="Write the report as a page.")
@click.option("--strict", is_flag=True, help="Exit with 1 unless the verdict is ready.")
@lang_option
@json_option
def command(
    data: str,
    reading: RowOptions,
    base_name: str,
    names: bool,
    no_near: bool,
    sample: int,
    fix: Path | None,
    redact: bool,
    renames: tuple[str, ...],
    to: str | None,
    convert: Path | None,
    html: Path | None,
    strict: bool,
    language: str,
    as_json: bool,
) -> int:
    """Look at DATA before training: a JSONL, JSON, CSV, Parquet or text file, a folder with
    train, valid and test, or org/name of a dataset on the Hub.
    """
    renamed = _renamed(renames, fix)
    output = _output(fix, convert, redact, to)
    table = reading.table(data)
    from detour.data.clean import Cleaning, check_copy, write_cleaned
    from detour.data.report import look_at
    from detour.model.loading import load_tokenizer

    look = replace(reading.look(), names=names, sample=sample, near=not no_near)
    if output:
        check_copy(table, output)
    check_absent(html)
    tokenizer, limit = load_tokenizer(base_name)
    with _watched() as watch:
        report = look_at(table, tokenizer, limit, look, watch)
    cleaned: Cleaned | None = None
    if output and report.format:
        found = {finding.code for finding in report.findings}
        left = not redact and "personal_data" in found
        cleaning = Cleaning(fix is not None, redact, names, left, to,
                            None if no_near else report.shared, renamed,
                            _fault(report, tokenizer, limit))  # fmt: skip
        cleaned = write_cleaned(table, report.format, report.labels, output, cleaning)
    if html:
        from detour.data.page import page
        from detour.files import write_text_atomically

        write_text_atomically(html, page(report, Catalogue.load(language)))
    if as_json:
        told = report.to_json()
        print_json({**told, **({"cleaned": cleaned.to_json()} if cleaned else {})})
    else:
        t = Catalogue.load(language)
        _say(report, t)
        if cleaned and output:
            _say_cleaned(cleaned, output, t)
    if output and not report.format:
        raise _nothing_to_copy(output, report.first_fault)
    return NOT_READY if strict and report.verdict != "ready" else 0


def _nothing_to_copy(output: Path, cause: DataError | None) -> DataError:
    return DataError(
        text("{path} was not written: no row can be read", path=output),
        expected=text("at least one row that can be used"),
        found=cause.message if cause else "",
        hint=cause.hint if cause else "",
    )


def _fault(
    report: DataReport, tokenizer: PreTrainedTokenizerBase | None, limit: int | None
) -> Callable[[Record], str] | None:
    """What tells rows that the base cannot learn; nothing where there are none, for it is slow."""
    from detour.data.tokens import fault_of

    doubtful = {finding.code for finding in report.findings} & {"truncated", "no_supervision"}
    if tokenizer is None or not doubtful:
        return None
    return lambda record: fault_of(record, tokenizer, limit)


def _renamed(renames: tuple[str, ...], fix: Path | None) -> dict[str, str]:
    if renames and fix is None:
        raise ConfigError(
            text("--rename-label changes a cleaned copy, and none is written"),
            hint="--fix OUT.jsonl",
        )
    found: dict[str, str] = {}
    for one in renames:
        old, sign, new = (part.strip() for part in one.partition("="))
        if not (sign and old and new):
            raise ConfigError(
                text("--rename-label {given} names no two classes", given=one),
                expected="OLD=NEW", hint="--rename-label postive=positive",
            )  # fmt: skip
        found[old] = new
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


def _say(report: DataReport, t: Catalogue) -> None:
    rows = ", ".join(f"{split} {count}" for split, count in report.rows.items())
    heading(t("{name}: {form}, rows: {rows}", name=report.name, form=report.form, rows=rows))
    say(t.say(report.told))
    _say_tokens(report, t)
    for name, counts in ((t("labels"), report.labels), (t("languages"), report.languages),
                         (t("licences"), report.licences)):  # fmt: skip
        if counts:
            told = ", ".join(f"{one_line(key)} {n}" for key, n in list(counts.items())[:COUNTS])
            say(f"{name}: {told}" + (", …" if len(counts) > COUNTS else ""))
    if report.example:
        say()
        _say_example(report.example, t)
    if report.findings:
        say()
        print_table(
            ("", t("finding"), t("rows"), t("what to do")),
            [(f.severity, f.code, str(f.rows), t.say(f.told)) for f in report.findings],
        )
        for finding in report.findings:
            if finding.where:
                say(f"{finding.code}: {', '.join(finding.where)}")
    say()
    told = f"{report.verdict}: {one_line(t.say(report.advice))}"
    click.secho(told, fg=VERDICTS[report.verdict])


def _say_tokens(report: DataReport, t: Catalogue) -> None:
    if not (tokens := report.tokens):
        return
    say(
        t(
            "tokens a row: median {median:.0f}, most {most}; learned: median {learned:.0f}, least "
            "{least}; in all {total}",
            median=tokens.median, most=tokens.most, learned=tokens.supervised_median,
            least=tokens.supervised_least, total=tokens.total,
        )
    )  # fmt: skip
    if tokens.rows < report.usable:
        say(t("looked at closely: {count} of {all} rows", count=tokens.rows, all=report.usable))


def _say_example(example: Decoded, t: Catalogue) -> None:
    """What is learned stands out: in colour, or between double brackets where there is none."""
    say(t("as the model sees {source}; what is learned is marked", source=example.source))
    left = LONGEST_EXAMPLE
    for piece, learned in example.pieces:
        shown = piece if len(piece) <= left else piece[:left] + " …"
        left -= len(shown)
        if not learned:
            say(shown, end="")
        elif is_terminal(sys.stdout):
            click.secho(plain(shown), fg="green", nl=False)
        else:
            say(f"[[{shown}]]", end="")
        if left <= 0:
            break
    say()


def _say_cleaned(cleaned: Cleaned, output: Path, t: Catalogue) -> None:
    def told(counts: Mapping[str, int]) -> str:
        return ", ".join(f"{name} {count}" for name, count in counts.items())

    say(t("{path}: rows written: {rows}", path=output, rows=told(cleaned.kept)))
    if cleaned.dropped:
        say(t("dropped: {counts}", counts=told(cleaned.dropped)))
    if cleaned.mended:
        say(t("mended: {counts}", counts=told(cleaned.mended)))
    if cleaned.left:
        say(t("left in: {counts} (--redact replaces them)", counts=told(cleaned.left)))
