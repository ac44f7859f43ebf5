"""The options that say which fact is changed: of `detour teach`, and of `detour report`.

Knows Click and files of questions; makes no lesson.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from detour.cli.options import AnyCommand
from detour.errors import ConfigError, DataError
from detour.language.catalogue import text

_PATH = click.Path(path_type=Path)
QUESTIONS = ("paraphrases", "neighbours", "unrelated", "own_facts")  # files of them
WORDS = ("answer", "old", "third")
FACT = ("subject", "relation", "target")
FLAGS = (*FACT, "sentences", "statements_file", *QUESTIONS, *WORDS)


def option_of(flag: str) -> str:
    """A flag as it is typed."""
    return {"sentences": "--sentence", "statements_file": "--statements"}.get(
        flag, f"--{flag.replace('_', '-')}"
    )


def change_options(command: AnyCommand) -> AnyCommand:
    """--subject, --relation, --target, --sentence, --statements, and what a base of one's own
    needs to be asked.
    """
    for option in (
        click.option("--third", default="", help="A value for comparison in the dose curve."),
        click.option("--old", default="", help="The value that is replaced, if you know it."),
        click.option("--answer", default="",
                     help="The sentence to be said; has subject and target."),
        click.option("--own-facts", type=_PATH, help="Questions about the subject's other sides."),
        click.option("--unrelated", type=_PATH, help="Unrelated questions, one a line."),
        click.option("--neighbours", type=_PATH,
                     help="Questions whose answers must stay, one a line."),
        click.option("--paraphrases", type=_PATH, help="Your own wordings, one question a line."),
        click.option("--statements", "statements_file", type=_PATH,
                     help="File with one sentence a line."),
        click.option("--sentence", "sentences", multiple=True, help="Teach a sentence instead."),
        click.option("--target", default="", help="The new value: hairdresser."),
        click.option("--relation", default="", help="What about it: profession."),
        click.option("--subject", default="", help="Who or what: Albert Einstein."),
    ):  # fmt: skip
        command = option(command)
    return command


def change_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `make_lesson` that these options say, files read.

    Raises:
        ConfigError: an answer that does not name subject or target.
        DataError: a file that holds no questions.
    """
    from detour.training.fact import check_whole

    if not (given["sentences"] or given["statements_file"]):
        check_whole(**{name: given[name] for name in FACT})  # before the imports that take seconds
    own = {name: _questions(given[name]) for name in QUESTIONS if given[name] is not None}
    own.update({name: given[name] for name in WORDS if given[name]})
    answer = given["answer"]
    for name in ("subject", "target"):
        if answer and given[name] not in answer:
            raise ConfigError(
                text("--answer does not name the {name}", name=name),
                expected=given[name],
                found=answer,
            )
    statements = _statements(given["sentences"], given["statements_file"])
    return {**{name: given[name] for name in FACT}, "statements": statements, **own}


def _questions(path: Path) -> tuple[str, ...]:
    from detour.training.own_fact import read_questions

    return tuple(read_questions(path))


def _statements(sentences: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
    """Sentences from the flags and from the file."""
    if file is None:
        return sentences
    from detour.training.own_fact import read_questions

    try:
        return sentences + tuple(read_questions(file))
    except DataError as error:
        raise DataError(
            error.message, expected=error.expected or text("one sentence a line"), found=error.found
        ) from error
