"""`detour estimate`, called as a person calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detour.model.base import Base
from detour.training.estimate import machine

METHODS = ("lora", "qlora", "full")


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    """The processor's peak is measured, but with small products."""
    monkeypatch.setitem(machine.SIDES, "cpu", 64)


@pytest.fixture
def rows(tmp_path) -> Path:
    path = tmp_path / "rows.jsonl"
    made = [{"prompt": f"Who was {n}?", "completion": "A baker." * (n % 5 + 1)} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


def test_the_object(detour, tiny_folder, rows):
    told = detour("estimate", "--base", tiny_folder, "--data", rows, "--gpu", "L40",
                  "--price-per-hour", 2, "--json")  # fmt: skip
    assert told.code == 0, told.err
    found = told.json
    real = Base.load(str(tiny_folder))
    assert found["parameters"] == sum(p.numel() for p in real.model.parameters())
    assert (found["base"], found["gpu"], found["gpus"]) == (str(tiny_folder), "L40", 1)
    assert found["rows"] == 40
    assert found["steps"] == 60
    for method in METHODS:
        one = found[method]
        assert one["fits"] is True
        assert one["micro_batch"] == 8
        assert one["hours"] > 0
        assert one["energy_kwh"] == pytest.approx(one["hours"] * 0.3, rel=0.01)
        assert one["price"] == pytest.approx(one["hours"] * 2, rel=0.01)
        parts = one["memory_bytes"]
        assert parts["total"] == sum(value for name, value in parts.items() if name != "total")
    assert found["assumptions"]
    assert found["advice"] == []


@pytest.mark.parametrize(
    ("rows", "units"),
    [(20, {"seconds", "energy, Wh"}), (3_000_000, {"hours", "energy, kWh"})],
)
def test_times_and_energies_have_a_unit_of_their_size(detour, tiny_folder, rows, units):
    told = detour("estimate", "--base", tiny_folder, "--rows", rows, "--gpu", "L40",
                  "--mfu", 0.0001, "--sequence-length", 128)  # fmt: skip
    assert told.code == 0, told.err
    lines = {name: line for line in told.out.splitlines() for name in units
             if line.startswith(name)}  # fmt: skip
    assert set(lines) == units
    for line in lines.values():
        figures = [float(one.replace(",", "")) for one in line.split()[-3:]]
        assert max(figures) >= 1 or "seconds" in line or "Wh" in line
        assert "e" not in "".join(line.split()[-3:])


def test_no_weights_are_read(detour, tiny_folder, tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_bytes((tiny_folder / "config.json").read_bytes())
    told = detour("estimate", "--base", tmp_path / "bare", "--gpu", "A100", "--json")
    assert told.code == 0
    assert told.json["gpu"] == "A100-40GB"
    assert told.json["dtype"] == "bfloat16"


def test_this_machine(detour, tiny_folder):
    told = detour("estimate", "--base", tiny_folder, "--rows", 20, "--rank", 2, "--json")
    found = told.json
    assert (found["gpu"], found["dtype"], found["mfu"]) == ("cpu", "float32", 0.5)
    assert found["peak_flops"] > 0
    assert found["sequence_length"] == 128  # the base reads no more
    slower = detour("estimate", "--base", tiny_folder, "--rows", 20, "--rank", 2, "--mfu", 0.001,
                    "--watts", 10, "--json").json  # fmt: skip
    assert slower["lora"]["hours"] > found["lora"]["hours"]
    assert slower["watts"] == 10


def test_tokens_rows_and_lengths_follow_from_each_other(detour, tiny_folder):
    def asked(*given: object) -> tuple[int, int, int]:
        found = detour("estimate", "--base", tiny_folder, "--gpu", "L40", *given, "--json").json
        return found["rows"], found["tokens"], found["sequence_length"]

    assert asked("--tokens", 6400, "--sequence-length", 64) == (100, 5760, 64)
    assert asked("--tokens", 6400, "--rows", 200) == (200, 5760, 32)
    assert asked("--rows", 200, "--sequence-length", 100) == (200, 18000, 100)
    assert asked("--tokens", 6400, "--rows", 200, "--sequence-length", 64) == (200, 5760, 64)
    assert asked() == (1000, 900 * 128, 128)


def test_for_people(detour, tiny_folder):
    told = detour("estimate", "--base", tiny_folder, "--gpu", "L40", "--gpus", 2,
                  "--price-per-hour", 1)  # fmt: skip
    assert told.code == 0
    assert "in all, GB" in told.out
    assert "price" in told.out
    assert "NVIDIA L40 data sheet" in told.out
    german = detour("estimate", "--base", tiny_folder, "--gpu", "L40", "--lang", "de")
    assert "zusammen, GB" in german.out


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--gpu", "Voodoo"), "Voodoo"),
        (("--gpus", 2), "--gpus"),
        (("--data", "x.jsonl", "--tokens", 5), "--tokens"),
        (("--data", "nowhere.jsonl"), "nowhere.jsonl"),
        (("--base", "nowhere"), "nowhere"),
        (("--rank", 0), "rank"),
        (("--targets", "no_such"), "no_such"),
        (("--sequence-length", 4096), "4096"),
        (("--tokens", 100, "--rows", 2, "--sequence-length", 5), "so many tokens"),
        (("--steps", 3, "--epochs", 1), "epochs"),
        (("--mfu", 2), "mfu"),
    ],
)
def test_what_makes_no_sense_is_refused(fails, tiny_folder, given, told):
    base = () if "--base" in given else ("--base", tiny_folder)
    assert told in fails(2, "estimate", *base, *given)["error"]
