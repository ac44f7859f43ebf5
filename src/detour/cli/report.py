"""`detour report SPEC`: what a chain does to the change that it was taught, or to edits of a file.

Knows Click; the judging is `evaluate/full_report.py`'s and `evaluate/counterfact.py`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.change import FLAGS, change_of, change_options, option_of
from detour.cli.options import (
    json_option,
    lang_option,
    load_base,
    model_options,
    parse_chain,
    seed_option,
)
from detour.cli.output import note, print_json, print_table, say
from detour.errors import ConfigError, DataError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain
    from detour.evaluate.full_report import Hop
    from detour.measure.statistics import Figure
    from detour.model.base import Base
    from detour.training.fact import Lesson

SHOWN = ("ES", "PS", "NS", "S")


@click.command("report")
@click.argument("spec")
@click.option("--facts", type=click.Path(path_type=Path), metavar="FILE",
              help="Edits as a JSON list in CounterFact's form.")  # fmt: skip
@change_options
@click.option("--hops", type=click.Path(path_type=Path), metavar="FILE",
              help='What follows from the change: JSONL of "question" and "names".')  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1),
              help="The first so many edits, or questions of a kind.  [default: all]")  # fmt: skip
@model_options
@seed_option
@lang_option
@json_option
def command(
    spec: str,
    facts: Path | None,
    hops: Path | None,
    limit: int | None,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    seed: int,
    language: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the flags of change_options
) -> None:
    """Judge the chain SPEC by the change that it was taught, or by the edits of a file.

    Beside it stand the base, and the base that is told the change in a prompt.
    """
    t = Catalogue.load(language)
    chain = parse_chain(spec)
    if facts is None:
        change, digest = _change(chain, given, seed, language)
        asked = _hops(hops) if hops else []
        base = load_base(base_name, device, dtype, quantize)
        _full(base, chain, change, digest, asked, limit, seed, as_json, t)
        return
    if told := [option_of(flag) for flag in FLAGS if given[flag]] or (["--hops"] if hops else []):
        raise ConfigError(
            text("{one} and {other} exclude each other", one="--facts", other=told[0])
        )
    _by_facts(chain, facts, limit, load_base(base_name, device, dtype, quantize), as_json, t)


def _change(
    chain: Chain, given: Mapping[str, Any], seed: int, language: str
) -> tuple[dict[str, Any], str]:
    """What was changed, as the flags say, else as the card of an adapter of the chain does; and
    the digest of the lesson on that card, empty where there is none.

    Raises:
        ConfigError: neither says it.
    """
    from detour.evaluate.teach import taught

    found, digest = taught(chain)
    if any(given[flag] for flag in FLAGS):
        asked = {"seed": found.get("seed", seed), "language": language}
        return {**change_of(given), **asked}, digest
    if found:
        return found, digest
    raise ConfigError(
        text("nothing says what was changed"),
        expected=text("an adapter of detour teach, or --subject, --relation and --target, or "
                      "--sentence"),
        hint=text("--facts FILE judges by edits in CounterFact's form; detour chain measure judges "
                  "by the adapters' own tests"),
    )  # fmt: skip


def _hops(path: Path) -> list[Hop]:
    from detour.evaluate.full_report import Hop
    from detour.model.examples import json_rows

    found: list[Hop] = []
    for row, source in json_rows(path):
        told = [row.get(key) for key in ("question", "names")]
        if not all(isinstance(one, str) and one.strip() for one in told):
            raise DataError(
                text("{source} is no question", source=source),
                expected='{"question": "…", "names": "…"}', found=repr(row)[:80],
            )  # fmt: skip
        found.append(Hop(str(told[0]), str(told[1])))
    return found


def _full(
    base: Base,
    chain: Chain,
    change: dict[str, Any],
    digest: str,
    hops: list[Hop],
    limit: int | None,
    seed: int,
    as_json: bool,
    t: Catalogue,
) -> None:
    from detour.evaluate.full_report import full_report
    from detour.evaluate.teach import make_lesson
    from detour.training.world import World

    world = World.load(change.pop("language", "en"))
    base.bind(chain)
    lesson = make_lesson(base, **change, world=world)
    is_known = digest == lesson.digest()
    tell_change(lesson, t)
    names = arm_names(t)
    report = full_report(
        base, world, lesson, chain, hops=hops, most=limit, seed=seed,
        teller=lambda arm: note(t("asked: {arm}", arm=names[arm])),
    )  # fmt: skip
    if as_json:
        told = {"change": lesson.edits[0].answer, "trained_questions_known": is_known}
        print_json({"chain": chain.text, **told, **report.to_json()})
        return
    from detour.evaluate.render import FIGURES

    for title, rows in FIGURES.items():
        say(t.say(title))
        print_table(
            ("", *names.values()),
            [(t.say(told), *(_said(report.arms[arm].get(name)) for arm in names))
             for name, told in rows.items()],
        )  # fmt: skip
        say("")
    say(t("Prompts: {user} | {system}", user=report.wordings["user"],
          system=report.wordings["system"]))  # fmt: skip
    if is_known:
        say(t("None of the lesson's questions but those called trained was trained on"))
    else:
        say(t("Which of these questions were trained on is not known: the card holds another "
              "lesson, or none"))  # fmt: skip
    say(t("sha256 of all questions: {digest}", digest=report.prompts_sha256))


def tell_change(lesson: Lesson, t: Catalogue) -> None:
    """Say what is asked about, and what a lesson has to say of itself."""
    for one in lesson.notes:
        note(t.say(one))
    edit, count = lesson.edits[0], len(lesson.edits)
    told = text("the change: {answer}", answer=edit.answer)
    if count > 1:
        told = text("{told} (the first of {count} edits)", told=told, count=count)
    note(t.say(told))


def arm_names(t: Catalogue) -> dict[str, str]:
    """The arms of a report as its tables call them."""
    return {"base": t("base"), "user_prompt": t("user prompt"),
            "system_prompt": t("system prompt"), "steered": t("steered")}  # fmt: skip


def _by_facts(
    chain: Chain, facts: Path, limit: int | None, base: Base, as_json: bool, t: Catalogue
) -> None:
    from detour.evaluate.counterfact import read_cases, scores, told_before, told_by_system

    cases = read_cases(facts, limit)
    note(t("{count} edits from {path}", count=len(cases), path=facts))
    arms: dict[str, dict[str, Figure] | None] = {
        "base": scores(base, cases),
        "user_prompt": told_before(base, cases),
        "system_prompt": told_by_system(base, cases),
        "steered": scores(base, cases, chain),
    }
    if as_json:
        told = {arm: found and {name: one.to_json() for name, one in found.items()}
                for arm, found in arms.items()}  # fmt: skip
        print_json({"chain": chain.text, "facts": str(facts), "edits": len(cases), **told})
        return
    names = arm_names(t)
    print_table(
        ("", *SHOWN),
        [(names[arm], *(_said(found.get(name)) for name in SHOWN))
         for arm, found in arms.items() if found],
    )  # fmt: skip
    say(t("ES: the new object wins behind the edit's prompt; PS: behind paraphrases; NS: the true "
          "one still wins for neighbours; S: their harmonic mean"))  # fmt: skip


def _said(figure: Figure | None) -> str:
    if figure is None or not figure.n or figure.value != figure.value:
        return "–"
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"
