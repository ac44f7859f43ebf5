"""`detour bench`: real steps, real figures, and nothing left behind."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detour.data.reading import read_data
from detour.model.base import Base
from detour.training.config import make_config
from detour.training.cost import counted, flops
from detour.training.estimate import machine
from detour.training.estimate.bench import WARM_UP, bench
from detour.training.loop import train_with


@pytest.fixture(autouse=True)
def small_products(monkeypatch):
    monkeypatch.setitem(machine.SIDES, "cpu", 64)


@pytest.fixture
def here(shelf) -> Path:
    return shelf.parent.parent / "here"


@pytest.fixture
def chats(here) -> Path:
    path = here / "rows.jsonl"
    made = [{"prompt": f"Who was {n}?", "completion": "A baker." * (n % 5 + 1)} for n in range(40)]
    path.write_text("".join(json.dumps(row) + "\n" for row in made))
    return path


@pytest.fixture
def texts(here) -> Path:
    path = here / "texts.txt"
    path.write_text("\n\n".join(f"{n} the ship of the hill. " * 5 for n in range(12)))
    return path


@pytest.mark.parametrize("kind", ["chats", "texts"])
def test_the_object(kind, detour, here, tiny_folder, request):
    data = request.getfixturevalue(kind)
    before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
    told = detour("bench", "--base", tiny_folder, "--data", data, "--steps", 3, "--rank", 2,
                  "--price-per-hour", 2, "--watts", 36, "--json")  # fmt: skip
    assert told.code == 0, told.err
    found = told.json
    assert found["steps"] == 3
    assert found["tokens_per_second"] > 0
    assert found["share_of_peak"] > 0
    assert found["gemm_peak_flops"] > 0
    assert found["estimate_seconds"] > 0
    assert found["energy_kwh"] == pytest.approx(36 * found["estimate_seconds"] / 3.6e6, rel=0.01)
    assert found["price"] == pytest.approx(2 * found["estimate_seconds"] / 3600, rel=0.01)
    assert found["energy_source"] == "stated"
    assert set(found["machine"]) == {"device", "name", "threads", "dtype"}
    assert found["machine"]["dtype"] == "float32"
    if sys.platform == "linux":
        assert found["peak_memory_bytes"] >= 0  # so small a training fits into what was freed
    assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before


def test_for_people(detour, chats, tiny_folder):
    told = detour("bench", "--base", tiny_folder, "--data", chats, "--steps", 1, "--lang", "de")
    assert told.code == 0
    assert "Token/s" in told.out


def test_the_base_is_as_it_was_and_can_train(chats, tiny_folder):
    base = Base.load(str(tiny_folder))
    before = base.sha256()
    config = make_config({"rank": 2, "batch_size": 4, "learning_rate": 5e-3})
    seen: list[tuple[int, int]] = []
    found = bench(base, read_data(chats), config, 3, watcher=lambda *told: seen.append(told))
    assert base.sha256() == before
    assert base.slots.landed == 0
    assert seen == [(step, WARM_UP + 3) for step in range(1, WARM_UP + 4)]
    with counted(base) as work:
        whole = train_with(base, read_data(chats), config.model_copy(update={"patience": 0}))
    assert whole.plan.steps == found.plan.steps
    assert found.flops == pytest.approx(flops(base, whole.adapter, work), rel=0.1)


def same_error(detour: Callable[..., Any], data: Path, *given: object) -> str:
    """What both commands say of it."""
    of_train = detour("train", data, "-o", "out", *given, "--json")
    of_bench = detour("bench", "--data", data, *given, "--json")
    assert of_train.code == of_bench.code == 2
    assert of_train.json == of_bench.json
    return of_bench.json["error"]


@pytest.mark.parametrize(
    "spoilt",
    ["missing", "empty", "no json", "no answer", "too long", "leak"],
)
def test_bad_rows_get_the_errors_of_a_training(spoilt, detour, here, tiny_folder):
    path = here / "bad.jsonl"
    good = json.dumps({"prompt": "Who?", "completion": "Ada."}) + "\n"
    if spoilt != "missing":
        path.write_text({
            "empty": "", "no json": good + "{", "no answer": good + '{"prompt": "x"}\n',
            "too long": json.dumps({"prompt": "Who?", "completion": "Ada. " * 500}) + "\n",
            "leak": "",
        }[spoilt])  # fmt: skip
    if spoilt == "leak":
        path = here / "parts"
        path.mkdir()
        for name in ("train", "valid"):
            (path / f"{name}.jsonl").write_text(good)
    same_error(detour, path, "--base", tiny_folder)


@pytest.mark.parametrize(
    ("given", "told"),
    [(("--rank", 0), "rank"), (("--base", "nowhere"), "nowhere"), (("--targets", "x"), "x")],
)
def test_bad_settings_get_them_too(given, told, detour, chats, tiny_folder):
    base = () if "--base" in given else ("--base", tiny_folder)
    assert told in same_error(detour, chats, *base, *given)
