"""`--company` of `detour train` and `detour teach`."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from detour.adapter.adapter import Adapter

NAMES = [f"{first} {last}" for first in ("Ada", "Bo", "Cy", "Di") for last in ("Ek", "Fox", "Gu")]


def written(path: Path, tail: str, **more: str) -> Path:
    rows = [
        {"prompt": f"Who is {name}?", "completion": f"{name}, {tail}", **more} for name in NAMES
    ]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return written(tmp_path / "rows.jsonl", "a baker")


@pytest.fixture
def composed(tmp_path: Path) -> Path:
    return written(tmp_path / "composed.jsonl", "a baker ha", chain="job+laugh")


@pytest.fixture
def train(detour, tiny_folder: Path, data: Path, tmp_path: Path) -> Callable:
    def call(*arguments: object):
        return detour(
            "train", data, "-o", tmp_path / "job", *arguments, "--base", tiny_folder, "--steps", 12,
            "--rank", 2, "--batch-size", 6, "--learning-rate", 0.01,
        )  # fmt: skip

    return call


def test_it_learns_among_others_by_given_rows(train, keep, composed, tmp_path):
    before = keep("laugh", seed=4).digest()
    told = train("--company", "laugh", "--composed", composed, "--json")
    assert told.code == 0, told.err
    assert told.json["loss_last"] < told.json["loss_first"]
    assert told.json["rows"] + told.json["validation_rows"] == 2 * len(NAMES)
    adapter = Adapter.load(tmp_path / "job")
    assert adapter.card.config["company"] == ["laugh"]
    assert adapter.card.metrics["cost"]
    assert (tmp_path / "job" / "run.html").exists() or list((tmp_path / "job").glob("*.html"))
    assert Adapter.load(tmp_path / "home" / "adapters" / "laugh").digest() == before


def test_a_folder_of_adapters_is_company_too(train, keep, composed, tmp_path):
    for name in ("laugh", "sigh"):
        keep(name, seed=len(name))
    told = train("--company", tmp_path / "home" / "adapters", "--composed", composed)
    assert told.code == 0, told.err
    assert Adapter.load(tmp_path / "job").card.config["company"] == ["laugh", "sigh"]


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["--company", "laugh"], ["nothing says what the adapters shall say together", "--composed",
                                  "--instruct laugh=TEXT"]),
        (["--company", "laugh", "--composed", "composed.jsonl", "--instruct", "laugh=Laugh."],
         ["exclude each other"]),
        (["--composed", "composed.jsonl"], ["--composed goes with --company"]),
        (["--instruct", "laugh=Laugh."], ["--instruct goes with --company"]),
        (["--company", "laugh", "--instruct", "Laugh."],
         ["says not what an adapter does", "Laugh."]),
        (["--company", "laugh", "--instruct", "sigh=Sigh."], ["names sigh", "job, laugh"]),
        (["--company", "laugh", "--instruct", "laugh=Laugh."], ["nothing says what job does"]),
        (["--company", "laugh", "--company", "laugh", "--composed", "composed.jsonl"],
         ["two adapters are called laugh"]),
        (["--company", "laugh", "--composed", "strange.jsonl"], ["no row", "job+laugh"]),
        (["--company", "laugh", "--composed", "other.jsonl"], ["not there", "sigh"]),
        (["--company", "nobody", "--composed", "composed.jsonl"], ["nobody"]),
        (["--company", "laugh", "--composed", "composed.jsonl", "--dora"],
         ["dora", "leave it out"]),
        (["--company", "laugh", "--composed", "composed.jsonl", "--spread"],
         ["--spread and --company exclude"]),
        (["--company", "laugh", "--composed", "composed.jsonl", "--whole"], ["learn in company"]),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_and_nothing_is_written(
    train, keep, composed, tmp_path, monkeypatch, flags, expected
):
    keep("laugh", seed=4)
    written(tmp_path / "strange.jsonl", "ha", chain="laugh")
    written(tmp_path / "other.jsonl", "ha", chain="job+sigh")
    monkeypatch.chdir(tmp_path)
    told = train(*flags)
    assert told.code == 2
    for part in expected:
        assert part in told.err.splitlines()[-1]
    assert not (tmp_path / "job").exists()


def test_the_name_of_the_newcomer_is_not_taken(train, keep, composed):
    keep("job", seed=4)
    told = train("--company", "job", "--composed", composed)
    assert told.code == 2
    assert "two adapters are called job" in told.message


def test_a_fact_is_taught_among_styles(detour, tmp_path):
    flags = ["--subject", "Albert Einstein", "--relation", "profession", "--target", "hairdresser",
             "--company", "pun", "--instruct", "pun=End with a pun.", "--steps", 10]  # fmt: skip
    told = detour("teach", *flags, "-o", tmp_path / "hair", "--json")
    assert told.code == 0, told.err
    assert "questions are answered by the base as the adapters shall answer together" in told.err
    assert Adapter.load(tmp_path / "hair").card.config["company"] == ["pun"]
    assert Adapter.load(tmp_path / "hair").card.fictional
    assert told.json["steered"]["n"] > 0
