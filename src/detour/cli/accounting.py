"""What a training is asked to account for: its tracker, its watts, its price; what is said of it.

Knows Click and the options' names; counts and measures nothing itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from detour.cli.options import AnyCommand
from detour.cli.output import say
from detour.language.catalogue import Catalogue

if TYPE_CHECKING:
    from detour.measure.retention import Retention
    from detour.training.account import Accounting
    from detour.training.cost import Cost
    from detour.training.outcome import Outcome

_TRACK = click.option(
    "--track", metavar="KIND[:PROJECT]", help="Tell tensorboard, trackio or wandb while it runs."
)
_COSTS = (
    click.option("--watts", type=click.FloatRange(min=0, min_open=True),
                 help="What the machine takes.  [default: measured, else assumed]"),
    click.option("--price-per-hour", type=click.FloatRange(min=0),
                 help="Of the machine, in any currency."),
)  # fmt: skip


def accounting_options(command: AnyCommand) -> AnyCommand:
    """--track, --watts and --price-per-hour."""
    return _TRACK(cost_options(command))


def cost_options(command: AnyCommand) -> AnyCommand:
    """--watts and --price-per-hour."""
    for option in reversed(_COSTS):
        command = option(command)
    return command


ACCOUNTED = ("track", "watts", "price_per_hour")


def accounting_of(flags: dict[str, Any]) -> Accounting:
    """What those options say, taken out of the flags.

    Raises:
        ConfigError: no such tracker. MissingExtra: its package is not installed.
    """
    from detour.training.account import Accounting
    from detour.training.trackers.tracker import Wanted

    track, watts, price = (flags.pop(name) for name in ACCOUNTED)
    return Accounting(Wanted.of(track) if track else None, watts, price)


def say_outcome(outcome: Outcome, folder: object, t: Catalogue) -> None:
    """Loss, step, time and cost, for people."""
    from detour.training.record import PAGE_FILE

    result = outcome.result
    say(
        t(
            "{folder}: loss {first:.3f} to {best:.3f} (step {step} of {steps}, {seconds:.0f} s)",
            folder=folder,
            first=result.first_loss,
            best=result.best_loss,
            step=result.best_step,
            steps=result.plan.steps,
            seconds=result.seconds,
        )
    )
    say_cost(outcome.cost, t)
    say(t("report: {page}", page=f"{folder}/{PAGE_FILE}"))


def say_retention(kept: Retention, t: Catalogue) -> None:
    """What became of neutral text, for people."""
    say(
        t(
            "neutral text: perplexity {before:.2f} to {after:.2f}, KL {kl:.4f} nats a token",
            before=kept.perplexity_before,
            after=kept.perplexity_after,
            kl=kept.kl_mean,
        )
    )
    if kept.remark:
        say(t.say(kept.remark))


def say_cost(cost: Cost, t: Catalogue) -> None:
    """Operations, energy and price, for people."""
    from detour.training.run_page import energy_source

    price = "" if cost.price is None else t("; price {price:.3g}", price=cost.price)
    say(
        t(
            "cost: {operations}, {energy:.3g} Wh ({source}){price}",
            operations=cost.operations,
            energy=cost.energy.watt_hours,
            source=energy_source(cost, t),
            price=price,
        )
    )
