"""`detour tune DATA -o FOLDER`: settings for a training, searched and held against the default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from detour.cli.options import (
    in_a_chain,
    json_option,
    lang_option,
    model_options,
    seed_option,
)
from detour.cli.output import note, print_json, print_table, say
from detour.cli.rows import RowOptions, row_options
from detour.errors import Interrupted
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.training.tune.search import Comparison, Found


@click.command("tune")
@click.argument("data")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True,
              help="The study's folder.")  # fmt: skip
@row_options
@model_options
@click.option("--trials", type=click.IntRange(min=1), default=20, show_default=True,
              help="Configurations to try, the default among them.")  # fmt: skip
@click.option("--workers", type=click.IntRange(min=1), default=2, show_default=True,
              help="Trainings at once; each has the base in memory.")  # fmt: skip
@click.option("--ray", "address", metavar="ADDRESS",
              help="Train on a Ray cluster: auto, or HOST:PORT.")  # fmt: skip
@click.option("--space", "space_file", type=click.Path(path_type=Path),
              help="YAML: what may vary, and what is fixed.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the study in the folder.")
@click.option("--train", is_flag=True, help="Save the adapter of the best configuration too.")
@seed_option
@lang_option
@json_option
def command(
    data: str,
    output: Path,
    reading: RowOptions,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    trials: int,
    workers: int,
    address: str | None,
    space_file: Path | None,
    resume: bool,
    train: bool,
    seed: int,
    language: str,
    as_json: bool,
) -> None:
    """Search settings for a training on DATA, and say whether they beat the default."""
    t = Catalogue.load(language)
    loaded = reading.read(data)  # before the imports that take seconds
    from detour.training.tune.record import save, summary
    from detour.training.tune.search import Wanted, check_packages, parted, search
    from detour.training.tune.space import read_space
    from detour.training.tune.study import check_place
    from detour.training.tune.work import Setting

    check_packages(address)
    check_place(output, resume)
    space = read_space(space_file) if space_file else None
    rows = parted(loaded, seed)
    note(t("{learned} rows to learn, {validation} to choose by, {test} to judge by in the end",
           learned=len(rows.learned), validation=len(rows.validation),
           test=len(rows.test)))  # fmt: skip
    setting = Setting(base_name, rows, device, dtype, quantize, workers)
    wanted = Wanted(trials, workers, seed, address, resume)
    try:
        found = search(
            setting, output, wanted, space=space, teller=lambda told: note(t.say(told))
        )  # fmt: skip
        adapter = save(found, output, train, t)
    except KeyboardInterrupt as cause:
        raise _interrupted(output) from cause
    if as_json:
        print_json({**summary(found, output), **({"adapter": str(adapter)} if adapter else {})})
        return
    _say(found, output, t)
    if adapter:
        call = f'detour ask "…" --chain {in_a_chain(adapter)} --base {base_name} --compare'
        say(t("Try: {call}", call=call))


def _interrupted(folder: Path) -> Interrupted:
    from detour.training.tune.study import STUDY_FILE

    if not (folder / STUDY_FILE).is_file():
        return Interrupted(
            text("stopped; nothing of this run is saved"), hint=text("run it again")
        )  # fmt: skip
    return Interrupted(
        text("stopped; the study is saved in {folder}", folder=folder),
        hint=text("the same command with --resume"),
    )


def _say(found: Found, folder: Path, t: Catalogue) -> None:
    """The best beside the default, and whether the difference is one."""
    best, default = found.best, found.default
    names = [name for name in best.config if name in found.space.searched]
    rows = [[name, _cell(default.config.get(name)), _cell(best.config.get(name))]
            for name in names]  # fmt: skip
    held = found.comparison
    print_table(
        [t("setting"), t("default"), t("best: trial {number}", number=best.number)],
        [*rows,
         [t("validation loss"), f"{default.value:.4f}", f"{best.value:.4f}"],
         [t("loss on {count} test rows", count=held.rows), f"{held.default:.4f}",
          f"{held.best:.4f}"],
         [t("KL on neutral text"), f"{held.kl_default:.4f}", f"{held.kl_best:.4f}"]],
    )  # fmt: skip
    say(verdict(held, t))
    if held.harms:
        say(t("But it changes text that nothing was trained on much more: before you take it, try "
              "the default with more steps, or a lower rate (--space)."))  # fmt: skip
    say(t("{trials} trials, {pruned} ended early, {failed} failed, in {seconds:.0f} s",
          trials=len(found.trials), pruned=found.count("pruned"), failed=found.count("failed"),
          seconds=found.seconds))  # fmt: skip
    say(t("settings: {file}", file=folder / "best.yaml"))


def _cell(value: object) -> str:
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def verdict(held: Comparison, t: Catalogue) -> str:
    """One sentence on the comparison."""
    told, low, high = held.difference.value, held.difference.low, held.difference.high
    if held.verdict == "same":
        return t("Nothing that was tried is better than the default.")
    if held.verdict == "better":
        return t("On rows that no trial saw it is better than the default: {value:+.4f} nats a "
                 "token [{low:+.4f}, {high:+.4f}].", value=told, low=low, high=high)  # fmt: skip
    if held.verdict == "worse":
        return t("On rows that no trial saw it is worse than the default: {value:+.4f} nats a "
                 "token [{low:+.4f}, {high:+.4f}]. Keep the default.",
                 value=told, low=low, high=high)  # fmt: skip
    return t("On rows that no trial saw the difference to the default is noise: {value:+.4f} nats "
             "a token [{low:+.4f}, {high:+.4f}].", value=told, low=low, high=high)  # fmt: skip
