"""`--company` of `detour train` and `detour teach`: adapters among which another one learns.

Knows Click and the library; what is learned is `training/company.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import AnyCommand
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.training.company import Company
    from detour.training.together import Composed

FLAGS = ("company", "composed", "instructions")


def company_options(command: AnyCommand) -> AnyCommand:
    """--company, --composed and --instruct."""
    for option in (
        click.option("--instruct", "instructions", multiple=True, metavar="NAME=TEXT",
                     help="What an adapter does, asked of a model; again for each."),
        click.option("--composed", type=click.Path(path_type=Path), metavar="FILE",
                     help="Rows that say by \"chain\" which adapters act."),
        click.option("--company", multiple=True, metavar="NAME",
                     help="Learn among this adapter, or all of a folder; again for others."),
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True)
class Among:
    """What these flags ask for.

    Attributes:
        company: the adapters, and what each does.
        rows: of the file of --composed; None where the base is to say what is learned.
    """

    company: Company
    rows: tuple[Composed, ...] | None


def among(flags: dict[str, Any], name: str, own: str | None = None) -> Among | None:
    """Take these flags out of all, and read what they name; None where nobody is company.

    Args:
        flags: as Click hands them over.
        name: of the adapter that learns.
        own: what it does, as far as that is known without --instruct; None where the command
            will know it.

    Raises:
        ConfigError: no way to know what the adapters shall say together, or two; an instruction
            that is missing, or for an adapter that is not there.
        AdapterError: an adapter cannot be read. DataError: the file of rows cannot.
    """
    named, file, told = (flags.pop(flag) for flag in FLAGS)
    if not named:
        for flag, value in (("--composed", file), ("--instruct", told)):
            if value:
                raise ConfigError(text("{flag} goes with {other}", flag=flag, other="--company"))
        return None
    from detour.training.company import Company
    from detour.training.composed import read_composed

    present = _adapters(named)
    if name in present:
        raise ConfigError(
            text("two adapters are called {name}", name=name),
            hint=text("give the new one another name: the last part of -o"),
        )
    if bool(file) == bool(told):
        raise ConfigError(
            text("nothing says what the adapters shall say together")
            if not file
            else text("{one} and {other} exclude each other", one="--composed", other="--instruct"),
            expected=text("rows (--composed FILE), or what each of them does, for the base to be "
                          "asked (--instruct {name}=TEXT)", name=next(iter(present))),
        )  # fmt: skip
    company = Company(present, _instructions(told, name, own, present))
    return Among(company, _checked(read_composed(file), name, present) if file else None)


def _adapters(named: Sequence[str]) -> dict[str, Adapter]:
    """By their names; a folder that is no adapter stands for those in it."""
    from detour.adapter.library import Library

    shelf = Library.default()
    found: dict[str, Adapter] = {}
    for one in (inner for name in named for inner in _each(name)):
        adapter = shelf.load(one)
        if adapter.name in found:
            raise ConfigError(text("two adapters are called {name}", name=adapter.name))
        found[adapter.name] = adapter
    return found


def _each(name: str) -> list[str]:
    folder = Path(name)
    inner = sorted(folder.glob("*/adapter_config.json")) if folder.is_dir() else []
    if not inner or (folder / "adapter_config.json").exists():
        return [name]
    return [f"./{path.parent}" if not path.is_absolute() else str(path.parent) for path in inner]


def _instructions(
    told: Sequence[str], name: str, own: str | None, present: dict[str, Adapter]
) -> dict[str, str]:
    found = {name: own} if own else {}
    if not told:
        return found
    for one in told:
        who, equals, what = one.partition("=")
        if not equals or not what.strip():
            raise ConfigError(
                text("--instruct says not what an adapter does"),
                expected='NAME="Answer formally."', found=one,
            )  # fmt: skip
        if who not in (name, *present):
            raise ConfigError(
                text("--instruct names {name}, which is not there", name=who),
                expected=", ".join((name, *present)),
            )
        found[who] = what.strip()
    wanted = [*present] if own is None else [name, *present]
    if missing := [who for who in wanted if not found.get(who)]:
        raise ConfigError(
            text("nothing says what {name} does", name=missing[0]),
            expected=text("an instruction for each adapter, such as {example}",
                          example=f'--instruct {missing[0]}="Answer formally."'),
        )  # fmt: skip
    return found


def _checked(rows: list[Composed], name: str, present: dict[str, Adapter]) -> tuple[Composed, ...]:
    """The rows themselves. Raises ConfigError: the newcomer acts on none of them."""
    if not any(row.weights.get(name) for row in rows):
        raise ConfigError(
            text("no row of --composed names {name}", name=name),
            expected=text("chains such as {chain}", chain=f"{name}+{next(iter(present))}"),
        )
    return tuple(rows)
