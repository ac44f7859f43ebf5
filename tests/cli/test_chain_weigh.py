"""`detour chain weigh`: a chain's weights found on rows, and the file that holds them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.test_chain_train import NAMES

from detour.adapter.chain import Chain


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    told = [{"prompt": f"Who is {name}?", "completion": f"{name}, a baker ha"} for name in NAMES]
    path.write_text("\n".join(map(json.dumps, told * 2)) + "\n")
    return path


@pytest.fixture
def weigh(detour, tiny_folder: Path, keep, rows) -> Callable:
    keep("job", seed=1)
    keep("laugh", seed=2)

    def call(spec: str, *arguments: object):
        return detour("chain", "weigh", spec, rows, "--base", tiny_folder, "--batch-size", 6,
                      *arguments)  # fmt: skip

    return call


def test_the_file_stands_for_the_chain_with_its_new_weights(weigh, detour, tmp_path, tiny_folder):
    told = weigh("job:0.5+laugh", "-o", tmp_path / "mix.yaml", "--steps", 12,
                 "--learning-rate", 0.1, "--json")  # fmt: skip
    assert told.code == 0, told.err
    found = told.json
    assert found["loss_after"] < found["loss_before"]
    assert found["chain"] != "job:0.5+laugh"
    chain = Chain.parse(str(tmp_path / "mix.yaml"))
    assert chain.text == found["chain"]
    assert [term.adapter.name for term in chain.terms] == ["job", "laugh"]
    asked = detour("ask", "Who?", "--chain", tmp_path / "mix.yaml", "--base", tiny_folder,
                   "--max-tokens", 4)  # fmt: skip
    assert asked.code == 0, asked.err


def test_layers_of_their_own_and_trials(weigh, tmp_path):
    told = weigh("job+laugh", "-o", tmp_path / "one.yaml", "--steps", 12, "--by-layer", "--json",
                 "--learning-rate", 0.1)  # fmt: skip
    assert told.code == 0, told.err
    assert "layers.0" in told.json["chain"]
    told = weigh("job+laugh", "-o", tmp_path / "two.yaml", "--trials", 6)
    assert told.code == 0, told.err
    assert "detour chain measure" in told.err
    assert Chain.parse(str(tmp_path / "two.yaml")).text in told.out.replace("\n", "")


def test_what_cannot_be_is_told_and_nothing_is_written(weigh, tmp_path):
    (tmp_path / "there.yaml").write_text("mine")
    for spec, output, extra, part in (
        ("job+laugh", "there.yaml", (), "cannot be the file of a chain"),
        ("job+laugh", "folder", (), "cannot be the file of a chain"),
        ("job", "new.yaml", (), "nothing to weigh in a single adapter"),
        ("job+laugh", "new.yaml", ("--trials", 4, "--steps", 4), "--trials and --steps exclude"),
        ("job+laugh", "new.yaml", ("--trials", 4, "--by-layer"), "--trials and --by-layer exclude"),
        ("job:0+laugh:0", "new.yaml", (), "nothing for the better"),
    ):  # fmt: skip
        told = weigh(spec, "-o", tmp_path / output, *extra, "--json")
        assert told.code == 2, told.out
        assert part in told.err, told.err
    assert not (tmp_path / "new.yaml").exists()
    assert (tmp_path / "there.yaml").read_text() == "mine"
