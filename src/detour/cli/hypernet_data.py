"""`detour hypernet import` and `widen`: task folders from other people's files, and more sentences.

Knows Click and files; wires readers, frames and a model that rephrases. A folder is written whole
or not at all, and never over another one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from detour.cli.options import device_option, dtype_option, json_option, load_base, seed_option
from detour.cli.output import note, print_json, say
from detour.errors import ConfigError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.hypernetwork.natural_instructions import Imported
    from detour.hypernetwork.widen import Widened

SHOWN = 20  # files or tasks that are told one by one
_PATH = click.Path(path_type=Path)


@click.command("import")
@click.argument("source", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, help="A new folder of tasks.")
@click.option("--rows", type=click.IntRange(min=1), default=500, show_default=True,
              help="Most rows of a task to learn from.")  # fmt: skip
@click.option("--test-rows", type=click.IntRange(min=1), default=100, show_default=True,
              help="Most rows of a task to judge by; at most half.")  # fmt: skip
@click.option("--self-describing", is_flag=True,
              help="Put the definition before every input.")  # fmt: skip
@click.option("--english", is_flag=True, help="Only tasks from English to English.")
@click.option("--skip-broken", is_flag=True, help="Leave out files that cannot be used.")
@json_option
def import_command(
    source: Path,
    output: Path,
    rows: int,
    test_rows: int,
    self_describing: bool,
    english: bool,
    skip_broken: bool,
    as_json: bool,
) -> None:
    """Make task folders from SOURCE, Super-NaturalInstructions: a JSON file, or a folder of them.

    An input with several answers is learned with the first and never judges. The task is hidden
    from the prompt unless you ask for --self-describing.
    """
    from detour.hypernetwork.natural_instructions import ImportConfig, Imported, import_tasks

    config = ImportConfig(
        rows=rows, test_rows=test_rows, self_describing=self_describing, english=english,
        skip_broken=skip_broken,
    )  # fmt: skip
    made = Imported()

    def fill(folder: Path) -> None:
        nonlocal made
        made = import_tasks(source, folder, config)

    _write_new(output, fill)
    if as_json:
        print_json({"output": str(output), **made.to_json()})
        return
    _say_imported(made, output, test_rows)


def _say_imported(made: Imported, output: Path, test_rows: int) -> None:
    for file in made.skipped:
        note(f"skipped {file.file}: {file.why}")
    say(
        f"{output}: {len(made.tasks)} tasks, {made.total('train')} rows to learn, "
        f"{made.total('test')} to judge by, {len(made.skipped)} files skipped"
    )
    if several := made.total("several_answers"):
        say(f"{several} inputs have several answers: learned with the first, never judged by")
    if left := made.total("repeated"):
        say(f"{left} instances repeat an input and are taken once")
    if left := made.total("unusable"):
        say(f"{left} instances lack an input or an answer and are left out")
    few = [task.name for task in made.tasks if task.test < test_rows]
    if few:
        say(f"fewer than {test_rows} rows to judge by: {_listed(few)}")
    say(f"Try: detour hypernet widen {output} -o {output}-wide --hold-out-frames")


@click.command("widen")
@click.argument("tasks", type=_PATH)
@click.option("-o", "--output", type=_PATH, required=True, help="A new folder of tasks.")
@click.option("--count", type=click.IntRange(min=1), default=64, show_default=True,
              help="Descriptions to train on that a task should have.")  # fmt: skip
@click.option("--hold-out-frames", is_flag=True,
              help="Add the set new frames, which only judges.")  # fmt: skip
@click.option("--model", "base_name", metavar="NAME",
              help="A model that rephrases, as for --base.  [default: none]")  # fmt: skip
@device_option
@dtype_option
@seed_option
@json_option
def widen_command(
    tasks: Path,
    output: Path,
    count: int,
    hold_out_frames: bool,
    base_name: str | None,
    device: str | None,
    dtype: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Copy TASKS and describe each task in more ways.

    Templates vary the sentence around a description, not its words. A model given by --model says
    it in other words; what it says is checked for form, not for meaning.
    """
    from detour.hypernetwork.widen import (
        WidenConfig,
        asker_of,
        read_folder,
        widen,
        write_folder,
    )

    if output.resolve().is_relative_to(tasks.resolve()) and output.resolve() != tasks.resolve():
        raise ConfigError(
            text("{folder} lies inside the tasks that are read", folder=output),
            expected=text("a folder beside {path}", path=tasks),
        )
    _check_new(output)
    found = read_folder(tasks)
    ask = asker_of(load_base(base_name, device, dtype), seed) if base_name else None
    widened = widen(found, WidenConfig(count=count, hold_out_frames=hold_out_frames), ask)
    _write_new(output, lambda folder: write_folder(tasks, folder, widened.added))
    if as_json:
        print_json({"output": str(output), **widened.to_json()})
        return
    _say_widened(widened, output, count, base_name)


def _say_widened(widened: Widened, output: Path, count: int, base_name: str | None) -> None:
    if base_name:
        kept = widened.total("rephrased")
        reasons = ", ".join(f"{n} {why}" for why, n in widened.dropped.most_common()) or "none"
        say(f"{base_name}: {kept} of {widened.asked} rephrasings kept; dropped: {reasons}")
    say(
        f"{output}: {len(widened.tasks)} tasks, {widened.total('templates')} descriptions made by "
        f"templates, {widened.total('rephrased')} by a model, "
        f"{widened.total('new_frames')} that only judge"
    )
    if widened.short:
        say(f"fewer than {count} descriptions: {_listed(widened.short)}")
    if widened.total("templates"):
        say("Templates vary the sentence around a description, not its words.")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def _write_new(folder: Path, fill: Callable[[Path], None]) -> None:
    """Put a new folder there, whole or not at all.

    Raises:
        ConfigError: something is there already.
        StorageError: nothing can be written there.
    """
    from detour.files import replace_folder_atomically

    _check_new(folder)
    replace_folder_atomically(folder, fill)


def _check_new(folder: Path) -> None:
    from detour.files import check_writable

    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            text("{folder} is there already and is not empty", folder=folder),
            expected=text("a new or an empty folder"),
            found=text("a folder with other files") if folder.is_dir() else text("a file"),
            hint=text("choose another name"),
        )
    check_writable(folder)
