import hashlib
import json

import pytest

from detour import __version__, extras
from detour.cli import doctor
from detour.errors import MissingExtra


@pytest.fixture
def starter(tmp_path, monkeypatch, shelf):
    """A packaged starter that is as its card says."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"weights")
    sha256 = hashlib.sha256(b"weights").hexdigest()
    card = {"sha256": {"model.safetensors": sha256}, "figures": {}}
    (folder / "card.json").write_text(json.dumps(card))
    monkeypatch.setattr(doctor, "starter_folder", lambda: folder)
    return folder


def test_nothing_is_wrong(detour, starter, shelf):
    told = detour("doctor", "--json")
    report = told.json
    assert (told.code, report["problems"]) == (0, [])
    assert report["starter"] == {"path": str(starter), "intact": True, "problems": []}
    assert report["versions"]["detour-lora"] == __version__
    assert report["versions"]["torch"]
    assert report["machine"]["cores"] >= 1
    assert report["machine"]["memory_gb"] > 0
    assert report["library"] == {"path": str(shelf), "writable": True, "problems": []}
    plain = detour("doctor")
    assert plain.code == 0
    assert "nothing is wrong" in plain.out


@pytest.mark.parametrize("damage", ["changed", "missing", "no card", "card", "no sha256"])
def test_a_damaged_starter_is_a_problem(damage, detour, starter):
    weights, card = starter / "model.safetensors", starter / "card.json"
    {
        "changed": lambda: weights.write_bytes(b"Weights"),
        "missing": weights.unlink,
        "no card": card.unlink,
        "card": lambda: card.write_bytes(b"\xff"),
        "no sha256": lambda: card.write_text("{}"),
    }[damage]()
    told = detour("doctor", "--json")
    assert told.code == 1
    assert told.json["starter"]["intact"] is False
    assert told.json["problems"] == told.json["starter"]["problems"] != []
    assert "problem: " in detour("doctor").out


def test_a_missing_extra_is_no_problem_and_says_how_to_get_it(detour, starter, monkeypatch):
    monkeypatch.setattr(
        doctor, "installed_version", lambda name: None if name == "lancedb" else "1.0"
    )
    told = detour("doctor", "--json")
    assert told.code == 0
    retrieval = told.json["extras"]["retrieval"]
    assert retrieval == {
        "installed": False,
        "missing": ["lancedb"],
        "install": 'pip install "detour-lora[retrieval]"',
    }
    assert told.json["extras"]["serve"]["installed"] is True
    assert 'pip install "detour-lora[retrieval]"' in detour("doctor").out


def test_a_missing_core_package_is_a_problem(detour, starter, monkeypatch):
    monkeypatch.setattr(doctor, "installed_version", lambda name: None if name == "rich" else "1.0")
    told = detour("doctor", "--json")
    assert (told.code, told.json["problems"]) == (1, ["rich is not installed"])


def test_a_library_that_cannot_be_written(detour, starter, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path / "file"))
    told = detour("doctor", "--json")
    assert told.code == 1
    assert "DETOUR_HOME" in told.json["problems"][0]


def test_extras_are_read_from_the_metadata():
    packages = extras.packages_by_extra()
    assert "torch" in packages[""]
    assert "lancedb" in packages["retrieval"]
    assert "pytest" in packages["dev"]
    assert "detour-lora" not in {name for names in packages.values() for name in names}


def test_require_gives_the_module():
    assert extras.require("json.decoder", "data") is json.decoder


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part"])
def test_require_names_the_extra(module):
    with pytest.raises(MissingExtra) as caught:
        extras.require(module, "data")
    assert module in caught.value.message
    assert caught.value.hint == 'pip install "detour-lora[data]"'
    assert caught.value.exit_code == 2


def test_require_does_not_hide_our_own_mistakes():
    with pytest.raises(ModuleNotFoundError):
        extras.require("detour.no_such_module", "data")
