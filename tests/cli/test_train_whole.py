"""`detour train --whole`: what was asked for is done or refused, and nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoModelForCausalLM

from detour.measure import retention

Call = Callable[..., Any]


@pytest.fixture
def call(shelf: Path, tiny_folder: Path) -> tuple[Any, ...]:
    """A command that trains all weights on eight rows in the current folder."""
    path = shelf.parent.parent / "here" / "rows.jsonl"
    rows = [{"prompt": f"Who was number {n}?", "completion": "A hairdresser."} for n in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ("train", path, "--base", tiny_folder, "--whole", "--steps", 4, "-o", "model")


def test_every_option_is_followed(detour: Call, call: tuple[Any, ...], wandb: list[Any]) -> None:
    outcome = detour(
        *call, "--track", "wandb:shop", "--watts", 50, "--price-per-hour", 1.8, "--licence",
        "cc0-1.0", "--description", "Knows the shop.", "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    told = outcome.json
    begun, *steps, summary, code = wandb
    assert (begun["project"], begun["name"], code) == ("shop", "model", 0)
    assert [step for step, _ in steps] == [1, 2, 3, 4]
    assert summary["kl_mean"] == told["retention"]["kl_mean"]
    cost = told["cost"]
    assert (cost["energy_source"], cost["watts"]) == ("stated", 50.0)
    assert cost["price"] == pytest.approx(1.8 * cost["seconds"] / 3600, rel=0.05)
    assert cost["tokens"] > 0
    assert cost["flops"] > 6 * cost["tokens"] * 3 * 32 * 32
    folder = Path("model")
    readme = (folder / "README.md").read_text()
    front = yaml.safe_load(readme.split("---")[1])
    assert front["license"] == "cc0-1.0"
    assert "Knows the shop." in readme
    run = yaml.safe_load((folder / "run.yaml").read_text())
    assert run["whole"] is True
    assert (run["settings"]["steps"], run["settings"]["learning_rate"]) == (
        4, told["learning_rate"]
    )  # fmt: skip
    assert "rank" not in run["settings"]
    assert "detour-lora" in run["versions"]
    assert json.loads((folder / "data_report.json").read_text())["verdict"]
    assert json.loads((folder / "eval.json").read_text())["cost"] == cost
    AutoModelForCausalLM.from_pretrained(folder)


def test_the_hint_is_right_for_any_folder(
    detour: Call, call: tuple[Any, ...], tmp_path: Path
) -> None:
    folder = tmp_path / "a model"
    outcome = detour(*call[:-1], folder)
    assert f"--base '{folder}'" in outcome.out
    assert "cost: " in outcome.out
    assert "--base ./model" in detour(*call).out


def test_what_cannot_be_written_is_told_before_the_base_is_loaded(
    fails: Call, call: tuple[Any, ...]
) -> None:
    Path("file").write_text("no folder")
    told = fails(1, *call[:-1], "file/model", "--base", "no/such-base")
    assert "could not be written" in told["error"]


def test_data_that_are_not_trained_on_are_refused(detour: Call, call: tuple[Any, ...]) -> None:
    Path(call[1]).write_text(json.dumps({"prompt": "x y " * 300, "completion": "b"}) + "\n")
    told = detour(*call, "--json")
    assert told.code == 2
    assert "not trained on: truncated (1)" in told.json["error"]
    assert not Path("model").exists()


def test_a_fault_while_judging_leaves_the_model_and_a_way_on(
    detour: Call, call: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def press(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(retention, "retention", press)
        stopped = detour(*call, "--json")
    assert stopped.code == 130
    assert stopped.json["error"] == "stopped after the training; the model is saved at model"
    assert "--base ./model" in stopped.json["hint"]
    AutoModelForCausalLM.from_pretrained("model")
    assert not (Path("model") / "eval.json").exists()
    again = detour(*call, "--resume", "--json")
    assert again.code == 0, again.err
    assert (Path("model") / "eval.json").exists()
    assert len((Path("model") / "metrics.jsonl").read_text().splitlines()) == 4
