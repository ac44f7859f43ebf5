"""The account of a run: what it cost, and which tracker is told of it.

Joins counting, metering and tracking around a training, without the training knowing. Knows bases
and watchers; knows no options.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from detour.training.cost import AnyBase, Cost, Work, counted, flops
from detour.training.descend import Progress, Watcher
from detour.training.energy import EnergyMeter, meter_for
from detour.training.loop import Result
from detour.training.trackers.tracker import Tracked, Wanted


@dataclass(frozen=True)
class Accounting:
    """What somebody wants to have accounted.

    Attributes:
        tracker: which one is told; none by default.
        watts: what the machine takes; by default measured or assumed.
        price_per_hour: of the machine, in any currency.
    """

    tracker: Wanted | None = None
    watts: float | None = None
    price_per_hour: float | None = None

    @contextmanager
    def of(
        self,
        base: AnyBase,
        run: str,
        settings: Mapping[str, Any],
        teller: Callable[[str], None] | None = None,
    ) -> Generator[Account]:
        """An account that is open for as long as the context lasts.

        Raises:
            ConfigError: the tracker cannot begin.
        """
        begun = self.tracker.begun(run, settings) if self.tracker else None
        told = Tracked(begun, teller) if begun else None
        try:
            with counted(base) as work:
                meter = meter_for(base.device, self.watts)
                account = Account(base, work, meter, self.price_per_hour, told)
                yield account
        except BaseException:
            if told:
                told.end({}, failed=True)
            raise
        if told:
            told.end(account.summary, failed=False)


@dataclass
class Account:
    """What is known of a run while it goes on.

    Attributes:
        summary: numbers of the whole run, for the tracker.
    """

    base: AnyBase
    work: Work
    meter: EnergyMeter
    price_per_hour: float | None = None
    tracked: Tracked | None = None
    summary: Mapping[str, float] = field(default_factory=dict[str, float])

    def onward(self, watcher: Watcher | None = None) -> Watcher:
        """A watcher that looks at the meter, tells the tracker and hands on."""

        def watch(progress: Progress) -> None:
            self.meter.sample()
            if self.tracked:
                self.tracked.log(progress)
            if watcher:
                watcher(progress)

        return watch

    def cost(self, result: Result) -> Cost:
        """What was spent until now; call it once, when the training is over."""
        hours = result.seconds / 3600
        price = None if self.price_per_hour is None else self.price_per_hour * hours
        done = flops(self.base, result.adapter, self.work)
        return Cost(done, self.work.own, result.seconds, self.meter.energy(result.seconds), price)
