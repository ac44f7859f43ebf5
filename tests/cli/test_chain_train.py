"""`detour chain train`: several at once, one in company, and what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detour.adapter.adapter import Adapter
from detour.cli import chain_train

NAMES = [f"{first} {last}" for first in ("Ada", "Bo", "Cy", "Di") for last in ("Ek", "Fox", "Gu")]


def rows(path: Path, chains: dict[str, str]) -> Path:
    told = [
        {"prompt": f"Who is {name}?", "completion": f"{name}, {tail}", "chain": chain}
        for name in NAMES for chain, tail in chains.items()
    ]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, told)) + "\n")
    return path


@pytest.fixture
def train(detour, tiny_folder: Path, tmp_path: Path) -> Callable:
    def call(*arguments: object):
        return detour(
            "chain", "train", *arguments, "--base", tiny_folder, "--steps", 12, "--rank", 2,
            "--batch-size", 6, "--learning-rate", 0.01,
        )  # fmt: skip

    return call


@pytest.fixture
def both(tmp_path: Path) -> Path:
    return rows(tmp_path / "rows.jsonl",
                {"job": "a baker", "laugh": "ha", "job+laugh": "a baker ha"})  # fmt: skip


@pytest.mark.usefixtures("shelf")
def test_two_learn_at_once_and_are_ordinary_adapters(train, both, tmp_path):
    told = train(both, "-o", tmp_path / "out", "--json")
    assert told.code == 0, told.err
    assert set(told.json["adapters"]) == {"job", "laugh"}
    assert told.json["loss_best"] < told.json["loss_first"]
    assert told.json["steps"] == 12
    assert "36 rows; job, laugh learn; in company of nobody" in told.err
    for name, path in told.json["adapters"].items():
        adapter = Adapter.load(path)
        assert adapter.name == name
        assert adapter.rank == 2
        assert all(row["messages"][-1]["content"].count("baker") == (name == "job")
                   for row in adapter.test_rows)  # fmt: skip
    again = train(both, "-o", tmp_path / "out")
    assert again.code == 2
    assert "holds an adapter already" in again.message


def test_one_learns_in_company_that_stays(train, keep, both, tmp_path):
    before = keep("laugh", seed=4).digest()
    told = train(both, "-o", tmp_path / "out", "--company", "laugh")
    assert told.code == 0, told.err
    assert "job learn; in company of laugh" in told.err
    assert "Try: detour chain measure" in told.out
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["job"]
    assert Adapter.load(tmp_path / "home" / "adapters" / "laugh").digest() == before


def test_it_begins_where_another_ended_and_goes_on_after_ctrl_c(
    train, keep, both, tmp_path, monkeypatch
):
    keep("job", seed=4)
    whole = train(both, "-o", tmp_path / "whole", "--start", "job", "--json")
    assert whole.code == 0, whole.err
    genuine = chain_train.watched

    def stopping(*arguments):
        inner = genuine(*arguments)

        class Stop:
            def __enter__(self):
                watch = inner.__enter__()

                def told(progress):
                    watch(progress)
                    if progress.step == 5:
                        raise KeyboardInterrupt

                return told

            def __exit__(self, *rest):
                return inner.__exit__(*rest)

        return Stop()

    monkeypatch.setattr(chain_train, "watched", stopping)
    cut = train(both, "-o", tmp_path / "cut", "--start", "job")
    assert cut.code == 130
    assert "the state is saved" in cut.err
    monkeypatch.setattr(chain_train, "watched", genuine)
    done = train(both, "-o", tmp_path / "cut", "--start", "job", "--resume", "--json")
    assert done.code == 0, done.err
    for name in ("job", "laugh"):
        one, other = (Adapter.load(tmp_path / place / name) for place in ("whole", "cut"))
        assert one.digest() == other.digest()
    assert not (tmp_path / ".cut.training").exists()


def test_what_cannot_be_trained_is_told(fails, keep, both, tmp_path, tiny_folder):
    keep("job", seed=4)
    keep("laugh", seed=5)
    keep("other", seed=6)

    def told(*more):
        return fails(
            2, "chain", "train", both, "-o", tmp_path / "out", "--base", tiny_folder, *more
        )

    everybody = told("--company", "job", "--company", "laugh")
    assert "nobody learns" in everybody["error"]
    assert "--start names other" in told("--start", "other")["error"]
    path = rows(tmp_path / "paths.jsonl", {"'./job'": "a baker"})
    wrong = fails(2, "chain", "train", path, "-o", tmp_path / "out", "--base", tiny_folder)
    assert "cannot be the name of a folder" in wrong["error"]
    assert not (tmp_path / "out").exists()
