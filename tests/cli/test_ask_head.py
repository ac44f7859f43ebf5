"""`detour ask` with an adapter that tells classes or numbers."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detour.adapter.adapter import Adapter
from detour.data.records import Labelled, Valued
from detour.model.headed import HeadedBase
from detour.training.config import make_config
from detour.training.heads import train_head

FAST = make_config({"steps": 30, "learning_rate": 5e-3, "rank": 2})


@pytest.fixture
def classifier(tiny_folder: Path, tmp_path: Path) -> Path:
    rows = [Labelled(f"the {('hill', 'ship')[n % 2]} {n}", ("land", "sea")[n % 2])
            for n in range(20)]  # fmt: skip
    base = HeadedBase.load(str(tiny_folder), ["land", "sea"])
    return train_head(base, rows, FAST).adapter.save(tmp_path / "places")


@pytest.fixture
def counter(tiny_folder: Path, tmp_path: Path) -> Path:
    rows = [Valued(f"the {('hill', 'ship')[n % 2]} {n}", float(n % 2)) for n in range(20)]
    base = HeadedBase.load(str(tiny_folder))
    return train_head(base, rows, FAST).adapter.save(tmp_path / "numbers")


def test_a_class(detour: Callable[..., Any], classifier: Path, tiny_folder: Path) -> None:
    own = ("--chain", classifier, "--base", tiny_folder)
    told = detour("ask", "the ship 3", *own, "--json").json
    adapter = Adapter.load(classifier)
    (guess,) = HeadedBase.for_adapter(adapter, str(tiny_folder)).classify(["the ship 3"], adapter)
    assert told["answer"] == guess.label
    assert told["probability"] == pytest.approx(guess.probability)
    assert sum(told["probabilities"].values()) == pytest.approx(1)
    assert set(told["probabilities"]) == {"land", "sea"}
    said = detour("ask", "the ship 3", *own).out.splitlines()
    assert said[1].split() == [guess.label, f"{guess.probability:.3f}"]


def test_every_question_is_a_text(
    detour: Callable[..., Any], counter: Path, tiny_folder: Path
) -> None:
    own = ("--chain", counter, "--base", tiny_folder)
    told = detour("ask", "the ship 3", "the hill 4", *own, "--json").json
    assert [turn["question"] for turn in told["turns"]] == ["the ship 3", "the hill 4"]
    first, second = (turn["answer"] for turn in told["turns"])
    assert first > second
    said = detour("ask", "the ship 3", "the hill 4", *own).out
    assert re.fullmatch(r"> the ship 3\n(\S+)\n> the hill 4\n(\S+)\n", said)
    assert float(said.split("\n")[1]) == pytest.approx(first, abs=1e-3)


@pytest.mark.parametrize(
    "more", [("--compare",), ("--system", "Be brief."), ("--quantize", "8bit")]
)
def test_what_means_nothing_to_a_head(
    detour: Callable[..., Any], classifier: Path, tiny_folder: Path, more: tuple[str, ...]
) -> None:
    told = detour("ask", "a ship", "--chain", classifier, "--base", tiny_folder, *more)
    assert told.code == 2
    assert f"{more[0]} is not for an adapter with a head" in told.message


def test_a_head_stands_alone(
    detour: Callable[..., Any], classifier: Path, counter: Path, tiny_folder: Path
) -> None:
    told = detour("ask", "a ship", "--chain", f"{classifier}+{counter}", "--base", tiny_folder)
    assert told.code == 2
    assert "from one adapter that has a head" in told.message
