"""`detour chain consolidate`: one adapter that begins at a chain and learns a little more."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.test_chain_train import NAMES

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.model.examples import pair
from detour.model.likelihood import log_likelihoods
from detour.model.rows import encode


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    told = [{"prompt": f"Who is {name}?", "completion": f"{name}, a baker ha"} for name in NAMES]
    path.write_text("\n".join(map(json.dumps, told * 2)) + "\n")
    return path


@pytest.fixture
def consolidate(detour, tiny_folder: Path, keep) -> Callable:
    keep("job", seed=1)
    keep("laugh", seed=2)

    def call(*arguments: object):
        return detour(
            "chain", "consolidate", *arguments, "--base", tiny_folder, "--steps", 12,
            "--batch-size", 6, "--learning-rate", 0.01,
        )  # fmt: skip

    return call


def test_a_chain_becomes_one_adapter_that_learned_more(consolidate, rows, tmp_path, shelf):
    told = consolidate("job:0.5+laugh", rows, "-o", tmp_path / "one", "--json")
    assert told.code == 0, told.err
    found = told.json
    assert found["chain"] == "job:0.5+laugh"
    assert found["relative_error"] == 0
    assert found["loss_best"] < found["loss_first"]
    adapter = Adapter.load(found["adapter"])
    assert (
        adapter.rank == found["rank"] == sum(Adapter.load(shelf / n).rank for n in ("job", "laugh"))
    )
    parts = adapter.card.config["parts"]
    assert [(part["name"], part["weight"]) for part in parts] == [("job", 0.5), ("laugh", 1.0)]


def test_it_begins_at_the_chain(consolidate, rows, tmp_path, tiny_base, shelf):
    data = tmp_path / "data"
    data.mkdir()
    rows.rename(data / "train.jsonl")
    told = [{"prompt": f"Is {name} in?", "completion": f"{name} is ha"} for name in NAMES[:5]]
    (data / "valid.jsonl").write_text("\n".join(map(json.dumps, told)) + "\n")
    begun = consolidate("job+laugh", data, "-o", tmp_path / "one", "--json").json
    examples = [pair(row["prompt"], row["completion"]) for row in told]
    encoded = encode(tiny_base.tokenizer, examples, tiny_base.longest)
    chain = Chain.of(*(Adapter.load(shelf / name) for name in ("job", "laugh")))
    total = sum(log_likelihoods(tiny_base, encoded, chain))
    tokens = sum(sum(row.learned[1:]) for row in encoded)
    assert begun["loss_first"] == pytest.approx(-total / tokens, abs=1e-5)


def test_a_lower_rank_is_compressed_to_first(consolidate, rows, tmp_path):
    told = consolidate("job+laugh", rows, "-o", tmp_path / "one", "--rank", 2)
    assert told.code == 0, told.err
    assert "its 2 parts are one adapter now" in told.err
    assert "away from the chain, for its rank" in told.err
    assert Adapter.load(tmp_path / "one").rank == 2


def test_what_cannot_be_is_told(consolidate, rows, tmp_path):
    one = consolidate("job", rows, "-o", tmp_path / "one")
    assert one.code == 2
    assert "nothing to consolidate" in one.message
    assert "--start" in one.message
    missing = consolidate("job+laugh", tmp_path / "no.jsonl", "-o", tmp_path / "one")
    assert missing.code == 2
    assert "does not exist" in missing.message
    assert consolidate("job+laugh", rows, "-o", tmp_path / "one").code == 0
    again = consolidate("job+laugh", rows, "-o", tmp_path / "one")
    assert again.code == 2
    assert "holds an adapter already" in again.message
