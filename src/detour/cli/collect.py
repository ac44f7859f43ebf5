"""`detour collect SOURCE -o FILE`: training rows out of documents, code and logs of feedback.

Knows Click; the reading and writing is `data/collect`'s.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detour.cli.options import base_option, json_option, lang_option
from detour.cli.output import console, heading, is_terminal, note, print_json, print_table, say
from detour.cli.rows import encoding_option, roles
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.data.collect.lengths import Fits
    from detour.data.collect.rows import Reader
    from detour.data.collect.sources import Found
    from detour.data.collect.writing import Collected, Watch

KINDS = ("documents", "code", "feedback")
LENGTH = 1200  # characters: 600 to 800 tokens of the starter, some 300 of a large model
SHOWN = 8  # files of which nothing was taken
_PATH = click.Path(path_type=Path)


@click.command("collect")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=_PATH)
@click.option("-o", "--output", required=True, type=_PATH,
              help="New JSONL file; with --test-share a new folder.")  # fmt: skip
@click.option("--as", "kind", type=click.Choice(KINDS),
              help="What the files are.  [default: what most of them are]")  # fmt: skip
@click.option("--test-share", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              help="Share of the rows for test.jsonl, in whole files.")  # fmt: skip
@click.option("--characters", type=click.IntRange(min=50),
              help=f"Longest row.  [default: {LENGTH}; feedback: any length]")  # fmt: skip
@click.option("--tokens", type=click.IntRange(min=16),
              help="Longest row in tokens of --base, instead.")  # fmt: skip
@base_option
@click.option("--reverse", is_flag=True, help="Code: also rows from a body to its docstring.")
@click.option("--column", "columns", multiple=True, metavar="ROLE=NAME",
              help="Feedback: which column is prompt, rating, correction, ...")  # fmt: skip
@click.option("--good-from", type=float, help="Feedback: the lowest rating of a good answer.")
@encoding_option
@lang_option
@json_option
def command(
    sources: tuple[Path, ...],
    output: Path,
    kind: str | None,
    test_share: float | None,
    characters: int | None,
    tokens: int | None,
    base_name: str,
    reverse: bool,
    columns: tuple[str, ...],
    good_from: float | None,
    encoding: str,
    language: str,
    as_json: bool,
) -> None:
    """Make training rows out of documents (text, Markdown, reStructuredText, HTML, PDF), Python
    code, or logs (JSONL, CSV) of answers with feedback; SOURCE is a file or a folder.
    """
    from detour.data.collect.sources import as_kind, find
    from detour.data.collect.writing import check_output, write
    from detour.data.encodings import known_encoding

    t = Catalogue.load(language)
    found = find(sources, as_kind(kind))
    _check_options(found, reverse, columns, good_from)
    check_output(output, test_share is not None)
    _say_kind(found, t)
    fits = _fits(found, characters, tokens, base_name)
    read = _reader(found, fits, reverse, roles(columns), good_from, known_encoding(encoding), t)
    with _watched() as watch:
        told = write(found.files, read, output, test_share, watch)
    if as_json:
        print_json({"output": str(output), "kind": found.kind, **told.to_json()})
        return
    _say(told, output, t)


def _check_options(
    found: Found, reverse: bool, columns: tuple[str, ...], good_from: float | None
) -> None:
    """Refuse what says nothing about files of this kind."""
    given = {"--reverse": ("code", reverse), "--column": ("feedback", bool(columns)),
             "--good-from": ("feedback", good_from is not None)}  # fmt: skip
    for name, (kind, is_given) in given.items():
        if is_given and found.kind != kind:
            raise ConfigError(
                text("{name} says nothing about {kind}", name=name, kind=found.kind),
                hint=f"--as {kind}",
            )


def _fits(found: Found, characters: int | None, tokens: int | None, base_name: str) -> Fits | None:
    """The longest row that is allowed; None where any is."""
    from detour.data.collect.lengths import in_characters, in_tokens

    if tokens is not None and characters is not None:
        raise ConfigError(text("--characters and --tokens exclude each other"))
    if tokens is None:
        if found.kind == "feedback" and characters is None:
            return None
        return in_characters(characters or LENGTH)
    from detour.model.loading import load_tokenizer

    tokenizer, _ = load_tokenizer(base_name)
    if tokenizer is None:
        raise ConfigError(
            text("{name} has no tokenizer to count with", name=base_name), hint="--characters"
        )
    tokenizer.model_max_length = sys.maxsize  # texts are measured here, and not run
    return in_tokens(tokens, tokenizer)


def _reader(
    found: Found,
    fits: Fits | None,
    reverse: bool,
    columns: dict[str, str],
    good_from: float | None,
    encoding: str,
    t: Catalogue,
) -> Reader:
    from detour.data.collect.rows import short_enough

    if found.kind == "documents":
        from detour.data.collect import documents

        assert fits is not None
        return documents.reader_of(fits, encoding)
    if found.kind == "code":
        from detour.data.collect import code

        read: Reader = code.reader_of(reverse)
    else:
        from detour.data.collect.feedback import FeedbackLog

        log = FeedbackLog(columns, good_from, encoding=encoding)
        told = log.look_at([file.path for file in found.files])
        if told:
            note(t.say(told))
        read = log.read
    return short_enough(read, fits) if fits else read


@contextmanager
def _watched() -> Generator[Watch | None]:
    """A bar over the files that were read, in a terminal."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.progress import Progress

    with Progress(console=console(), transient=True) as bars:
        task = bars.add_task("", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _say_kind(found: Found, t: Catalogue) -> None:
    """What the files are taken for, and what lies beside them."""
    others = ", ".join(f"{count} --as {kind}" for kind, count in found.others.items())
    count = len(found.files)
    if found.is_told or not others:
        note(t("files read as {kind}: {count}", count=count, kind=found.kind))
    else:
        note(
            t("files read as {kind}: {count}; there are also {others}",
              count=count, kind=found.kind, others=others)
        )  # fmt: skip


def _say(told: Collected, output: Path, t: Catalogue) -> None:
    rows = ", ".join(f"{split} {count}" for split, count in told.rows.items())
    heading(
        t("{path}: rows: {rows}; files used: {used} of {files}", path=output, rows=rows,
          used=told.files_used.total(), files=told.files)
    )  # fmt: skip
    if told.unused:
        more = ", …" if len(told.unused) > SHOWN else ""
        say(t("nothing taken from: {names}", names=", ".join(told.unused[:SHOWN]) + more))
    if told.kinds:
        say(", ".join(f"{kind} {count}" for kind, count in told.kinds.most_common()))
    if told.left_out:
        from detour.data.collect.rows import WHY

        say()
        print_table(
            (t("left out"), t("how many"), t("why"), t("the first")),
            [(why, str(count), t.say(WHY[why]), told.first[why])
             for why, count in told.left_out.most_common()],
        )  # fmt: skip
    say()
    say(t("Try: {command}", command=f"detour check {shlex.quote(str(output))}"))
