"""`detour probe`: how far bases hold a change before anything is trained, and which holds it best.

Knows Click; the probing is `evaluate/latent.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from detour.cli.change import change_of, change_options
from detour.cli.options import (
    device_option,
    dtype_option,
    json_option,
    lang_option,
    load_base,
    quantize_option,
    seed_option,
)
from detour.cli.output import note, print_json, print_table, say
from detour.cli.report import tell_change
from detour.language.catalogue import Catalogue

if TYPE_CHECKING:
    from detour.evaluate.latent import Probe
    from detour.measure.statistics import Figure


@click.command("probe")
@change_options
@click.option("--base", "base_names", metavar="NAME", multiple=True, default=("starter",),
              show_default=True, help="A model; again for others: they are ranked.")  # fmt: skip
@device_option
@dtype_option
@quantize_option
@seed_option
@lang_option
@json_option
def command(
    base_names: tuple[str, ...],
    device: str | None,
    dtype: str | None,
    quantize: str | None,
    seed: int,
    language: str,
    as_json: bool,
    **given: Any,  # noqa: ANN401 - the flags of change_options
) -> None:
    """Ask bases what they hold of a change, before anything is trained; rank them."""
    t = Catalogue.load(language)
    change = change_of(given)
    from detour.evaluate.latent import probe, ranked
    from detour.evaluate.teach import make_lesson
    from detour.training.world import World

    names = list(dict.fromkeys(base_names))
    first = "starter" if "starter" in names else names[0]  # whose phrasings all are asked
    base = load_base(first, device, dtype, quantize)
    lesson = make_lesson(base, **change, seed=seed, world=World.load(language))
    edit = lesson.edits[0]
    tell_change(lesson, t)
    found = [probe(base, edit)]
    for name in names:
        if name != first:
            found.append(probe(load_base(name, device, dtype, quantize), edit))
            note(t("asked: {arm}", arm=name))
    best = ranked(found)
    if as_json:
        print_json({"change": edit.answer, "probes": [one.to_json() for one in best]})
        return
    print_table(
        (t("base"), t("behind examples"), t("nats a character"), t("nats a token"),
         t("rank of the value"), t("tokens of the value"), t("rarest, share below")),
        [_row(one) for one in best],
    )  # fmt: skip
    for one in best:
        if one.warning:
            say(t("{name}: {warning}", name=one.base, warning=t.say(one.warning)))


def _row(one: Probe) -> tuple[str, ...]:
    place = f"{one.place.value:.1f} / {one.candidates}" if one.place.n else "–"
    return (
        one.base, _said(one.few_shot), _said(one.nats_per_character), _said(one.nats_per_token),
        place, str(one.pieces), f"{one.rarest!r} {one.rarest_share:.3f}",
    )  # fmt: skip


def _said(figure: Figure) -> str:
    return f"{figure.value:.2f} [{figure.low:.2f}, {figure.high:.2f}]"
