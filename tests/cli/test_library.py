"""list, remove and inspect."""

import json
import math
import os
from dataclasses import replace

import pytest
from safetensors.torch import save_file

from detour.adapter.adapter import Adapter
from detour.adapter.fingerprint import Fingerprint, fingerprint_folder
from detour.cli import inspect, remove


def test_list(detour, keep, shelf):
    formal = keep("formal")
    keep("hairdresser", seed=2, fictional=True)
    first, second = detour("list", "--json").json["adapters"]
    assert first["name"] == "formal"
    assert first["path"] == str(shelf / "formal")
    assert first["base"].startswith("tiny (")
    assert (first["rank"], first["parameters"]) == (2, formal.parameters)
    assert first["bytes"] == sum(file.stat().st_size for file in (shelf / "formal").iterdir())
    assert (first["fictional"], second["fictional"]) == (False, True)
    lines = detour("list").out.splitlines()
    assert lines[0].split() == ["name", "base", "rank", "parameters", "size", "remarks"]
    assert lines[2].split()[0] == "hairdresser"
    assert lines[2].endswith("fictional")


def test_an_empty_list(detour, shelf):
    told = detour("list")
    assert (told.code, told.out) == (0, "")
    assert str(shelf) in told.err
    assert detour("list", "--json").json == {"adapters": []}


def test_remove(detour, keep, shelf):
    keep("formal")
    keep("pun")
    told = detour("remove", "formal", "--yes", "--json")
    assert told.json == {"removed": "formal", "path": str(shelf / "formal")}
    assert [path.name for path in shelf.iterdir()] == ["pun"]


def test_without_a_terminal_remove_needs_yes(fails, keep, shelf):
    keep("formal")
    assert "--yes" in fails(2, "remove", "formal")["hint"]
    assert Adapter.load(shelf / "formal")


def test_what_ships_is_not_asked_about(fails):
    told = fails(2, "remove", "pirate")
    assert told["error"] == "pirate cannot be removed"
    assert "--yes" not in told["hint"]


@pytest.mark.parametrize(("answer", "code", "left"), [("y", 0, 0), ("n", 130, 1), ("", 130, 1)])
def test_remove_asks_in_a_terminal(answer, code, left, detour, keep, shelf, monkeypatch):
    keep("formal")
    monkeypatch.setattr(remove, "is_conversation", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda prompt="": answer)
    assert detour("remove", "formal").code == code
    assert len(list(shelf.iterdir())) == left


@pytest.mark.parametrize("name", ["missing", "../home", "/etc", "./here", "a\0b", "", ".", ".."])
def test_remove_never_leaves_the_library(name, fails, keep, shelf, tmp_path):
    keep("formal")
    before = sorted(tmp_path.rglob("*"))
    fails(2, "remove", name, "--yes")
    assert sorted(tmp_path.rglob("*")) == before


def test_remove_does_not_follow_a_link(fails, keep, shelf, tmp_path):
    keep("formal")
    (shelf / "formal").rename(tmp_path / "mine")
    os.symlink(tmp_path / "mine", shelf / "formal")  # noqa: PTH211
    fails(2, "remove", "formal", "--yes")
    assert Adapter.load(tmp_path / "mine")


def test_inspect(detour, keep, shelf, tiny_folder):
    adapter = keep("hairdresser", fictional=True)
    told = detour("inspect", "hairdresser", "--base", tiny_folder, "--json")
    assert (told.code, told.err) == (0, "")
    report = told.json
    assert (report["format"], report["variant"]) == ("peft", "lora")
    assert report["base"] == {
        "name": "tiny",
        "fingerprint": adapter.base.to_json(),
        "matches": True,
    }
    assert report["layers"] == [
        {"name": layer, "rank": 2, "scale": 0.5, "norm": pytest.approx(update.norm())}
        for layer, update in sorted(adapter.updates.items())
    ]
    assert report["norm"] == pytest.approx(math.hypot(*(row["norm"] for row in report["layers"])))
    assert report["modules_to_save"] == []
    assert report["card"]["description"] == "about hairdresser"
    assert report["digest"] == adapter.digest()
    (warning,) = report["warnings"]
    assert warning.startswith("fictional")


def test_inspect_for_people(detour, keep, tiny_folder):
    adapter = keep("formal")
    out = detour("inspect", "formal", "--base", tiny_folder).out
    assert "base tiny: matches" in out
    assert "about formal" in out
    lines = [line for line in out.splitlines() if line.startswith("model.layers")]
    assert len(lines) == len(adapter.updates)
    bars = [line.count("▇") for line in lines]
    norms = [update.norm() for _, update in sorted(adapter.updates.items())]
    assert bars == [round(inspect.BAR * norm / max(norms)) for norm in norms]


