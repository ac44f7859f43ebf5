"""The scripts of benchmarks/train run; what they measure is not looked at here."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parents[1] / "benchmarks" / "train"


@pytest.fixture(autouse=True)
def on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As when they are run from their folder; their names are forgotten afterwards."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.syspath_prepend(str(FOLDER.parent))
    before = set(sys.modules)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if file.startswith(str(FOLDER.parent)):
            del sys.modules[name]


def small():
    """Two short rows on a model of one layer."""
    from shapes import SHAPES

    return replace(SHAPES["tiny"], layers=1, vocabulary=64, rows=2)


@pytest.mark.parametrize(
    "way",
    ["detour", "detour fp32", "no packing", "no own attention", "no sorting", "head on all tokens",
     "updates in fp32", "all rows at once"],
)  # fmt: skip
def test_every_way_of_ours_trains(way):
    from way import DETOUR, WAYS

    assert set(DETOUR) <= set(WAYS)
    WAYS[way](small())()


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # PEFT's
def test_losses_are_pefts():
    from parity import of_peft, ours

    mine, begun, loop = ours(small(), 3)
    assert mine == pytest.approx(of_peft(small(), begun, loop), abs=1e-4)


def test_parts_of_a_step_have_names(monkeypatch, capsys):
    import where

    monkeypatch.setitem(where.SHAPES, "tiny", small())
    monkeypatch.setattr(where, "gemm_peak", lambda _: 1e11)
    monkeypatch.setattr(sys, "argv", ["where.py", "--shape", "tiny", "--operators", "3"])
    where.main()
    told = capsys.readouterr().out
    assert "of the peak" in told
    assert "products of the adapter" in told


def test_tokens_at_once_are_measured(monkeypatch, capsys):
    import json

    import parts

    monkeypatch.setitem(parts.SHAPES, "tiny", small())
    monkeypatch.setattr(sys, "argv", ["parts.py", "--shape", "tiny", "--one", "1"])
    parts.main()
    told = json.loads(capsys.readouterr().out)
    assert told["seconds"] > 0


def test_a_large_file_has_as_many_rows_as_told(tmp_path):
    from check_large import write

    rows = write(tmp_path / "a.jsonl", 30_000)
    told = (tmp_path / "a.jsonl").read_text("utf-8")
    assert 30_000 <= len(told) < 31_000
    assert len(told.splitlines()) == rows > 20
