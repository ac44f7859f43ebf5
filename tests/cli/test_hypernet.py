"""`detour hypernet train`, `evaluate` and `detour generate`, as a person calls them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.hypernetwork.tiny_tasks import PAIRS, PHRASES, WordEmbedder, told_of, write_task
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.adapter.adapter import Adapter
from detour.model import embedder as embedders

SENTENCE = "Give the town and in capitals 4."


@pytest.fixture(autouse=True)
def read_by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedders.Embedder, "load", staticmethod(lambda _name="": WordEmbedder()))


@pytest.fixture
def folder(
    tmp_path: Path,
    make_model: Callable[..., PreTrainedModel],
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> Path:
    """A base, and tasks beside it."""
    make_model("llama").save_pretrained(tmp_path / "base")
    tiny_tokenizer.save_pretrained(tmp_path / "base")
    for name in PHRASES:
        write_task(tmp_path / "tasks", name, told_of((name,), "train", marked=True))
    for pair, split in zip(PAIRS, ("train", "train", "validation", "test"), strict=True):
        write_task(tmp_path / "tasks", "-".join(pair), told_of(pair, split, marked=True))
    (tmp_path / "strange.txt").write_text("What is the time?\n\nWater the plants.\n")
    return tmp_path


def trained(detour: Callable[..., Any], folder: Path, *more: object) -> Any:
    return detour(
        "hypernet", "train", folder / "tasks", "--base", folder / "base", "-o", folder / "net",
        "--steps", 4, "--naming-steps", 20, "--batch-size", 4, "--rank", 2,
        "--unsupported", folder / "strange.txt", "--json", *more,
    )  # fmt: skip


@pytest.mark.parametrize("more", [(), ("--by", "recon", "--oracle-steps", 3, "--head", "M")])
def test_train_generate_evaluate(
    more: tuple[object, ...], detour: Callable[..., Any], folder: Path
) -> None:
    outcome = trained(detour, folder, *more)
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert told["tasks"] == {"train": 6, "validation": 1, "test": 1}
    assert told["by"] == (more[1] if more else "sft")
    assert ("mean_adapter_error" in told) is bool(more)
    assert not (folder / ".net.training").exists()

    given = ("--base", folder / "base", "--hypernet", folder / "net")
    made = detour("generate", SENTENCE, *given, "-o", folder / "made", "--json").json
    assert set(made) == {
        "adapter", "seconds", "confidence", "understood", "nearest", "warning"
    }  # fmt: skip
    assert 0 <= made["confidence"] <= 1
    assert {"description", "similarity"} <= set(made["nearest"][0])
    adapter = Adapter.load(folder / "made")
    assert adapter.card.description == SENTENCE
    assert adapter.card.config["hypernetwork_sha256"]

    outcome = detour(
        "hypernet", "evaluate", folder / "net", folder / "tasks", "--base", folder / "base",
        "--items", 2, "--seen", 2, "--json",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    table = outcome.json
    assert set(table["arms"]) == {"base", "prompt", "few-shot", "generated", "wrong", "junk"}
    splits = table["arms"]["generated"]
    assert "held-out tasks of 2: new frames" in splits
    assert all(set(s) == {"exact_match", "low", "high", "n"} for s in splits.values())
    for key in ("matched_minus_wrong", "matched_minus_junk"):
        assert {"value", "low", "high"} <= set(table[key])
    assert table["milliseconds_per_adapter"] > 0


def test_evaluate_with_oracles(detour: Callable[..., Any], folder: Path) -> None:
    assert trained(detour, folder).code == 0
    call = (
        "hypernet", "evaluate", folder / "net", folder / "tasks", "--base", folder / "base",
        "--items", 1, "--seen", 1, "--oracles", folder / "oracles",
    )  # fmt: skip
    given = ("--base", folder / "base", "--hypernet", folder / "net")
    assert detour("generate", SENTENCE, *given, "-o", folder / "made").code == 0
    for task in (folder / "tasks").iterdir():
        shutil.copytree(folder / "made", folder / "oracles" / task.name)
    outcome = detour(*call)
    assert outcome.code == 0, outcome.err
    head = outcome.out.splitlines()[0].split()
    assert head[-4:] == ["nearest", "mean", "oracle", "n"]
    assert "matched minus junk" in outcome.out
    shutil.rmtree(folder / "oracles" / "work-soft")
    assert "lacks adapters of tasks" in detour(*call).err
    shutil.rmtree(folder / "oracles")
    assert "holds no adapter of any task" in detour(*call).err


def test_what_is_refused(detour: Callable[..., Any], folder: Path) -> None:
    assert trained(detour, folder).code == 0
    given = ("--base", folder / "base", "--hypernet", folder / "net")
    cases = {
        "is empty": ("generate", " ", *given, "-o", folder / "a"),
        "--strength is out of range": (
            "generate", SENTENCE, *given, "-o", folder / "a", "--strength", "0",
        ),
        "nothing in the description": ("generate", "Say 4.", *given, "-o", folder / "a"),
        "no hypernetwork ships": (
            "generate", SENTENCE, "--base", folder / "base", "-o", folder / "a",
        ),
        "was not trained for this base": (
            "generate", SENTENCE, "--hypernet", folder / "net", "-o", folder / "a",
        ),
        "holds no hypernetwork": (
            "generate", SENTENCE, "--base", folder / "base", "--hypernet", folder,
            "-o", folder / "a",
        ),
        "holds no interrupted run": (
            "hypernet", "train", folder / "tasks", "--base", folder / "base",
            "-o", folder / "b", "--resume",
        ),
        "--rank is out of range": (
            "hypernet", "train", folder / "tasks", "-o", folder / "b", "--rank", "-1",
        ),
        "--steps is out of range": (
            "hypernet", "train", folder / "tasks", "-o", folder / "b", "--steps", "0",
        ),
        "is no folder": ("hypernet", "train", folder / "none", "-o", folder / "b"),
    }  # fmt: skip
    for said, call in cases.items():
        outcome = detour(*call)
        assert outcome.code == 2, said
        assert said in outcome.message
    assert not (folder / "a").exists()


def test_nothing_else_is_ever_replaced(detour: Callable[..., Any], folder: Path) -> None:
    call = ("hypernet", "train", folder / "tasks", "--base", folder / "base", "-o")
    for target in (folder / "tasks", folder / "base", folder / "strange.txt"):
        outcome = detour(*call, target)
        assert outcome.code == 2
        assert "is no hypernetwork" in outcome.message
    assert (folder / "tasks" / "home" / "task.yaml").exists()
    (folder / "net").mkdir()
    assert trained(detour, folder).code == 0  # an empty folder
    assert trained(detour, folder).code == 0  # a hypernetwork


def test_spans_need_marks(detour: Callable[..., Any], folder: Path) -> None:
    shutil.rmtree(folder / "tasks")
    for number in range(12):
        texts = [f"Do thing {number} {way}" for way in ("now", "please", "soon")]
        write_task(folder / "tasks", f"t{number}", {"descriptions": texts})
    outcome = trained(detour, folder, "--encoder", "spans")
    assert outcome.code == 2
    assert "phrases are marked" in outcome.err
    assert trained(detour, folder).code == 0  # tokens are read then


def test_low_confidence_warns_and_strict_refuses(
    detour: Callable[..., Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from detour.hypernetwork import generator

    assert trained(detour, folder).code == 0
    monkeypatch.setattr(generator, "SURE", 1.1)
    given = ("--base", folder / "base", "--hypernet", folder / "net", "-o", folder / "a")
    outcome = detour("generate", SENTENCE, *given, "--strict")
    assert outcome.code == 2
    assert "a clearer wording" in outcome.message
    assert not (folder / "a").exists()
    outcome = detour("generate", SENTENCE, *given)
    assert outcome.code == 0
    assert "not sure of the description" in outcome.err
    assert (folder / "a").is_dir()