def test_layers_stand_in_the_order_of_their_numbers(detour, keep, shelf, random_adapter):
    names = ("layers.10.a", "layers.9.b", "layers.9.a", "layers.x.a", "head")
    keep("deep", updates=random_adapter(dict.fromkeys(names, (4, 3))).updates)
    layers = detour("inspect", "deep", "--json").json["layers"]
    assert [layer["name"] for layer in layers] == [
        "head", "layers.9.a", "layers.9.b", "layers.10.a", "layers.x.a",
    ]  # fmt: skip


def test_inspect_takes_a_path(detour, keep, shelf):
    keep("formal")
    assert detour("inspect", shelf / "formal", "--json").json["name"] == "formal"


def test_a_base_at_hand_is_compared_without_loading_it(detour, keep, tiny_folder, monkeypatch):
    monkeypatch.setattr(inspect, "load_base", lambda name: pytest.fail("it was loaded"))
    ours = keep("formal").base
    keep("near", base=Fingerprint(str(tiny_folder), ours.config_sha256, ours.weights_sha256))
    keep("alien", base=Fingerprint(str(tiny_folder), ours.config_sha256, "1" * 64))
    near, alien, far = (
        detour("inspect", name, "--json").json for name in ("near", "alien", "formal")
    )
    assert (near["base"]["matches"], near["warnings"]) == (True, [])
    assert alien["base"]["matches"] is False
    assert "made for" in alien["warnings"][0]
    assert far["base"]["matches"] is None
    assert "--base" in far["warnings"][0]


def test_a_base_at_hand_that_cannot_be_read(detour, keep, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    keep("formal", base=Fingerprint(str(tmp_path / "model"), "0" * 64, "1" * 64))
    report = detour("inspect", "formal", "--json").json
    assert report["base"]["matches"] is None
    assert report["warnings"][0].startswith("not checked: ")


def test_another_base_does_not_match(detour, keep, tmp_path, make_model):
    keep("formal")
    keep("foreign", base=None)
    make_model("gpt2").save_pretrained(tmp_path / "gpt2")
    for name in ("formal", "foreign"):
        report = detour("inspect", name, "--base", tmp_path / "gpt2", "--json").json
        assert report["base"]["matches"] is False
        assert report["warnings"]


def test_without_a_fingerprint_nothing_is_verified(detour, keep, tiny_folder):
    keep("foreign", base=None)
    loaded = detour("inspect", "foreign", "--base", tiny_folder, "--json").json
    unloaded = detour("inspect", "foreign", "--json").json
    for report in (loaded, unloaded):
        assert report["base"]["matches"] is None
        assert "unverified" in report["warnings"][0]
    assert "not verified" in detour("inspect", "foreign").out


def test_rslora_is_named(detour, keep, shelf):
    keep("formal", base=None)
    (shelf / "formal" / "detour.json").unlink()
    path = shelf / "formal" / "adapter_config.json"
    config = {**json.loads(path.read_text()), "use_rslora": True, "r": 4, "lora_alpha": 6}
    config["target_modules"] = ["a"]
    path.write_text(json.dumps(config))
    import torch

    save_file(
        {
            "base_model.model.a.lora_A.weight": torch.ones(4, 3),
            "base_model.model.a.lora_B.weight": torch.zeros(5, 4),
        },
        shelf / "formal" / "adapter_model.safetensors",
    )
    report = detour("inspect", "formal", "--json").json
    assert report["variant"] == "rslora"
    assert report["layers"] == [{"name": "a", "rank": 4, "scale": 3.0, "norm": 0.0}]
    assert any("change nothing" in warning for warning in report["warnings"])


def test_every_byte_of_the_base_on_request(detour, keep, tiny_folder):
    adapter = keep("formal")
    told = detour("inspect", "formal", "--base", tiny_folder, "--full", "--json").json
    assert told["base"]["matches"] is True
    assert told["warnings"] == ["compared by samples: it was trained without --full"]
    known = fingerprint_folder(tiny_folder, "tiny", full=True)
    keep("whole", base=known, updates=adapter.updates)
    told = detour("inspect", "whole", "--base", tiny_folder, "--full", "--json").json
    assert (told["base"]["matches"], told["warnings"]) == (True, [])
    keep("wrong", base=replace(known, full_sha256="0" * 64), updates=adapter.updates)
    told = detour("inspect", "wrong", "--base", tiny_folder, "--full", "--json").json
    assert told["base"]["matches"] is False
