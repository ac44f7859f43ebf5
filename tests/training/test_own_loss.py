"""A loss of the user's own: found, called, checked; and early stopping."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.errors import ConfigError, TrainingError
from detour.model.base import Base
from detour.model.examples import pair
from detour.training import loop
from detour.training.config import make_config
from detour.training.loop import train_with
from detour.training.own_loss import Said, find_objective

ROWS = [pair(f"Who was number {n}?", "A hairdresser.") for n in range(8)]
SOURCE = """
import torch
from torch.nn.functional import cross_entropy

def usual(said):
    return cross_entropy(said.logits, said.targets)

def by_row(said):
    each = cross_entropy(said.logits, said.targets, reduction="none")
    sums = torch.zeros(said.rows).index_add(0, said.row, each)
    counts = torch.zeros(said.rows).index_add(0, said.row, torch.ones_like(each))
    return (sums / counts).mean()

def number(said): return 1.0
def many(said): return said.logits
def cut(said): return cross_entropy(said.logits.detach(), said.targets)
def endless(said): return said.logits.sum() * float("inf")
def broken(said): return said.nothing

THING = 3
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "my_losses.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def base(
    make_model: Callable[..., PreTrainedModel], tiny_tokenizer: PreTrainedTokenizerFast
) -> Base:
    return Base.from_model(make_model("llama"), tiny_tokenizer)


def config(source: Path, name: str, **more: Any) -> Any:
    settings = {"steps": 6, "batch_size": 4, "learning_rate": 5e-3, **more}
    return make_config({**settings, "objective": f"{source}:{name}"})


def test_the_usual_loss_as_an_own_one_trains_the_same_adapter(base: Base, source: Path) -> None:
    own = train_with(base, ROWS, config(source, "usual"))
    usual = train_with(base, ROWS, config(source, "usual").model_copy(update={"objective": None}))
    assert own.first_loss == pytest.approx(usual.first_loss, abs=1e-5)
    assert own.best_loss == pytest.approx(usual.best_loss, abs=1e-4)
    by_row = train_with(base, ROWS, config(source, "by_row"))
    assert by_row.best_loss < by_row.first_loss


def test_modules_of_the_current_folder_are_found(
    base: Base, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source.parent)
    found = find_objective("my_losses:usual")
    assert found.digest == find_objective(f"{source}:usual").digest


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ("number", "gives no loss"),
        ("many", "gives no loss"),
        ("cut", "nothing can be learned from"),
        ("endless", "no finite loss"),
        ("broken", "failed"),
    ],
)
def test_a_loss_that_is_none(base: Base, source: Path, told: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        train_with(base, ROWS, config(source, told))


def test_what_is_not_found(source: Path, tmp_path: Path) -> None:
    (tmp_path / "broken_one.py").write_text("import nothing_of_that_name")
    for told, said in (
        ("usual", "names no function"),
        (f"{source}:", "names no function"),
        (f"{source}:other", "has no function other"),
        (f"{source}:THING", "has no function THING"),
        (f"{tmp_path}/none.py:usual", "does not exist"),
        (f"{tmp_path}/broken_one.py:usual", "cannot be imported"),
        ("no_module_of_that_name:usual", "cannot be imported"),
    ):
        with pytest.raises(ConfigError, match=said):
            find_objective(told)


@pytest.mark.parametrize("told", ["math:fsum", "itertools:chain", "torch:logsumexp"])
def test_a_function_without_python_source_fails_as_any_other(base: Base, told: str) -> None:
    found = find_objective(told)
    assert len(found.digest) == 64
    assert found.digest == find_objective(told).digest
    with pytest.raises(ConfigError, match=f"{told} (failed|gives no loss)"):
        train_with(base, ROWS, make_config({"steps": 2, "objective": told}))


def test_a_file_may_use_all_that_a_module_may(tmp_path: Path) -> None:
    """Data classes look for their module by its name; and no name of ours hides another."""
    path = tmp_path / "json.py"
    path.write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n\n\n"
        "@dataclass\nclass Weights:\n    first: float = 2.0\n\n\n"
        "def weighted(said):\n    return said.logits.mean() * Weights().first\n"
    )
    said = Said(torch.ones(2, 3), torch.zeros(2), torch.zeros(2, dtype=torch.long), 1)
    assert float(find_objective(f"{path}:weighted")(said)) == 2.0
    path.write_text(path.read_text().replace("2.0", "30.0"))
    assert float(find_objective(f"{path}:weighted")(said)) == 30.0
    assert sys.modules["json"] is json
    path.write_text("raise RuntimeError('no')")
    before = set(sys.modules)
    with pytest.raises(ConfigError, match="cannot be imported"):
        find_objective(f"{path}:weighted")
    assert set(sys.modules) <= before


def test_a_changed_loss_does_not_go_on_with_the_old_state(
    base: Base, source: Path, tmp_path: Path
) -> None:
    def stop(progress: Any) -> None:
        if progress.step == 3:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train_with(base, ROWS, config(source, "usual"), watcher=stop, checkpoints=state)
    source.write_text(SOURCE + "\nOTHER = 1\n")
    with pytest.raises(TrainingError) as caught:
        train_with(base, ROWS, config(source, "usual"), checkpoints=state, resume=True)
    assert "objective.source" in caught.value.found


def test_training_stops_where_nothing_gets_better(
    base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = [5.0, 6.0, 7.0, 8.0, 4.0, 4.5, 4.4, 9.0, 1.0, 1.0, 1.0]
    settings = {"steps": 20, "batch_size": 4, "validations": 10, "learning_rate": 1e-4}

    def run(**more: Any) -> tuple[int, int, list[str]]:
        rest, told = iter(losses), list[str]()
        monkeypatch.setattr(loop, "mean_loss", lambda *_: next(rest))
        result = train_with(base, ROWS, make_config({**settings, **more}), validation=ROWS[:2],
                            teller=told.append)  # fmt: skip
        return result.steps, result.best_step, told

    steps, best, told = run()  # worse at first does not count; the fifth is the best, then three
    assert (steps, best) == (14, 8)
    assert any("stopped after step 14 of 20" in line for line in told)
    assert run(patience=0)[:2] == (20, 16)
    assert run(patience=2)[:2] == (12, 8)
    assert torch.is_grad_enabled()
