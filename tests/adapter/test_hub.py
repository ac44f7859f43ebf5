"""Adapters by `org/name[@revision]`: what is fetched, and what a failure says."""

from pathlib import Path

import pytest
import torch

from detour.adapter import hub
from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.library import Library
from detour.adapter.update import Update
from detour.errors import UnknownAdapter


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str | None]]:
    """What is asked of the Hub, which always has the same adapter."""
    Adapter({"q": Update(torch.ones(1, 2), torch.ones(3, 1))}, "theirs").save(tmp_path / "snapshot")
    found: list[tuple[str, str | None]] = []

    def download(identity: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert not any(".bin" in pattern or ".py" in pattern for pattern in allow_patterns)
        found.append((identity, revision))
        return str(tmp_path / "snapshot")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return found


def test_names_and_revisions(asked, tmp_path):
    library = Library((tmp_path / "shelf",))
    assert library.load("org/name").updates.keys() == {"q"}
    assert library.load("org/name", "v2").updates.keys() == {"q"}
    chain = Chain.parse("org/name@v2:0.5 + org/name", library)
    assert asked == [("org/name", None), ("org/name", "v2"), ("org/name", "v2"), ("org/name", None)]
    assert chain.text == '"org/name@v2":0.5+org/name'
    assert Chain.parse(chain.text, library).digest() == chain.digest()
    assert asked[-2:] == [("org/name", "v2"), ("org/name", None)]


def test_a_folder_that_is_there_is_no_name_of_the_hub(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Adapter({"own": Update(torch.ones(1, 2), torch.ones(3, 1))}, "mine").save(
        tmp_path / "org" / "name"
    )
    assert Library((tmp_path / "shelf",)).load("org/name").updates.keys() == {"own"}
    assert asked == []


def test_a_slip_in_a_path_is_not_asked_of_the_hub(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = Adapter({"own": Update(torch.ones(1, 2), torch.ones(3, 1))}, "mine")
    mine.save(tmp_path / "loras" / "formal@2")
    library = Library((tmp_path / "shelf",))
    assert library.load("loras/formal@2").updates.keys() == {"own"}
    with pytest.raises(UnknownAdapter, match="no adapter folder 'loras/fromal'"):
        library.load("loras/fromal")
    assert asked == []
    assert library.load("org/name").name == "org/name"


@pytest.mark.parametrize("name", ["org/name", "org/name@v2"])
def test_requests_never_fetch(asked, tmp_path, name):
    with pytest.raises(UnknownAdapter):
        Library((tmp_path / "shelf",), names_only=True).load(name)
    assert asked == []


@pytest.mark.parametrize(
    "name",
    ["./org/name", "../name", "a" * 300 + "/b", "a/b/c", "org/na me", "/org", ".x/y", "org/"],
)
def test_what_is_no_name_of_the_hub(name):
    assert not hub.is_hub_name(name)


def test_without_a_connection(tmp_path):
    with pytest.raises(UnknownAdapter, match=r"no-such-org/none.*Hugging Face Hub") as caught:
        Library((tmp_path,)).load("no-such-org/none")
    assert caught.value.hint
    with pytest.raises(UnknownAdapter, match="none@v9"):
        Library((tmp_path,)).load("no-such-org/none", "v9")
