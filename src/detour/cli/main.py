"""The command `detour`: its verbs, imported when they are called, and its one way to fail.

Help and errors cost no import of torch: the verbs' short help stands here beside their names.
Knows names of verbs, errors and exit codes; knows nothing of what the verbs do.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

import click

from detour import __version__
from detour.cli.output import print_error
from detour.cli.usage import usage_error
from detour.errors import (
    ConfigError,
    DetourError,
    Interrupted,
    MachineError,
    StorageError,
    is_out_of_memory,
)
from detour.language.catalogue import Catalogue, text, wanted_language


@dataclass(frozen=True)
class Verb:
    """Where a verb lives ("module:attribute"), and one line about it."""

    target: str
    help: str

    def load(self) -> click.Command:
        """Import it."""
        module, _, attribute = self.target.partition(":")
        return getattr(import_module(module), attribute)


VERBS = {
    "demo": Verb("detour.cli.demo:command", "Change one fact while you watch, and prove it."),
    "ask": Verb("detour.cli.ask:command", "Ask a model, with or without a chain of adapters."),
    "probe": Verb("detour.cli.probe:command", "Ask what bases hold of a change, untrained."),
    "teach": Verb("detour.cli.teach:command", "Change a fact, then measure what else changed."),
    "collect": Verb("detour.cli.collect:command", "Make rows of documents, code or feedback."),
    "check": Verb("detour.cli.check:command", "Look at data before you train on them."),
    "estimate": Verb("detour.cli.estimate:command", "Tell what a training would take, and cost."),
    "bench": Verb("detour.cli.bench:command", "Time a few training steps on data of yours."),
    "train": Verb("detour.cli.train:command", "Train an adapter on conversations of yours."),
    "tune": Verb("detour.cli.tune:command", "Search settings for a training of yours."),
    "evaluate": Verb("detour.cli.evaluate:command", "Measure a base and a chain on data of yours."),
    "report": Verb("detour.cli.report:command", "Judge a taught change by every figure there is."),
    "generate": Verb("detour.cli.generate:command", "Make an adapter from one sentence."),
    "hypernet": Verb("detour.cli.hypernet:group", "Train networks that make adapters."),
    "chain": Verb("detour.cli.chain:command", "Look at a chain, or make one adapter out of it."),
    "list": Verb("detour.cli.list:command", "List the adapters that can be named."),
    "inspect": Verb("detour.cli.inspect:command", "Show what is inside an adapter."),
    "convert": Verb("detour.cli.convert:command", "Write an adapter in another form."),
    "remove": Verb("detour.cli.remove:command", "Delete an adapter from your library."),
    "starter": Verb("detour.cli.starter:group", "Show what the packaged model can do."),
    "doctor": Verb("detour.cli.doctor:command", "Check this machine and this installation."),
}


class VerbGroup(click.Group):
    """A group whose verbs are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a first visit."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, imported now."""
        verb = VERBS.get(cmd_name)
        return verb.load() if verb else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does, but an unknown verb is told with the nearest one."""
        if args[0] not in VERBS and not args[0].startswith("-"):
            _unknown_verb(args[0])
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.help) for name, verb in VERBS.items()])


def _unknown_verb(name: str) -> NoReturn:
    near = get_close_matches(name, VERBS, 1)
    raise ConfigError(
        text("there is no command {name!r}", name=name),
        expected=text("one of {names}", names=", ".join(VERBS)),
        hint=f"detour {near[0]}" if near else "detour --help",
    )


@click.group(
    cls=VerbGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Begin with `detour demo`. Every command takes --json and --help.",
)
@click.version_option(__version__, prog_name="detour")
def group() -> None:
    """Steer a frozen language model with small adapters, and prove what they did."""


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, 1 (machine), 2 (user) or 130 (Ctrl-C).

    Whatever fails is told in one line on stderr, and with --json as one object on stdout too; in
    the language that --lang or DETOUR_LANG names.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    _prepare()
    try:
        code: Any = group.main(given, prog_name="detour", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.Abort:
        return _fail(Interrupted(text("stopped")), given)
    except click.exceptions.NoArgsIsHelpError as cause:
        click.echo(cause.format_message(), err=True)
        return ConfigError.exit_code
    except click.ClickException as cause:
        return _fail(usage_error(cause), given)
    except DetourError as error:
        return _fail(error, given)
    except (OSError, MemoryError) as cause:
        if isinstance(cause, BrokenPipeError):
            _drop_output()
            return 1
        return _fail(_machine(cause), given)
    except RuntimeError as cause:
        if not is_out_of_memory(cause):
            raise
        return _fail(_memory_full(str(cause).split("\n", maxsplit=1)[0]), given)


def _prepare() -> None:
    """Before torch is imported: threads that wait asleep, and text in any terminal."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _fail(error: DetourError, arguments: Sequence[str]) -> int:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        t = Catalogue.load(wanted_language(options))
        print_error(error, as_json="--json" in options, t=t)
        sys.stdout.flush()
    except OSError:  # nobody can be told any more; the exit code still says it
        _drop_output()
    return error.exit_code


def _machine(cause: OSError | MemoryError) -> MachineError:
    if isinstance(cause, MemoryError):
        return _memory_full(str(cause))
    reason = cause.strerror or str(cause)
    place = cause.filename or text("the output")
    if cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return StorageError(
            text("{place} could not be written", place=place),
            found=reason,
            hint=text("free some space"),
        )
    return MachineError(text("{place} could not be used", place=place), found=reason)


def _memory_full(found: str) -> MachineError:
    hint = text("a smaller base, --dtype bfloat16, or in training a smaller --micro-batch-size")
    return MachineError(text("the memory is full"), found=found, hint=hint)


def _drop_output() -> None:
    """Nobody reads any more: let the interpreter's last flush go nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.__stdout__.fileno() if sys.__stdout__ else 1)
    os.close(nowhere)
