"""`detour chain measure SPEC`: what is left of each adapter of a chain, and what helps.

Knows Click; the measuring is `evaluate/chain_measure.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.chain_check import NOT_CLEAR
from detour.cli.options import (
    base_option,
    check_absent,
    json_option,
    lang_option,
    load_base,
    parse_chain,
)
from detour.cli.output import note, print_json, print_table, say
from detour.cli.progress import watched
from detour.cli.train import teller
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain
    from detour.data.reading import Loaded
    from detour.evaluate.chain_measure import ChainMeasure, Kept
    from detour.evaluate.chain_remedies import Remedy
    from detour.evaluate.chain_tests import Item
    from detour.evaluate.retrained import Anew
    from detour.evaluate.trials import Trials
    from detour.training.together import Composed

SHOWN = 8  # remedies


@click.command("measure")
@click.argument("spec")
@click.option(
    "--tests", "given", multiple=True, metavar="NAME=FILE",
    help="Questions for one adapter, instead of those beside it; again for others.",
)  # fmt: skip
@click.option(
    "--rows", type=click.IntRange(min=1), default=40, show_default=True,
    help="Questions of each adapter, at most.",
)  # fmt: skip
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=96, show_default=True,
    help="Tokens of an answer; one that needs more counts as broken.",
)  # fmt: skip
@click.option(
    "--remedies/--no-remedies", default=True, show_default=True,
    help="Try what helps: lower weights, fewer adapters, a smaller rank.",
)  # fmt: skip
@click.option(
    "--retrain", "anew", multiple=True, metavar="NAME=FILE",
    help="Train this adapter again on these rows, among the others; again for others.",
)  # fmt: skip
@click.option("-o", "--output", type=click.Path(path_type=Path),
              help="Folder for what --retrain makes.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=1),
              help="Of --retrain.  [default: as on the adapter's card]")  # fmt: skip
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the report as a page.")  # fmt: skip
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE",
              help="Write what is left, and who takes it, as a PNG file.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Exit with 1 unless the verdict is: compatible.")
@base_option
@lang_option
@json_option
def command(
    spec: str,
    given: tuple[str, ...],
    rows: int,
    max_tokens: int,
    remedies: bool,
    anew: tuple[str, ...],
    output: Path | None,
    steps: int | None,
    html: Path | None,
    picture: Path | None,
    strict: bool,
    base_name: str,
    language: str,
    as_json: bool,
) -> int:
    """Run the chain SPEC on the tests of its adapters: what is left of each, who harms whom, and
    which remedy helps.
    """
    check_absent(html, picture)
    t = Catalogue.load(language)
    chain = parse_chain(spec)
    tests = tests_for(chain, named_files("--tests", given, chain), rows)
    again = _again(anew, chain, output, {"steps": steps} if steps else {})
    base = load_base(base_name)
    from detour.evaluate.chain_measure import measure_chain
    from detour.evaluate.chain_remedies import best_first, tried
    from detour.evaluate.trials import Trials

    trials = Trials(base, tests, max_tokens)
    found = measure_chain(base, chain, tests, trials=trials, teller=lambda told: note(t.say(told)))
    helped = tried(found, trials) if remedies else []
    if again:
        helped = best_first([*helped, *_retrained(found, trials, again, t)])
    _write(found, helped, html, picture, t)
    if as_json:
        print_json({**found.to_json(t), "remedies": [one.to_json(t) for one in helped]})
    else:
        _tell(found, helped, t)
    return NOT_CLEAR if strict and found.verdict != "compatible" else 0


def _write(
    found: ChainMeasure,
    helped: Sequence[Remedy],
    html: Path | None,
    picture: Path | None,
    t: Catalogue,
) -> None:
    from detour.files import write_bytes_atomically, write_text_atomically

    if html:
        from detour.evaluate.measure_page import page

        write_text_atomically(html, page(found, helped, t))
    if picture:
        from detour.evaluate.measure_plots import picture as drawn

        write_bytes_atomically(picture, drawn(found, t))


def _again(
    given: Sequence[str], chain: Chain, output: Path | None, settings: dict[str, Any]
) -> list[Anew]:
    """What --retrain asks for. Raises ConfigError: no folder for it; DataError: as `_rows`."""
    files = named_files("--retrain", given, chain)
    if not files:
        for flag, value in (("--output", output), ("--steps", settings)):
            if value:
                raise ConfigError(text("{flag} goes with {other}", flag=flag, other="--retrain"))
        return []
    if output is None:
        raise ConfigError(
            text("{flag} is missing", flag="--output"),
            expected=text("a folder for the adapters that are trained again"),
        )
    from detour.adapter.peft_format import check_target
    from detour.evaluate.retrained import Anew

    check_target(output)
    names = [term.adapter.name for term in chain.terms]
    return [Anew(names.index(name), _rows(path), output, settings) for name, path in files.items()]


def _rows(path: Path) -> Loaded | tuple[Composed, ...]:
    """Of an adapter, or of chains where the rows say by "chain" who acts.

    Raises DataError: they cannot be read; names file and line.
    """
    from detour.data.reading import read_data
    from detour.model.examples import json_rows
    from detour.training.composed import read_composed

    is_composed = path.suffix == ".jsonl" and any("chain" in row for row, _ in json_rows(path))
    return tuple(read_composed(path)) if is_composed else read_data(str(path))


def _retrained(
    found: ChainMeasure, trials: Trials, again: Sequence[Anew], t: Catalogue
) -> list[Remedy]:
    from detour.evaluate.retrained import retrained

    made: list[Remedy] = []
    for one in again:
        with watched(t("training"), t) as watcher:
            made += retrained(found, trials, one, watcher=watcher, teller=teller(t))
    return made


def named_files(flag: str, given: Sequence[str], chain: Chain) -> dict[str, Path]:
    """`NAME=FILE` by name. Raises ConfigError: another form, or no adapter of the chain."""
    found: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not (name and equals and path):
            raise ConfigError(
                text("{flag} does not name an adapter and a file", flag=flag),
                expected="NAME=FILE", found=one,
            )  # fmt: skip
        found[name] = Path(path)
    names = list(dict.fromkeys(term.adapter.name for term in chain.terms))
    if unknown := [name for name in found if name not in names]:
        raise ConfigError(
            text("{flag} names an adapter that is not in the chain", flag=flag),
            expected=", ".join(names), found=", ".join(unknown),
        )  # fmt: skip
    return found


def tests_for(chain: Chain, own: dict[str, Path], rows: int) -> list[Sequence[Item]]:
    """Of every term, at most so many. Raises DataError: a file or a row cannot be read."""
    from detour.evaluate.chain_tests import items_of, read_items, spread

    read = {name: read_items(path) for name, path in own.items()}
    every = [read.get(term.adapter.name) or items_of(term.adapter) for term in chain.terms]
    return [spread(tests, rows) for tests in every]


def _tell(found: ChainMeasure, helped: Sequence[Remedy], t: Catalogue) -> None:
    columns = [t("adapter"), t("base"), t("alone"), t("in the chain"), t("retained"), t("tests"),
               t("harmed most by"), t("KL to alone")]  # fmt: skip
    print_table(columns, [_row(found, place, t) for place in range(len(found.names))])
    for kept in found.kept.values():
        if kept.why:
            note(t.say(kept.why))
        if kept.contradictions and kept.contradictions.value:
            note(t("paraphrases contradict each other: {figure}", figure=kept.contradictions))
    say(t("broken answers: {chain} in the chain, {alone} alone, {base} of the base",
          chain=f"{found.broken.chain.value:.1%}", alone=f"{found.broken.alone.value:.1%}",
          base=f"{found.broken.base.value:.1%}"))  # fmt: skip
    say(t("text that nothing was trained on: KL to the base {kl:.3f} nats a token",
          kl=found.neutral.kl_mean))  # fmt: skip
    say(t("verdict: {verdict}", verdict=t.say(found.said)))
    if helped:
        print_table(
            [t("tried"), t("adapters"), t("retained"), t("worst"), t("gain")],
            [[t.say(one.what), str(len(one.shares)), f"{one.retained_mean:.2f}",
              f"{one.worst:.2f}", one.gain_told]
             for one in helped[:SHOWN]],
        )  # fmt: skip
        best = helped[0]
        if best.gain > 0:
            note(t("the best of them: {spec}", spec=best.chain.text))
    note(t("{count} answers in {seconds:.1f} s", count=found.answers, seconds=found.seconds))


def _row(found: ChainMeasure, place: int, t: Catalogue) -> list[str]:
    kept: Kept | None = found.kept.get(place)
    if kept is None:
        return [found.names[place], *["–"] * 4, t("none"), "–", "–"]
    share: Any = kept.share
    told = f"{share.value:.2f} [{share.low:.2f}, {share.high:.2f}]" if share else "–"
    harms = [(kept.harm(other), other) for other in kept.without if share]
    worst = max(harms, default=(0.0, -1))
    most = f"{found.names[worst[1]]} ({worst[0]:.2f})" if worst[0] > 0 else "–"
    moved = f"{kept.moved.kl_to_alone:.2f}" if kept.moved else "–"
    return [found.names[place], f"{kept.base:.2f}", f"{kept.alone:.2f}", f"{kept.chain:.2f}",
            told, str(kept.n), most, moved]  # fmt: skip
