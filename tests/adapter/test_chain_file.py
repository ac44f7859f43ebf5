"""Chains in files: read, written, nested."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.chain_file import ChainFile, expanded
from detour.adapter.chain_text import parse, render
from detour.adapter.library import Library
from detour.errors import ChainError, UnknownAdapter


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: Path, told: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(told, "utf-8")
    return path


def text_of(given: str) -> str:
    return render(expanded(parse(given)))


def test_a_file_says_what_its_text_says(here):
    write(here / "a.yaml", "chain: formal:0.8+pun{layers.0-2=0.3}\n")
    assert text_of("./a.yaml") == "formal:0.8+pun{layers.0-2=0.3}"
    write(here / "b.yml", "name: b\nchain:\n  - formal:0.8\n  - pun{layers.0-2=0.3}\n")
    assert text_of("./b.yml") == text_of("./a.yaml")


def test_weights_multiply_through_files(here):
    write(here / "inner.yaml", "chain: formal:0.8+pun:-1{layers.0-2=0.5}")
    write(here / "outer.yaml", "chain: [./inner.yaml:0.5, brief]")
    assert text_of("./outer.yaml:2+upper") == "formal:0.8+pun:-1{layers.0-2=0.5}+brief:2+upper"


def test_paths_are_those_from_the_file(here):
    write(here / "sub" / "inner.yaml", "chain: ./baker+formal+../dora")
    write(here / "outer.yaml", "chain: ./sub/inner.yaml")
    assert text_of("./outer.yaml") == "./sub/baker+formal+./dora"
    absolute = write(here / "sub" / "far.yaml", "chain: ./baker")
    assert text_of(str(absolute)) == str(here / "sub" / "baker")


def test_it_acts_as_its_parts_do(here, random_adapter):
    shapes = {"layers.0.q": (6, 4)}
    made = {name: random_adapter(shapes, seed=seed).with_(name=name)
            for seed, name in enumerate(("formal", "pun"))}  # fmt: skip
    for name, adapter in made.items():
        adapter.save(here / "shelf" / name)
    library = Library((here / "shelf",))
    write(here / "inner.yaml", "chain: formal:0.5+pun")
    write(here / "outer.yaml", "chain: ./inner.yaml:-2+pun")
    found = Chain.parse("./outer.yaml", library).flatten()
    expected = (-1.0 * made["formal"] - made["pun"]).flatten()
    torch.testing.assert_close(
        found.updates["layers.0.q"].delta(), expected.updates["layers.0.q"].delta()
    )
    assert isinstance(found, Adapter)


def test_what_is_written_is_read_again(here):
    terms = parse('"a+b":0.5+pun@v2{layers.0-2=0.3}')
    file = ChainFile(terms, "show", "Für die Show: laut", "CC-BY-4.0")
    file.write(here / "show.yaml")
    assert ChainFile.read(here / "show.yaml") == file


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        ("chain: [", "cannot be read as a chain"),
        ("just text", "holds no chain"),
        ("name: a", "holds no chain"),
        ("chain: []", "holds no chain"),
        ("chain: [1, 2]", "holds no chain"),
        ("chain: {a: 1}", "holds no chain"),
        ("chain: formal:x", "a.yaml: "),
        ("chain: formal\nchains: x", "unknown key 'chains'"),
        ("chain: formal\nname: 3", "name in .*a.yaml is no text"),
        ("chain: ./a.yaml", "holds itself"),
        ("chain: ./b.yaml:0.5", "holds itself"),
        ("chain: ./missing.yaml", "cannot be read as a chain"),
    ],
)
def test_what_is_wrong_is_told_with_the_file(here, told, fault):
    write(here / "a.yaml", told)
    write(here / "b.yaml", "chain: ./a.yaml")
    with pytest.raises(ChainError, match=fault):
        expanded(parse("./a.yaml"))


@pytest.mark.parametrize("given", ["./a.yaml{layers.0=1}", "./a.yaml@v2"])
def test_a_file_takes_one_weight(here, given):
    write(here / "a.yaml", "chain: formal")
    with pytest.raises(ChainError, match="one weight"):
        expanded(parse(given))


def test_names_from_elsewhere_read_no_files(here):
    write(here / "a.yaml", "chain: formal")
    with pytest.raises(UnknownAdapter):
        Chain.parse("./a.yaml", Library((here / "shelf",), names_only=True))
