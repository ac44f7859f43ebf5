"""`detour chain train ROWS -o FOLDER`: adapters that learn to be stacked, together or in company.

Knows Click and files; the training is `training/together.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import (
    in_a_chain,
    json_option,
    lang_option,
    load_base,
    model_options,
    replace_option,
)
from detour.cli.output import note, print_json, say
from detour.cli.pipeline import settings_from
from detour.cli.progress import watched
from detour.cli.train import teller
from detour.cli.unfinished import Unfinished
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.training.together import Composed, Ensemble


@click.command("train")
@click.argument("rows", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path),
              help="Folder of the adapters' folders.")  # fmt: skip
@click.option("--company", multiple=True, metavar="NAME",
              help="An adapter that acts and stays as it is; again for others.")  # fmt: skip
@click.option("--start", multiple=True, metavar="NAME",
              help="An adapter that goes on from what it is; again for others.")  # fmt: skip
@model_options
@click.option("--config", "config_file", type=click.Path(path_type=Path),
              help="YAML with settings; flags win.")  # fmt: skip
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 16]")
@click.option("--targets", help="Layers to adapt: all-linear, or names with commas.")
@click.option("--steps", type=int, help="Optimiser steps.  [default: from the data]")
@click.option("--epochs", type=float, help="Passes over the data, instead of steps.")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 8]")
@click.option("--micro-batch-size", type=int,
              help="Rows of a step in memory at once.  [default: all]")  # fmt: skip
@click.option("--learning-rate", type=float, help="Highest rate.  [default: from the base]")
@click.option("--seed", type=int, help="Of factors and order.  [default: 0]")
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@replace_option
@lang_option
@json_option
def command(
    rows: Path,
    output: Path,
    company: tuple[str, ...],
    start: tuple[str, ...],
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    config_file: Path | None,
    resume: bool,
    replace: bool,
    language: str,
    as_json: bool,
    **flags: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Train the adapters that ROWS name, on rows that say by "chain" which of them act.

    Those of --company act as they are. So one adapter learns among others, or several at once.
    """
    t = Catalogue.load(language)
    settings = settings_from(config_file, flags)
    from detour.adapter.library import Library
    from detour.adapter.peft_format import check_target, check_vacant
    from detour.training.composed import names_in, read_composed
    from detour.training.config import make_config
    from detour.training.together import train_together

    read = read_composed(rows)
    shelf = Library.default()
    present, begun = ({one.name: one for one in map(shelf.load, names)}
                      for names in (company, start))  # fmt: skip
    learning = _learning(names_in(read), present, begun)
    for name in learning:
        check_target(output / name)
        if not (replace or resume):
            check_vacant(output / name)
    unfinished = Unfinished(output, resume)
    base = load_base(base_name, device, dtype, quantize)
    note(t("{count} rows; {names} learn; in company of {others}", count=len(read),
           names=", ".join(learning), others=", ".join(present) or t("nobody")))  # fmt: skip
    try:
        with watched(t("training"), t) as watcher:
            made = train_together(
                base, read, learning, make_config(settings), company=present, start=begun,
                watcher=watcher, teller=teller(t), checkpoints=unfinished.state, resume=resume,
            )  # fmt: skip
        paths = {name: one.save(output / name) for name, one in made.adapters.items()}
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json(_summary(made, paths))
    else:
        _tell(made, read, paths, present, t)


def _learning(
    named: Sequence[str], present: dict[str, Adapter], begun: dict[str, Adapter]
) -> list[str]:
    """Who is named and is no company. Raises ConfigError: nobody, or a start that is not named."""
    learning = [name for name in named if name not in present]
    if not learning:
        raise ConfigError(
            text("nobody learns: the rows name company only"),
            expected=text("a name in a row's chain that is not --company"),
            found=", ".join(named),
        )
    if unknown := [name for name in begun if name not in learning]:
        raise ConfigError(
            text("--start names {name}, which does not learn", name=unknown[0]),
            expected=", ".join(learning),
        )
    for name in learning:
        if Path(name).name != name or name.startswith("."):
            raise ConfigError(
                text("{name} cannot be the name of a folder", name=repr(name)),
                hint=text("name adapters that exist already with --company"),
            )
    return learning


def _summary(made: Ensemble, paths: dict[str, Path]) -> dict[str, Any]:
    return {
        "adapters": {name: str(path) for name, path in paths.items()},
        "loss_first": round(made.first_loss, 6),
        "loss_best": round(made.best_loss, 6),
        "best_step": made.best_step,
        "steps": made.plan.steps,
        "learning_rate": made.plan.learning_rate,
        "rows": made.rows,
        "seconds": round(made.seconds, 2),
    }


def _tell(
    made: Ensemble,
    rows: Sequence[Composed],
    paths: dict[str, Path],
    present: dict[str, Adapter],
    t: Catalogue,
) -> None:
    say(t("loss {first:.3f} → {best:.3f} at step {step}, {seconds:.0f} s", first=made.first_loss,
          best=made.best_loss, step=made.best_step, seconds=made.seconds))  # fmt: skip
    for path in paths.values():
        say(t("{folder} is written", folder=path))
    spec = "+".join(in_a_chain(path) for path in paths.values())
    whole = "+".join([spec, *present])
    verb = (
        "measure"
        if "+" in whole and any(one.test_rows for one in made.adapters.values())
        else "check"
    )
    say(t("Try: {call}", call=f"detour chain {verb} {whole}"))
