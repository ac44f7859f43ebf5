"""`detour evaluate`: a base and a chain on the same rows or benchmarks, with figures.

Knows Click and files; wires rows, bases with and without heads, and the metrics.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from detour.cli.ask_head import sole_head
from detour.cli.evaluate_more import (
    Arms,
    More,
    learned_of,
    plain_arms,
    print_arms,
    remembered,
)
from detour.cli.evaluate_suite import data_or_suite, evaluate_suite, suite_options
from detour.cli.options import (
    json_option,
    load_base,
    model_options,
    parse_chain,
)
from detour.cli.output import note, print_json
from detour.cli.rows import RowOptions, row_options
from detour.errors import ConfigError, DataError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain
    from detour.data.reading import Loaded
    from detour.evaluate.answers import Answered
    from detour.model.base import Base


@click.command("evaluate")
@click.argument("data", required=False)
@row_options
@model_options
@click.option("--chain", "chain_text", metavar="SPEC",
              help="Adapters and weights that are judged beside the base.")  # fmt: skip
@click.option("--split", metavar="NAME",
              help="Part of a folder.  [default: test, validation or train]")  # fmt: skip
@click.option("--items", type=click.IntRange(min=1), help="The first so many rows.  [default: all]")
@click.option("--max-tokens", type=click.IntRange(min=1),
              help="Most tokens of an answer.  [default: what the longest answer in DATA takes, at "
                   "least 64]")  # fmt: skip
@click.option("--answers", "answers_file", type=click.Path(path_type=Path, dir_okay=False),
              help="JSONL: every question with all answers.")  # fmt: skip
@click.option("--canary", "canaries", multiple=True, metavar="TEXT",
              help="Tell whether TEXT, which stands in answers of DATA, was learned by heart; can "
                   "be repeated.")  # fmt: skip
@suite_options
@json_option
def command(
    data: str | None,
    reading: RowOptions,
    base_name: str,
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    chain_text: str | None,
    split: str | None,
    items: int | None,
    max_tokens: int | None,
    answers_file: Path | None,
    canaries: tuple[str, ...],
    as_json: bool,
    **suite: Any,  # noqa: ANN401 - whatever Click hands over
) -> None:
    """Measure a base and a chain on DATA, in any form that detour check knows, or on a suite."""
    data = data_or_suite(data, suite)
    if data is None:
        head, arms = evaluate_suite(base_name, device, dtype, quantize, chain_text, suite)
        _tell(head, arms, as_json)
        return
    from detour.data.reading import leaked

    loaded = reading.read(data)
    chosen, part = _part(loaded, split)
    rows = list(part)[:items]
    chain = parse_chain(chain_text)
    note(f"{len(rows)} rows of {chosen} from {data}; {loaded.told}")
    if inside := len(leaked(loaded, chosen)):
        note(f"{inside} rows of {chosen} stand in train too: what they measure is memory")
    learned = learned_of(chain, part, rows)
    if loaded.kind in ("classification", "regression"):
        if canaries:
            raise ConfigError(
                text("--{name} is not for rows with a class or a number", name="canary"),
                hint=text("leave it out"),
            )
        others = loaded.train if chosen != "train" else None
        arms = _heads(others, rows, base_name, chain, device, dtype)
        more = More(learned=learned)
    else:
        base = load_base(base_name, device, dtype, quantize)
        _approve(base, chain)
        known = remembered(base, chain, part, canaries)
        found = _answers(rows, base, chain, max_tokens, answers_file)
        arms = {arm: dict(one.figures) for arm, one in found.items()}
        cut = {arm: one.cut for arm, one in found.items()}
        more = More(_languages(rows, found), known, cut if any(cut.values()) else {}, learned)
    _tell({"kind": loaded.kind, "split": chosen, "rows": len(rows)}, arms, as_json, more)


def _tell(head: dict[str, Any], arms: Arms, as_json: bool, more: More | None = None) -> None:
    """One object, or tables with an arm in each column."""
    more = more or More()
    if as_json:
        print_json({**head, "metrics": plain_arms(arms), **more.to_json()})
        return
    print_arms("metric", arms)
    more.say()


def _approve(base: Base, chain: Chain) -> None:
    """The chain acts; what speaks against it all the same is told."""
    from detour.cli.conversation import tell_doubts
    from detour.model.acting import check_acts

    check_acts(base, chain)
    tell_doubts(base, chain)


def _part(loaded: Loaded, split: str | None) -> tuple[str, tuple[Any, ...]]:
    """The rows that judge."""
    there = loaded.parts
    chosen = split or next(name for name in ("test", "validation", "train") if name in there)
    if chosen not in there:
        raise DataError(
            text("the data have no part {name}", name=chosen), expected=", ".join(there)
        )
    return chosen, there[chosen]


def _heads(
    others: tuple[Any, ...] | None,
    rows: list[Any],
    base_name: str,
    chain: Chain,
    device: str | None,
    dtype: str | None,
) -> Arms:
    """The plainest guess, known from other rows where there are any, and the chain's head."""
    from detour.evaluate.heads import plainest, score
    from detour.model.headed import HeadedBase
    from detour.training.heads import headed_rows

    base = HeadedBase.for_adapter(sole_head(chain), base_name, dtype=dtype, device=device)
    judged = headed_rows(rows, base)
    found = {"chain": score(base, judged, chain)}
    if others is None:
        note(text("no plainest guess: it would be taken from the very rows that judge; give a "
                  "folder with train and test"))  # fmt: skip
        return found
    return {"plainest": plainest(headed_rows(others, base), judged), **found}


def _answers(
    rows: list[Any],
    base: Base,
    chain: Chain,
    max_tokens: int | None,
    answers_file: Path | None,
) -> dict[str, Answered]:
    """The base, and the base under the chain."""
    import json

    from detour.evaluate.answers import answered
    from detour.files import write_text_atomically

    wanted = {"base": None, **({"chain": chain} if chain.terms else {})}
    found = {
        arm: answered(base, rows, own, max_new_tokens=max_tokens, teller=partial(_note_of, arm))
        for arm, own in wanted.items()
    }
    if answers_file is not None:
        asked = [row for row in rows if hasattr(row, "messages")]
        lines = [
            {
                "prompt": row.prompt,
                "wanted": row.messages[-1]["content"],
                **{arm: one.answers[place] for arm, one in found.items()},
            }
            for place, row in enumerate(asked)
        ]
        told = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text_atomically(answers_file, told)
    return found


def _note_of(arm: str, told: str) -> None:
    note(f"{arm}: {told}")


def _languages(rows: list[Any], found: dict[str, Answered]) -> dict[str, Arms]:
    """The figures of each language apart, by arm."""
    from detour.evaluate.answers import by_language

    languages: dict[str, Arms] = {}
    for arm, one in found.items():
        for language, figures in by_language(rows, one.answers).items():
            languages.setdefault(language, {})[arm] = figures
    return languages
