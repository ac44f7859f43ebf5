"""How much energy a run takes: measured where the machine tells, else watts times seconds.

Two meters are read: RAPL, which counts what the processor's packages take (whatever runs on them),
and nvidia-smi, which tells what the GPU takes now. Where neither can be read and nobody states the
watts, they are assumed, and the figure says so. Knows files and one program; knows no training.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import torch

Source = Literal["stated", "rapl", "nvidia-smi", "assumed"]
ASSUMED_WATTS = {"cpu": 65.0, "cuda": 300.0}  # a desktop processor's rating; a large GPU's, busy
POWERCAP = Path("/sys/class/powercap")
BETWEEN = 10.0  # seconds between two questions to nvidia-smi, each of which takes 30 ms or more
PATIENCE = 5.0  # seconds for an answer of nvidia-smi


@dataclass(frozen=True)
class Energy:
    """What was taken, and how it is known.

    Attributes:
        watt_hours: all of it.
        watts: the mean.
        source: "stated" and "assumed" are watts times seconds; the others are measured.
    """

    watt_hours: float
    watts: float
    source: Source


class EnergyMeter(Protocol):
    """Reads what is taken while something runs. `sample` is called now and then."""

    def sample(self) -> None:
        """Look at the machine."""
        ...

    def energy(self, seconds: float) -> Energy:
        """What the run took; it lasted so many seconds."""
        ...


def meter_for(device: torch.device, watts: float | None = None) -> EnergyMeter:
    """The best meter for what runs on this device.

    The watts that are stated, else a meter that measures, else an assumption.
    """
    if watts is not None:
        return Rated(watts, "stated")
    if device.type == "cuda" and (meter := NvidiaSmi.of(device)):
        return meter
    if device.type == "cpu" and (packages := readable_packages(POWERCAP)):
        return Rapl(packages)
    return Rated(ASSUMED_WATTS["cpu" if device.type == "cpu" else "cuda"], "assumed")


@dataclass(frozen=True)
class Rated:
    """Watts that are told, not measured."""

    watts: float
    source: Source

    def sample(self) -> None:
        """Nothing to look at."""

    def energy(self, seconds: float) -> Energy:
        """Watts times seconds."""
        return Energy(self.watts * seconds / 3600, self.watts, self.source)


def readable_packages(powercap: Path) -> list[Path]:
    """The folders of the processor's packages whose counters may be read; parts are left out."""
    found = sorted(path for path in powercap.glob("*-rapl:*") if path.name.count(":") == 1)
    return [path for path in found if _microjoules(path) is not None]


class Rapl:
    """The counters of the processor's packages, in microjoules; they begin again at their end."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._ends = [_number(path / "max_energy_range_uj") or 0 for path in packages]
        self._last = [_microjoules(path) or 0 for path in packages]
        self.joules = 0.0

    def sample(self) -> None:
        """Add what was taken since the last look."""
        for place, path in enumerate(self._packages):
            now = _microjoules(path)
            if now is None:
                continue
            taken = now - self._last[place]
            self.joules += (taken if taken >= 0 else taken + self._ends[place]) / 1e6
            self._last[place] = now

    def energy(self, seconds: float) -> Energy:
        """What the counters counted."""
        self.sample()
        return Energy(self.joules / 3600, self.joules / max(seconds, 1e-9), "rapl")


class NvidiaSmi:
    """What one GPU takes, asked every few seconds; between two answers their mean is taken."""

    def __init__(
        self, ask: Callable[[], float | None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ask = ask
        self._clock = clock
        self._at = clock()
        self._watts = ask() or 0.0
        self.joules = 0.0

    @staticmethod
    def of(device: torch.device) -> NvidiaSmi | None:
        """The meter of that GPU; None where nvidia-smi does not tell its power."""
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        return None if asked_watts(name) is None else NvidiaSmi(lambda: asked_watts(name))

    def sample(self) -> None:
        """Ask, if it was long ago."""
        if self._clock() - self._at >= BETWEEN:
            self._take()

    def energy(self, seconds: float) -> Energy:
        """The mean of two answers times the seconds between them, added up."""
        self._take()
        return Energy(self.joules / 3600, self.joules / max(seconds, 1e-9), "nvidia-smi")

    def _take(self) -> None:
        now, watts = self._clock(), self._ask()
        watts = self._watts if watts is None else watts
        self.joules += (now - self._at) * (watts + self._watts) / 2
        self._at, self._watts = now, watts


def asked_watts(gpu: str) -> float | None:
    """What nvidia-smi says that this GPU takes now; None where it cannot say."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    asked = [program, f"--id={gpu}", "--query-gpu=power.draw", "--format=csv,noheader,nounits"]
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        told = subprocess.run(asked, capture_output=True, text=True, timeout=PATIENCE, check=True)
        return float(told.stdout)
    return None


def _microjoules(package: Path) -> int | None:
    return _number(package / "energy_uj")


def _number(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None
