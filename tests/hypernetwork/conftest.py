"""A text encoder made of nothing, tiny tasks, and a base to train on."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.hypernetwork.tiny_tasks import PAIRS, PHRASES, WordEmbedder, told_of, write_task
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from detour.hypernetwork.tasks import Tasks, read_tasks
from detour.model import embedder as embedders
from detour.model.base import Base


@pytest.fixture
def words() -> WordEmbedder:
    return WordEmbedder()


@pytest.fixture
def read_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever loads a text encoder gets the one made of nothing."""
    monkeypatch.setattr(embedders.Embedder, "load", staticmethod(lambda _name="": WordEmbedder()))


@pytest.fixture
def task_folder(tmp_path: Path) -> Callable[..., Path]:
    """`task_folder(marked=True)`: nine tasks, one held out for test and one for validation."""

    def make(marked: bool = True) -> Path:
        folder = tmp_path / "tasks"
        for name in PHRASES:
            write_task(folder, name, told_of((name,), "train", marked))
        for number, pair in enumerate(PAIRS):
            split = ("train", "train", "validation", "test")[number]
            write_task(folder, "-".join(pair), told_of(pair, split, marked))
        return folder

    return make


@pytest.fixture
def tasks(task_folder: Callable[..., Path]) -> Tasks:
    return read_tasks(task_folder())


@pytest.fixture
def base(tiny_llama: LlamaForCausalLM, tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)
