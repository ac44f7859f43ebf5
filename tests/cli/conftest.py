"""A home of adapters for a tiny base, and the command line called as a person calls it."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from detour.adapter import library
from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import fingerprint_folder
from detour.cli.main import run
from detour.cli.output import one_line
from detour.model.base import Base


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The one object on stdout."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def message(self) -> str:
        """The one line on stderr."""
        (line,) = self.err.splitlines()
        return line


@pytest.fixture(autouse=True)
def english(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever language the tester's own shell asks for."""
    monkeypatch.delenv("DETOUR_LANG", raising=False)


@pytest.fixture
def detour(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`detour("ask", "…")` runs the command in this process."""

    def call(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture
def fails(detour: Callable[..., Outcome]) -> Callable[..., dict[str, str]]:
    """`fails(code, "ask", …)` checks how a failure is told, plainly and as JSON; gives the JSON."""

    def call(code: int, *arguments: object) -> dict[str, str]:
        told = detour(*arguments)
        assert (told.code, told.out) == (code, "")
        assert told.message.startswith("detour: ")
        assert "Traceback" not in told.err
        again = detour(*arguments, "--json")
        assert again.code == code
        assert set(again.json) == {"error", "expected", "found", "hint"}
        assert again.json["error"]
        assert one_line(again.json["error"]) in again.message
        return again.json

    return call


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where adapters of this test's user lie; an empty current folder beside it."""
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(library, "_STARTER", tmp_path / "nothing packaged")
    return tmp_path / "home" / "adapters"


@pytest.fixture(scope="session")
def tiny_base(tiny_folder: Path) -> Base:
    return Base.load(str(tiny_folder))


@pytest.fixture
def keep(
    shelf: Path, tiny_folder: Path, tiny_base: Base, random_adapter: Callable[..., Adapter]
) -> Callable[..., Adapter]:
    """`keep("formal", seed=1)` saves a random adapter for the tiny base on the shelf."""
    made_for = fingerprint_folder(tiny_folder, "tiny")
    shapes = {name: tiny_base.slots.shapes[name] for name in tiny_base.slots.linear_names()}

    def save(name: str, seed: int = 1, fictional: bool = False, **changes: Any) -> Adapter:
        adapter = random_adapter(shapes, seed=seed).with_(
            name=name, base=made_for, card=Card(fictional=fictional, description=f"about {name}")
        )
        replace(adapter, **changes).save(shelf / name)
        return Adapter.load(shelf / name)

    return save


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What a played wandb was told."""
    calls: list[Any] = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append((step, values)),
        summary=SimpleNamespace(update=lambda values: calls.append(values)),
        finish=lambda exit_code: calls.append(exit_code),
    )
    module = ModuleType("wandb")
    vars(module)["init"] = lambda **given: (calls.append(given), run)[1]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return calls


@pytest.fixture(scope="session")
def roomy_folder(make_model, tiny_tokenizer, tmp_path_factory):
    """A user's own tiny Llama, with room for long questions."""
    folder = tmp_path_factory.mktemp("roomy")
    make_model("llama", max_position_embeddings=1024, num_hidden_layers=1).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return folder
