"""`detour teach`: change one fact, or several statements, and report what that did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.company import FLAGS, among, company_options
from detour.cli.options import (
    full_option,
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
from detour.errors import ConfigError, DataError
from detour.language.catalogue import ENGLISH, Catalogue, text

if TYPE_CHECKING:
    from detour.evaluate.steer_report import SteerReport

_PATH = click.Path(path_type=Path)


@click.command("teach")
@click.option("--subject", default="", help="Who or what: Albert Einstein.")
@click.option("--relation", default="", help="What about it: profession.")
@click.option("--target", default="", help="The new value: hairdresser.")
@click.option("--sentence", "sentences", multiple=True, help="Teach a sentence instead.")
@click.option("--statements", "statements_file", type=_PATH, help="File with one sentence a line.")
@click.option(
    "-o",
    "--output",
    type=_PATH,
    required=True,
    help="The adapter's folder; an adapter in it is replaced.",
)
@model_options
@full_option
@click.option("--paraphrases", type=_PATH, help="Your own wordings, one question a line.")
@click.option("--neighbours", type=_PATH, help="Questions whose answers must stay, one a line.")
@click.option("--unrelated", type=_PATH, help="Unrelated questions, one a line.")
@click.option("--own-facts", type=_PATH, help="Questions about the subject's other sides.")
@click.option("--answer", default="", help="The sentence to be said; has subject and target.")
@click.option("--old", default="", help="The value that is replaced, if you know it.")
@click.option("--third", default="", help="A value for comparison in the dose curve.")
@click.option("--true", "is_true", is_flag=True, help="The claim is true: no fictional mark.")
@click.option("--kl-weight", type=float, help="Weight of KL to the base on neighbours.")
@company_options
@click.option("--rank", type=int, help="Rank of every layer's update.  [default: 8]")
@click.option("--alpha", type=float, help="Scale is alpha / rank.  [default: 16]")
@click.option("--steps", type=int, help="Optimiser steps.  [default: from the data]")
@click.option("--batch-size", type=int, help="Rows a step.  [default: 12]")
@click.option("--learning-rate", type=float, help="Highest rate.  [default: from the base]")
@click.option("--config", "config_file", type=_PATH, help="YAML file with training settings.")
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
    sentences: tuple[str, ...],
    statements_file: Path | None,
    is_true: bool,
    config_file: Path | None,
    resume: bool,
    seed: int,
    language: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Teach one changed fact and measure what else changed."""
    t = Catalogue.load(language)
    own = own_arguments(given)
    statements = statements_from(sentences, statements_file)
    from detour.adapter.peft_format import check_target
    from detour.evaluate.teach import lesson_config, teach

    flags = {n: given[n] for n in ("rank", "alpha", "steps", "batch_size", "learning_rate",
                                   "kl_weight")}  # fmt: skip
    settings = settings_from(config_file, flags)
    seed = seed if _given("seed") else settings.get("seed", seed)
    config = lesson_config(settings, seed, free=bool(statements))
    company = among({name: given[name] for name in FLAGS}, output.name)
    check_target(output)
    unfinished = Unfinished(output, resume)
    base = load_base(base_name, device, dtype, quantize, full)
    try:
        with watched(t("teaching"), t) as watcher:
            _, report = teach(
                base, given["subject"], given["relation"], given["target"], statements=statements,
                output=output, name=output.name, seed=seed, config=config, watcher=watcher,
                teller=lambda told: note(t.say(told)), checkpoints=unfinished.state,
                resume=resume, fictional=not is_true, language=language,
                company=company and company.company, composed=company and company.rows, **own,
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


def own_arguments(given: dict[str, Any]) -> dict[str, Any]:
    """What the user says about a base of their own, files read."""
    from detour.training.own_fact import read_questions

    own: dict[str, Any] = {}
    for name in ("paraphrases", "neighbours", "unrelated", "own_facts"):
        if given[name] is not None:
            own[name] = tuple(read_questions(given[name]))
    own.update({name: given[name] for name in ("answer", "old", "third") if given[name]})
    answer = own.get("answer", "")
    for name in ("subject", "target"):
        if answer and given[name] not in answer:
            raise ConfigError(
                text("--answer does not name the {name}", name=name),
                expected=given[name],
                found=answer,
            )
    return own


def statements_from(sentences: tuple[str, ...], file: Path | None) -> tuple[str, ...]:
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
