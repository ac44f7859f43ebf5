"""Energy: read from counters where there are some, else watts times seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detour.training import energy
from detour.training.energy import (
    ASSUMED_WATTS,
    BETWEEN,
    Energy,
    NvidiaSmi,
    Rapl,
    Rated,
    asked_watts,
    meter_for,
    readable_packages,
)

CPU = torch.device("cpu")


def package(powercap: Path, name: str, microjoules: object, end: int = 1_000_000_000) -> Path:
    folder = powercap / name
    folder.mkdir(parents=True)
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    (folder / "max_energy_range_uj").write_text(f"{end}\n")
    return folder


def test_packages_are_counted_and_their_parts_are_not(tmp_path):
    one = package(tmp_path, "intel-rapl:0", 5_000_000)
    two = package(tmp_path, "intel-rapl:1", 7_000_000)
    package(tmp_path, "intel-rapl:0:0", 1)
    package(tmp_path, "intel-rapl:2", "not a number")
    (tmp_path / "intel-rapl").mkdir()
    assert readable_packages(tmp_path) == [one, two]
    assert readable_packages(tmp_path / "none") == []


def test_counters_are_added_up_and_may_begin_again(tmp_path):
    one = package(tmp_path, "intel-rapl:0", 900_000_000)
    meter = Rapl([one])
    (one / "energy_uj").write_text("950000000")
    meter.sample()
    assert meter.joules == pytest.approx(50)
    (one / "energy_uj").write_text("150000000")  # over the end of 1,000 J
    meter.sample()
    assert meter.joules == pytest.approx(250)
    (one / "energy_uj").unlink()  # nobody may read it any more
    found = meter.energy(10.0)
    assert (found.source, found.watts) == ("rapl", pytest.approx(25.0))
    assert found.watt_hours == pytest.approx(250 / 3600)


def test_watts_that_are_told_are_watts_times_seconds():
    assert Rated(120.0, "stated").energy(1800.0) == Energy(60.0, 120.0, "stated")


def test_a_gpu_is_asked_now_and_then_and_the_mean_is_taken():
    now, answers, asked = [0.0], iter([100.0, 300.0, None, 200.0]), []

    def ask() -> float | None:
        asked.append(now[0])
        return next(answers)

    meter = NvidiaSmi(ask, lambda: now[0])
    now[0] = BETWEEN - 1
    meter.sample()
    assert asked == [0.0]
    now[0] = BETWEEN
    meter.sample()
    assert meter.joules == pytest.approx(BETWEEN * 200)
    now[0] = 2 * BETWEEN  # an answer that fails leaves the last one
    meter.sample()
    assert meter.joules == pytest.approx(BETWEEN * 500)
    now[0] = 2 * BETWEEN + 1
    found = meter.energy(21.0)
    assert found.source == "nvidia-smi"
    assert found.watt_hours == pytest.approx((BETWEEN * 500 + 250) / 3600)


@pytest.mark.parametrize(
    ("script", "watts"),
    [
        ('echo " 71.35"', 71.35),
        ('echo "[N/A]"', None),
        ("exit 9", None),
        ('[ "$1" = "--id=GPU-x" ] && [ "$2" = "--query-gpu=power.draw" ] && echo 5', 5.0),
    ],
)
def test_nvidia_smi_is_asked(tmp_path, monkeypatch, script, watts):
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert asked_watts("GPU-x") == watts


def test_what_is_stated_wins_then_what_is_measured_then_an_assumption(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "rapl")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asked_watts("GPU-x") is None  # no such program
    assert meter_for(CPU) == Rated(ASSUMED_WATTS["cpu"], "assumed")
    package(tmp_path / "rapl", "intel-rapl:0", 1)
    assert isinstance(meter_for(CPU), Rapl)
    assert meter_for(CPU, 30.0) == Rated(30.0, "stated")
