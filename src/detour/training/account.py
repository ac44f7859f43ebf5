"""The account of a run: what it cost, and which tracker is told of it.

Joins counting, metering and tracking around a training, without the training knowing. Knows bases
and watchers; knows no options.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from detour.team import ALONE, Team
from detour.training.cost import AnyBase, Cost, Work, counted, flops
from detour.training.descend import Progress, Watcher
from detour.training.energy import Energy, EnergyMeter, Source, meter_for
from detour.training.history import History
from detour.training.loop import Result
from detour.training.trackers.tracker import Tracked, Wanted
from detour.training.whole import Whole


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
        model: PreTrainedModel | None = None,
        team: Team = ALONE,
    ) -> Generator[Account]:
        """An account that is open for as long as the context lasts.

        `model` is the copy of the base's that learns, where it is not the base itself.

        Raises:
            ConfigError: the tracker cannot begin.
        """
        begun = self.tracker.begun(run, settings) if self.tracker else None
        told = Tracked(begun, teller) if begun else None
        try:
            with counted(base, model) as work:
                meter = meter_for(base.device, self.watts)
                account = Account(base, work, meter, self.price_per_hour, told, team=team)
                yield account
        except BaseException:
            if told:
                told.end({}, failed=True)
            raise
        if told:
            told.end(account.summary, failed=False)


def shared(work: Work, team: Team, device: torch.device) -> Work:
    """The work of all processes of a team, each of which calls this."""
    return Work(**{n: type(count)(team.total(count, device)) for n, count in vars(work).items()})


@dataclass(frozen=True)
class Spent:
    """What the earlier stretches of a resumed run took."""

    seconds: float = 0.0
    watt_hours: float = 0.0
    source: Source | None = None

    def plus(self, now: Energy, seconds: float) -> Energy:
        """With this stretch's; `seconds` are of all. An assumption in it makes all of it one."""
        hours = self.watt_hours + now.watt_hours
        source = self.source if self.source == "assumed" else now.source
        if self.source is None:
            return now
        return Energy(hours, hours * 3600 / max(seconds, 1e-9), source)


@dataclass
class Account:
    """What is known of a run while it goes on; of a resumed one, of all its stretches.

    Attributes:
        summary: numbers of the whole run, for the tracker.
        history: every step that `onward` heard of.
        earlier: what the stretches before this one took.
        team: the processes that train together; the account is of all of them.
        before: what went through the base of all of them in those stretches, where it is taken that
            all did as much.
    """

    base: AnyBase
    work: Work
    meter: EnergyMeter
    price_per_hour: float | None = None
    tracked: Tracked | None = None
    summary: Mapping[str, float] = field(default_factory=dict[str, float])
    history: History = field(default_factory=History)
    earlier: Spent = field(default_factory=Spent)
    team: Team = ALONE
    before: Work = field(default_factory=Work)

    def onward(self, watcher: Watcher | None = None) -> Watcher:
        """A watcher that keeps every step, looks at the meter, tells the tracker and hands on."""

        def watch(progress: Progress) -> None:
            self.meter.sample()
            self.history(progress)
            if self.tracked:
                self.tracked.log(progress)
            if watcher:
                watcher(progress)

        return watch

    def kept(self, seconds: float) -> Mapping[str, Any]:
        """What lies in the state of a run that has taken so many seconds: see `Ledger`."""
        energy = self._energy(seconds)
        return {
            "work": asdict(self.before.plus(self.work, self.team.size)),
            "seconds": seconds,
            "watt_hours": energy.watt_hours,
            "source": energy.source,
            "steps": self.history.kept(),
        }

    def go_on(self, kept: Mapping[str, Any]) -> None:
        """Begin with what `kept` gave."""
        self.before = Work(**kept["work"])
        self.earlier = Spent(kept["seconds"], kept["watt_hours"], kept["source"])
        self.history.go_on(kept["steps"])

    def cost(self, result: Result | Whole) -> Cost:
        """What was spent until now; call it once, when the training is over, and `shared` in every
        other process of the team.
        """
        hours = result.seconds / 3600
        price = None if self.price_per_hour is None else self.price_per_hour * hours
        adapter = result.adapter if isinstance(result, Result) else None
        work = self.before.plus(shared(self.work, self.team, self.base.device))
        done = flops(self.base, adapter, work)
        return Cost(done, work.own, result.seconds, self._energy(result.seconds), price)

    def _energy(self, seconds: float) -> Energy:
        now = self.meter.energy(seconds - self.earlier.seconds)
        return self.earlier.plus(now, seconds)
