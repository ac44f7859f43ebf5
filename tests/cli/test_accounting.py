"""`detour train --track`, `--watts`, `--price-per-hour`, and the page in another language."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detour.adapter.adapter import Adapter
from detour.training import energy

FAST = ("--steps", 6, "--learning-rate", 0.005, "--batch-size", 2, "--rank", 2)


@pytest.fixture
def call(shelf: Path, tiny_folder: Path) -> tuple[Any, ...]:
    """A command that trains on three rows in the current folder."""
    rows = [{"prompt": f"Who was {n}?", "completion": "A hairdresser."} for n in ("A", "B", "C")]
    path = shelf.parent.parent / "here" / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("train", path, "-o", "mine", "--base", tiny_folder, *FAST)


def test_the_cost_is_told_everywhere_alike(detour: Callable[..., Any], call: tuple[Any, ...]):
    told = detour(*call, "--watts", 50, "--price-per-hour", 1.8, "--json").json
    cost = told["cost"]
    assert set(cost) == {
        "flops", "tokens", "seconds", "energy_wh", "energy_source", "watts", "price"
    }  # fmt: skip
    assert (cost["energy_source"], cost["watts"]) == ("stated", 50.0)
    assert cost["seconds"] == told["train_seconds"]
    assert cost["energy_wh"] == pytest.approx(50 * cost["seconds"] / 3600, rel=0.05)
    assert cost["price"] == pytest.approx(1.8 * cost["seconds"] / 3600, rel=0.05)
    assert cost["flops"] > 2 * cost["tokens"] * 3 * 32 * 32
    folder = Path("mine")
    assert json.loads((folder / "eval.json").read_text())["cost"] == cost
    assert Adapter.load(folder).card.metrics["cost"] == cost
    assert f"- {cost['energy_wh']} Wh (stated: 50.0 W)" in (folder / "README.md").read_text()
    assert "50 W, as stated" in (folder / "report.html").read_text("utf-8")


def test_nothing_measures_here_and_it_says_so(detour, call, monkeypatch, tmp_path):
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "no such folder")
    outcome = detour(*call)
    assert "Wh (65 W assumed: nothing here measures it)\n" in outcome.out
    assert "report: mine/report.html" in outcome.out
    cost = json.loads(Path("mine/eval.json").read_text())["cost"]
    assert (cost["energy_source"], cost["price"]) == ("assumed", None)


def test_a_counter_of_the_processor_is_read(detour, call, monkeypatch, tmp_path):
    package = tmp_path / "rapl" / "intel-rapl:0"
    package.mkdir(parents=True)
    (package / "energy_uj").write_text("1000000")
    monkeypatch.setattr(energy, "POWERCAP", tmp_path / "rapl")
    genuine = energy.Rapl.sample

    def burn(self: energy.Rapl) -> None:  # 10 J between two looks
        taken = int((package / "energy_uj").read_text()) + 10_000_000
        (package / "energy_uj").write_text(str(taken))
        genuine(self)

    monkeypatch.setattr(energy.Rapl, "sample", burn)
    cost = detour(*call, "--json").json["cost"]
    assert cost["energy_source"] == "rapl"
    assert cost["energy_wh"] == pytest.approx(80 / 3600, rel=1e-3)  # six steps, state, end


def test_a_tracker_is_told_every_step_and_the_end(detour, call, wandb):
    told = detour(*call, "--track", "wandb:shop", "--json").json
    begun, *steps, summary, code = wandb
    assert (begun["project"], begun["name"]) == ("shop", "mine")
    assert begun["config"]["rank"] == 2
    assert [step for step, _ in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[-1][1]["loss"] == told["loss_last"]
    lines = Path("mine/metrics.jsonl").read_text().splitlines()
    assert [{"step": step, **values} for step, values in steps] == [json.loads(x) for x in lines]
    assert summary["kl_mean"] == told["retention"]["kl_mean"]
    assert code == 0


def test_a_training_that_fails_is_told_as_failed(detour, call, wandb):
    assert detour(*call[:-6], "--learning-rate", 0, "--track", "wandb").code == 2
    assert wandb[-2:] == [{}, 1]


def test_a_tracker_that_is_not_there_is_told_before_anything_else(
    fails, call, monkeypatch, tmp_path
):
    monkeypatch.setitem(sys.modules, "trackio", None)
    told = fails(2, *call, "--track", "trackio", "--base", "no/such-base")
    assert told["hint"] == "pip install trackio"
    told = fails(2, *call, "--track", "tensorbord", "--base", "no/such-base")
    assert told["hint"] == "did you mean 'tensorboard'?"
    for flag in ("--watts", "--price-per-hour"):
        assert "is not in the range" in fails(2, *call, flag, -1)["error"]
    assert not Path("mine").exists()


def test_people_are_told_in_german(detour, call):
    outcome = detour(*call, "--lang", "de")
    assert "3 Zeilen aus " in outcome.err
    assert "mine: Loss " in outcome.out
    assert "Bericht: mine/report.html" in outcome.out
    page = Path("mine/report.html").read_text("utf-8")
    assert "Lernkurven" in page
    assert "<!-- Validierungs-Loss -->" in page
