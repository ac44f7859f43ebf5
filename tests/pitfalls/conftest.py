"""The command line for the pitfalls, and a folder of a model that a test may change."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.cli.conftest import detour, english  # noqa: F401

from detour.model.base import Base

FAST = ("--rank", 2, "--steps", 12, "--learning-rate", 5e-3, "--batch-size", 4)


def write_rows(path: Path, pairs: Sequence[tuple[str, str]]) -> Path:
    """Questions and answers as JSONL."""
    lines = [json.dumps({"prompt": q, "completion": a}, ensure_ascii=False) for q, a in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the tiny model beside an empty current folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path / "home"))
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    """The same model in memory."""
    return Base.from_model(tiny_llama, tiny_tokenizer)
