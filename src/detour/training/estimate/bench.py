"""A few real training steps, timed: how fast this machine learns these rows, and what the whole
training would take.

The steps are those of `train_with`, taken on the base and stopped before anything comes of them.
Knows bases, rows and clocks; writes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from statistics import median
from typing import Any

from detour.data.reading import Loaded
from detour.errors import MachineError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.training.config import Plan, TrainConfig, derive
from detour.training.cost import Work, counted, operations
from detour.training.descend import Progress
from detour.training.energy import Energy, EnergyMeter, meter_for
from detour.training.estimate.machine import gemm_peak
from detour.training.estimate.peak_memory import PeakMemory
from detour.training.estimate.sizes import adapted_layers
from detour.training.estimate.workload import Workload, parts_of
from detour.training.loop import train_with
from detour.training.material import tokenizer_of

WARM_UP = 2  # steps that are not counted: the optimiser's state and caches come to be
JUDGED = 2  # rows of the one validation that comes before the first step


@dataclass(frozen=True)
class Bench:
    """What was measured, and what follows.

    Attributes:
        tokens_per_second: learned from, without padding; the median of the steps.
        flops_per_second: the median of the steps, by the formula of `training.cost`.
        gemm_peak: operations a second of a large product here, in the base's type.
        peak_memory: bytes above the loaded base; None where the system does not tell.
        steps: that were measured.
        step_seconds: the median.
        plan: of the whole training.
        flops: of the whole training, validations among them.
        energy: of the steps.
    """

    tokens_per_second: float
    flops_per_second: float
    gemm_peak: float
    peak_memory: int | None
    steps: int
    step_seconds: float
    plan: Plan
    flops: float
    energy: Energy

    @property
    def share_of_peak(self) -> float:
        """Of the machine's products that the steps reach."""
        return self.flops_per_second / self.gemm_peak

    @property
    def estimate_seconds(self) -> float:
        """Of the whole training, at the speed of these steps."""
        return self.flops / self.flops_per_second

    @property
    def estimate_kwh(self) -> float:
        """Of the whole training, at the watts of these steps."""
        return self.energy.watts * self.estimate_seconds / 3.6e6


def bench(
    base: Base,
    loaded: Loaded,
    config: TrainConfig,
    steps: int = 8,
    watts: float | None = None,
    watcher: Callable[[int, int], None] | None = None,
) -> Bench:
    """Take some steps of that training and stop; base and disk are as before.

    Args:
        base: in whose slots it happens.
        loaded: rows.
        config: settings of the training.
        steps: how many are measured, after a warm-up of two.
        watts: what the machine takes; by default measured or assumed.
        watcher: is told steps done and steps in all.

    Raises:
        As `train_with`, but for what comes after the last step.
    """
    workload = Workload.of_data(loaded, tokenizer_of(base), base.longest, config)
    width = base.model.config.get_text_config().hidden_size
    plan = derive(config, width, workload.learned.count)
    kept, held = parts_of(loaded, config)
    _ = base.head, base.forward  # their checks are part of loading
    last = WARM_UP + steps
    # one more, for the last step of a training is followed by a validation
    changed: dict[str, Any] = {"steps": last + 1, "epochs": None, "validations": 1}
    if not held:  # rows that are learned judge then, by themselves
        changed["validation_share"] = 0.0
    short = config.model_copy(update=changed)
    before = gemm_peak(base.device, base.dtype)
    memory = PeakMemory(base.device)
    with counted(base) as work:
        clock = _Clock(work, last, lambda: meter_for(base.device, watts), watcher)
        with suppress(_Enough):
            train_with(
                base, Loaded({"train": tuple(kept)}, loaded.told, loaded.format), short,
                validation=held[:JUDGED] or None, watcher=clock,
            )  # fmt: skip
    above = memory.above()
    peak = max(before, gemm_peak(base.device, base.dtype))
    adapted = adapted_layers(base, config)
    rates = [operations(base, adapted, done) / seconds for done, seconds in clock.laps]
    return Bench(
        median(done.own / seconds for done, seconds in clock.laps),
        median(rates),
        peak,
        above,
        len(clock.laps),
        median(seconds for _, seconds in clock.laps),
        plan,
        operations(base, adapted, workload.work(plan.steps, config)),
        clock.energy(),
    )


class _Enough(Exception):
    """The steps that were wanted are taken."""


class _Clock:
    """A watcher of a training that keeps what every step after the warm-up did, and how long."""

    def __init__(
        self,
        work: Work,
        last: int,
        meter_of: Callable[[], EnergyMeter],
        watcher: Callable[[int, int], None] | None,
    ) -> None:
        self.laps: list[tuple[Work, float]] = []
        self._work = work
        self._last = last
        self._meter_of = meter_of
        self._meter: EnergyMeter | None = None
        self._watcher = watcher
        self._done = asdict(work)
        self._at = time.perf_counter()

    def __call__(self, progress: Progress) -> None:
        now = time.perf_counter()
        if progress.step > WARM_UP:
            self.laps.append((_since(self._work, self._done), now - self._at))
        if self._watcher:
            self._watcher(progress.step, self._last)
        if self._meter is None and progress.step == WARM_UP:
            self._meter = self._meter_of()
        if self._meter:
            self._meter.sample()
        if progress.step == self._last:
            raise _Enough
        self._done, self._at = asdict(self._work), time.perf_counter()

    def energy(self) -> Energy:
        """Of the steps that were measured."""
        if self._meter is None:
            raise MachineError(text("no step was measured"))
        return self._meter.energy(sum(seconds for _, seconds in self.laps))


def _since(work: Work, before: Mapping[str, int]) -> Work:
    return Work(**{f.name: getattr(work, f.name) - before[f.name] for f in fields(work)})
