"""Every damaged or foreign adapter, against every verb that takes one."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from detour.adapter.fingerprint import Fingerprint

OTHER = Fingerprint("other", "0" * 64, "1" * 64)
EARLIER_STARTER = Fingerprint("starter", "0" * 64, "5" * 64)
WEIGHTS = "adapter_model.safetensors"


def _truncated(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-100])


def _header_only(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}")


def _with_nan(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    first = next(iter(tensors))
    tensors[first][0, 0] = torch.nan
    save_file(tensors, folder / WEIGHTS)


def _other_rank(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "r": config["r"] + 1}))


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def _other_variant(folder: Path) -> None:
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "use_dora": True}))


def _no_config(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{")


def _vanished(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


FAULTS = {
    _truncated: "damaged",
    _header_only: "damaged",
    _with_nan: "",
    _other_rank: "rank",
    _pickled: WEIGHTS,
    _other_variant: "use_dora",
    _no_config: "adapter_config.json",
    _vanished: WEIGHTS,
}
VERBS: dict[str, Callable[[str, Path], tuple[object, ...]]] = {
    "ask": lambda spec, base: ("ask", "Who?", "--chain", spec, "--base", base),
    "flatten": lambda spec, base: ("chain", "flatten", spec, "-o", "out"),
    "compress": lambda spec, base: ("chain", "compress", spec, "--rank", "1", "-o", "out"),
    "inspect": lambda spec, base: ("inspect", spec),
}


@pytest.fixture(params=VERBS)
def refuses(request, fails, shelf, tmp_path, tiny_folder):
    """`refuses(spec)`: the verb fails with exit code 2, and no file is there that was not."""

    def check(spec: str) -> dict[str, str]:
        before = sorted(tmp_path.rglob("*"))
        error = fails(2, *VERBS[request.param](spec, tiny_folder))
        assert sorted(tmp_path.rglob("*")) == before
        return error

    return check


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_damaged_adapters(fault, refuses, keep, shelf):
    keep("formal")
    fault(shelf / "formal")
    error = refuses("formal")
    assert FAULTS[fault] in error["error"]
    assert error["found"]


def test_an_unknown_adapter_with_the_nearest_name(refuses, keep):
    keep("formal")
    error = refuses("fromal")
    assert "'fromal'" in error["error"]
    assert "formal" in error["hint"]


@pytest.mark.parametrize("name", ["../formal", "/nowhere/formal", "./formal"])
def test_paths_that_lead_nowhere(name, refuses, keep):
    keep("formal")
    assert "formal" in refuses(name)["error"]


@pytest.mark.parametrize("spec", ["formal:nan", "formal:inf", "formal:", "formal+", "+", ""])
@pytest.mark.parametrize("verb", ["ask", "flatten", "compress"])
def test_chains_that_make_no_sense(spec, verb, fails, keep, tiny_folder, shelf):
    keep("formal")
    error = fails(2, *VERBS[verb](spec, tiny_folder))
    assert "column" in error["error"]
    assert "^" in error["hint"]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("verb", ["flatten", "compress"])
def test_two_bases_in_one_chain(verb, fails, keep, tiny_folder):
    keep("formal")
    keep("alien", base=OTHER)
    error = fails(2, *VERBS[verb]("formal+alien", tiny_folder))
    assert "tiny" in error["expected"]
    assert "other" in error["found"]
    assert list(Path.cwd().iterdir()) == []


def test_an_adapter_for_another_base(fails, keep, tiny_folder):
    keep("alien", base=OTHER)
    error = fails(2, *VERBS["ask"]("alien", tiny_folder))
    assert "other" in error["expected"]
    assert str(tiny_folder) in error["found"]


def test_an_adapter_for_the_starter_of_another_release(fails, keep):
    keep("early", base=EARLIER_STARTER)
    error = fails(2, "ask", "Who?", "--chain", "early")
    assert "another release of starter" in error["error"]
    assert error["expected"] == "starter (55555555)"
    assert error["found"].startswith("starter (")
    assert "train the adapter anew" in error["hint"]


def test_an_adapter_whose_layers_the_base_does_not_have(
    detour, keep, tmp_path, make_model, tiny_tokenizer
):
    keep("foreign", base=None)
    make_model("gpt2").save_pretrained(tmp_path / "gpt2")
    tiny_tokenizer.save_pretrained(tmp_path / "gpt2")
    told = detour("ask", "Who?", "--chain", "foreign", "--base", tmp_path / "gpt2", "--json")
    assert told.code == 2
    assert "down_proj" in told.json["error"]
    assert "and 17 more" in told.json["error"]
    assert told.err.splitlines()[-1].startswith("detour: ")


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_damaged_adapter_is_listed_and_can_be_removed(fault, detour, keep, shelf):
    keep("formal")
    keep("sound", seed=2)
    fault(shelf / "formal")
    broken, sound = detour("list", "--json").json["adapters"]
    assert broken["name"] == "formal"
    assert broken["error"]
    assert sound["error"] == ""
    assert "broken: " in detour("list").out
    assert detour("remove", "formal", "--yes").code == 0
    assert [path.name for path in shelf.iterdir()] == ["sound"]
