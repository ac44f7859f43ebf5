"""The library: names in, adapters out, and nothing outside its folders."""

import os
from pathlib import Path

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.library import Library
from detour.adapter.update import Update
from detour.errors import AdapterFormatError, ChainError, StorageError, UnknownAdapter


def make(value: float = 1.0, **about) -> Adapter:
    return Adapter({"q": Update(torch.full((2, 3), float(value)), torch.ones(4, 2))}, "x", **about)


@pytest.fixture
def library(tmp_path: Path) -> Library:
    make(1).save(tmp_path / "own" / "formal")
    make(2).save(tmp_path / "shipped" / "formal")
    make(3).save(tmp_path / "shipped" / "pirate")
    make(4).save(tmp_path / "outside")
    return Library((tmp_path / "own", tmp_path / "shipped"))


def test_earlier_folders_win(library: Library):
    assert library.load("formal").digest() == make(1).digest()
    assert library.load("pirate").digest() == make(3).digest()
    assert library.load("pirate").name == "pirate"


def test_paths_win_only_when_they_look_like_paths(library: Library, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(5).save(tmp_path / "formal")
    make(6).save(tmp_path / "here")
    assert library.load("formal").digest() == make(1).digest()
    assert library.load("./formal").digest() == make(5).digest()
    assert library.load(str(tmp_path / "formal")).digest() == make(5).digest()
    assert library.load("here").digest() == make(6).digest()
    with pytest.raises(UnknownAdapter):
        Library(library.folders, names_only=True).load("here")


def test_unknown_names_get_a_suggestion(library: Library, tmp_path):
    with pytest.raises(UnknownAdapter, match=r"'pirat'.*did you mean pirate\?"):
        library.resolve("pirat")
    with pytest.raises(UnknownAdapter, match="none in"):
        Library((tmp_path / "nowhere",)).resolve("pirate")
    with pytest.raises(UnknownAdapter, match="no adapter folder"):
        library.resolve("./nowhere")


def test_local_adapters_have_no_revision(library: Library):
    with pytest.raises(ChainError, match="revision"):
        library.load("formal", "v2")


NAMES = ["../outside", "..", ".", "", "/etc", "a/../../outside", "a\0b", "a\\b", ".hidden", "x\n"]


@pytest.mark.parametrize("name", [*NAMES, "x" * 300])
def test_names_never_lead_out(library: Library, tmp_path, name: str):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UnknownAdapter):
        Library(library.folders, names_only=True).resolve(name)
    with pytest.raises(UnknownAdapter):
        library.remove(name)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_nul_is_refused_even_in_paths(library: Library):
    with pytest.raises(UnknownAdapter, match="not an adapter's name"):
        library.resolve("./a\0b")


def test_a_link_out_of_the_library_is_refused(library: Library, tmp_path):
    (tmp_path / "own" / "sneaky").symlink_to(tmp_path / "outside", target_is_directory=True)
    with pytest.raises(UnknownAdapter, match="leads out"):
        library.load("sneaky")
    with pytest.raises(UnknownAdapter):
        library.remove("sneaky")
    listed = {entry.name: entry for entry in library.list()}
    assert "leads out" in listed["sneaky"].error
    assert (tmp_path / "outside" / "adapter_config.json").exists()


def test_list_tells_everything_and_hides_nothing(library: Library, tmp_path):
    known = Fingerprint("tiny", "c", "1" * 64)
    make(card=Card(fictional=True), base=known).save(tmp_path / "own" / "known")
    make(card=Card(base_model="org/tiny")).save(tmp_path / "own" / "named")
    (tmp_path / "own" / "broken").mkdir()
    (tmp_path / "own" / ".formal.abc").mkdir()
    (tmp_path / "own" / "notes.txt").write_text("")
    listed = {entry.name: entry for entry in library.list()}
    assert list(listed) == ["broken", "formal", "known", "named", "pirate"]
    assert "is not an adapter" in listed["broken"].error
    assert listed["known"].base == "tiny (11111111)"
    assert listed["known"].fictional
    assert listed["named"].base == "org/tiny (unverified)"
    formal = listed["formal"]
    assert (formal.rank, formal.parameters, formal.error) == (2, 14, "")
    assert formal.path == tmp_path / "own" / "formal"
    assert formal.bytes == sum(file.stat().st_size for file in formal.path.iterdir())


def test_remove_only_in_the_first_folder(library: Library, tmp_path):
    library.remove("formal")
    assert list((tmp_path / "own").iterdir()) == []
    assert library.load("formal").digest() == make(2).digest()
    with pytest.raises(UnknownAdapter, match="read only"):
        library.remove("formal")
    with pytest.raises(UnknownAdapter, match="did you mean pirate"):
        library.remove("pirates")


def test_a_failing_removal_is_told(library: Library, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(StorageError, match="Permission denied"):
        library.remove("formal")
    assert (tmp_path / "own" / "formal" / "adapter_config.json").exists()
    assert os.listdir(tmp_path / "own") == ["formal"]  # noqa: PTH208


def test_default_reads_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path))
    assert Library.default().folders[0] == tmp_path / "adapters"
    monkeypatch.delenv("DETOUR_HOME")
    assert Library.default().folders[0] == Path.home() / ".detour" / "adapters"
    assert Library.default().folders[1].parts[-3:] == ("detour", "starter", "adapters")


def test_a_broken_adapter_says_why(library: Library, tmp_path):
    (tmp_path / "own" / "broken").mkdir()
    with pytest.raises(AdapterFormatError, match=r"adapter_config\.json"):
        library.load("broken")
