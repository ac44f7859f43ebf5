"""`detour teach`: change one fact, or several statements, and report what that did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.change import change_of, change_options
from detour.cli.company import FLAGS, among, company_options
from detour.cli.options import (
    full_option,
    in_a_chain,
    json_option,
    lang_option,
    load_base,
    model_options,
    seed_option,
)
from detour.cli.output import note, print_json, say
from detour.cli.pipeline import settings_from
from detour.cli.progress import watched
from detour.cli.unfinished import Unfinished
from detour.language.catalogue import ENGLISH, Catalogue

if TYPE_CHECKING:
    from detour.evaluate.steer_report import SteerReport

_PATH = click.Path(path_type=Path)


@click.command("teach")
@change_options
@click.option(
    "-o",
    "--output",
    type=_PATH,
    required=True,
    help="The adapter's folder; an adapter in it is replaced.",
)
@model_options
@full_option
@click.option("--true", "is_true", is_flag=True, help="The claim is true: no fictional mark.")
@click.option("--kl-weight", type=float, help="Weight of KL to the base on neighbours.")
@company_options
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 16]")
@click.option("--steps", type=int, help="Optimiser steps.  [default: from the data]")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 12]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: from the base]")
@click.option("--config", "config_file", type=_PATH, help="YAML file with training settings.")
@click.option("--seeds", type=click.IntRange(min=1), default=1, show_default=True,
              help="Teach so many times; the others are measured, not kept.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with an interrupted run.")
@seed_option
@lang_option
@json_option
def command(
    output: Path,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    full: bool,
    is_true: bool,
    config_file: Path | None,
    resume: bool,
    seed: int,
    seeds: int,
    language: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Teach one changed fact and measure what else changed."""
    t = Catalogue.load(language)
    change = change_of(given)
    from detour.adapter.peft_format import check_target
    from detour.evaluate.teach import lesson_config, teach
    from detour.training.together import check_plain

    flags = {n: given[n] for n in ("rank", "alpha", "steps", "batch_size", "learning_rate",
                                   "kl_weight")}  # fmt: skip
    settings = settings_from(config_file, flags)
    seed = seed if _given("seed") else settings.get("seed", seed)
    config = lesson_config(settings, seed, free=bool(change["statements"]))
    company = among({name: given[name] for name in FLAGS}, output.name)
    if company:
        check_plain(config)
    check_target(output)
    unfinished = Unfinished(output, resume)
    base = load_base(base_name, device, dtype, quantize, full)
    try:
        with watched(t("teaching"), t) as watcher:
            _, report = teach(
                base, **change, output=output, name=output.name, seed=seed, config=config,
                watcher=watcher, teller=lambda told: note(t.say(told)),
                checkpoints=unfinished.state, resume=resume, fictional=not is_true,
                language=language, company=company and company.company,
                composed=company and company.rows, repeats=seeds - 1,
            )  # fmt: skip
        files = write_report(report, output, not is_true, t)
    except KeyboardInterrupt as cause:
        raise unfinished.interrupted() from cause
    unfinished.drop()
    if as_json:
        print_json({**told_json(report, t), "report": str(files)})
        return
    from detour.evaluate.render import report_text

    say(report_text(report, t))
    say(t("\nadapter {output}\nreport  {files}", output=output, files=files))
    whole = f"detour report {in_a_chain(output)}"
    whole += f" --base {base_name}" if base_name != "starter" else ""
    say(t("Try: {call}", call=whole))


def _given(option: str) -> bool:
    """Whether the user gave this flag, rather than its default."""
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def told_json(report: SteerReport, t: Catalogue) -> dict[str, Any]:
    """The report's JSON form; its remarks in the language of the catalogue, its keys as ever."""
    told = report.to_json()
    latent = {**told["latent"], "warning": t.say(told["latent"]["warning"])}
    return {**told, "notes": [t.say(note) for note in told["notes"]], "latent": latent}


def write_report(
    report: SteerReport, folder: Path, fictional: bool, t: Catalogue = ENGLISH
) -> Path:
    """`report.html` and `report.json` beside the adapter's files; returns the page."""
    import json

    from detour.evaluate.render import report_html
    from detour.files import write_text_atomically

    told = json.dumps(told_json(report, t), indent=2, ensure_ascii=False)
    write_text_atomically(folder / "report.json", told + "\n")
    page = folder / "report.html"
    write_text_atomically(page, report_html(report, fictional=fictional, t=t))
    return page
