"""`detour chain stress POOL`: how many adapters a model bears.

Knows Click; the drawing of chains is `evaluate/chain_stress.py`'s.
"""

from __future__ import annotations

from pathlib import Path

import click

from detour.cli.chain_measure import named_files, tests_for
from detour.cli.options import (
    base_option,
    check_absent,
    json_option,
    lang_option,
    load_base,
    parse_chain,
    seed_option,
)
from detour.cli.output import note, print_json, print_table
from detour.errors import ConfigError
from detour.language.catalogue import Catalogue, text


@click.command("stress")
@click.argument("pool")
@click.option(
    "--tests", "given", multiple=True, metavar="NAME=FILE",
    help="Questions for one adapter, instead of those beside it; again for others.",
)  # fmt: skip
@click.option("--counts", default="1,2,3,5,10", show_default=True, metavar="N,N",
              help="Adapters in a chain.")  # fmt: skip
@click.option("--draws", type=click.IntRange(min=1), default=5, show_default=True,
              help="Chains of each size.")  # fmt: skip
@click.option("--rows", type=click.IntRange(min=1), default=10, show_default=True,
              help="Questions of each adapter, at most.")  # fmt: skip
@click.option("--picture", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the curve as a PNG file.")  # fmt: skip
@base_option
@seed_option
@lang_option
@json_option
def command(
    pool: str,
    given: tuple[str, ...],
    counts: str,
    draws: int,
    rows: int,
    picture: Path | None,
    base_name: str,
    seed: int,
    language: str,
    as_json: bool,
) -> None:
    """Draw chains of more and more adapters from POOL, a chain of all of them: what is left of
    each, and how many answers break, in the same layers and in disjoint ones.
    """
    check_absent(picture)
    t = Catalogue.load(language)
    wanted = _counts(counts)
    chain = parse_chain(pool)
    tests = tests_for(chain, named_files("--tests", given, chain), rows)
    base = load_base(base_name)
    from detour.evaluate.chain_stress import stress

    found = stress(
        base, chain, tests, counts=wanted, draws=draws, seed=seed,
        teller=lambda told: note(t.say(told)),
    )  # fmt: skip
    for told in found.left_out:
        note(t("not drawn on: {reason}", reason=t.say(told)))
    if picture:
        from detour.evaluate.stress_plot import curve
        from detour.files import write_bytes_atomically

        write_bytes_atomically(picture, curve(found, t))
    if as_json:
        left_out = [t.say(told) for told in found.left_out]
        print_json({"curve": [one.to_json() for one in found.curve], "left_out": left_out})
        return
    said = {"same": t("the same"), "disjoint": t("disjoint")}
    print_table(
        [t("adapters"), t("layers"), t("chains"), t("retained"), t("broken")],
        [[str(one.count), said[one.layers], str(one.chains), str(one.retained), str(one.broken)]
         for one in found.curve],
    )  # fmt: skip


def _counts(told: str) -> tuple[int, ...]:
    """`1,2,5` as numbers, rising. Raises ConfigError: something else."""
    parts = [part.strip() for part in told.split(",")]
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ConfigError(
            text("--counts holds what is no number of adapters"), expected="1,2,3,5,10", found=told
        )
    return tuple(sorted({int(part) for part in parts}))
