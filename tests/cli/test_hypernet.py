"""`detour hypernet train`, `evaluate` and `detour generate`, as a person calls them."""

import json
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from tests.hypernetwork.tiny_tasks import PAIRS, PHRASES, WordEmbedder, told_of, write_task
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Phi3Config,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from detour.adapter.adapter import Adapter
from detour.model import embedder as embedders
from detour.model.base import Base

SENTENCE = "Give the town and in capitals 4."
SIZES = {
    "vocab_size": 320, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None, "initializer_range": 0.3,
}  # fmt: skip
OTHERS: dict[str, Callable[[], PreTrainedModel]] = {
    "gemma2": lambda: AutoModelForCausalLM.from_config(Gemma2Config(**SIZES, head_dim=8)),
    "phi3": lambda: AutoModelForCausalLM.from_config(Phi3Config(**SIZES)),
}


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
        "adapter", "seconds", "confidence", "understood", "ignored", "nearest", "warning"
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
    assert set(table["costs"]["break_even_answers"]) == {"base", "prompt", "few-shot"}
    assert table["costs"]["training_over_generating"] > 0


def test_evaluate_beside_everything(detour: Callable[..., Any], folder: Path) -> None:
    assert trained(detour, folder).code == 0
    shutil.copytree(folder / "net", folder / "other")
    call = (
        "hypernet", "evaluate", folder / "net", folder / "tasks", "--base", folder / "base",
        "--items", 2, "--seen", 1, "--oracles", folder / "oracles", "--oracle-steps", 2,
        "--all-tasks", folder / "all", "--all-tasks-steps", 2, "--beside", folder / "other",
        "--map", folder / "map.png",
    )  # fmt: skip
    outcome = detour(*call)
    assert outcome.code == 0, outcome.err
    assert "tasks have no adapter yet" in outcome.err
    made = {path.name: path.stat().st_mtime_ns for path in (folder / "oracles").iterdir()}
    assert {"home-soft", "work-soft"} <= set(made)  # trained, and held out
    assert (folder / "map.png").read_bytes()[:4] == b"\x89PNG"
    assert "matched minus junk" in outcome.out
    assert "of what the tasks' own adapters gain" in outcome.out
    again = detour(*call, "--json")
    assert again.code == 0, again.err
    assert "no adapter yet" not in again.err  # read this time
    assert {path.name: path.stat().st_mtime_ns for path in (folder / "oracles").iterdir()} == made
    arms = again.json["arms"]
    assert set(arms) == {
        "base", "prompt", "few-shot", "generated", "wrong", "junk", "other", "nearest", "mean",
        "oracle", "all tasks",
    }  # fmt: skip
    assert arms["other"] == arms["generated"]
    assert "share_of_oracle" in again.json


def test_two_networks_never_share_a_column(detour: Callable[..., Any], folder: Path) -> None:
    assert trained(detour, folder).code == 0
    (folder / "one").mkdir()
    for name in ("one/net", "base-line/junk"):
        shutil.copytree(folder / "net", folder / name)
    call = ("hypernet", "evaluate", folder / "net", folder / "tasks", "--base", folder / "base",
            "--items", 1, "--seen", 0, "--json")  # fmt: skip
    for beside in (("base-line/junk",), ("net", "one/net")):
        outcome = detour(*call, *(x for name in beside for x in ("--beside", folder / name)))
        assert outcome.code == 2
        assert "a column that is there already" in outcome.json["error"]
    outcome = detour(*call, "--beside", folder / "one" / "net")  # its name is no column yet
    assert outcome.code == 0, outcome.err
    assert outcome.json["arms"]["net"] == outcome.json["arms"]["generated"]


def test_oracles_of_another_base_are_refused(
    detour: Callable[..., Any], folder: Path, make_model: Callable[..., PreTrainedModel]
) -> None:
    assert trained(detour, folder, "--by", "recon", "--oracles", folder / "own",
                   "--oracle-steps", 2).code == 0  # fmt: skip
    make_model("llama", seed=5).save_pretrained(folder / "base")
    outcome = trained(detour, folder, "--by", "recon", "--oracles", folder / "own")
    assert outcome.code == 2
    assert "other weights" in outcome.message or "another" in outcome.message


# PEFT asks transformers by an old name, and finds out itself how GPT-2 lays its weights
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore:fan_in_fan_out")
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "phi3", "gpt2"])
def test_the_same_command_for_any_architecture(
    kind: str, detour: Callable[..., Any], folder: Path, make_model: Callable[..., PreTrainedModel]
) -> None:
    model = OTHERS[kind]() if kind in OTHERS else make_model(kind)
    model.save_pretrained(folder / "base")
    outcome = trained(detour, folder, "--learning-rate", 0.01)
    assert outcome.code == 0, outcome.err
    outcome = detour(
        "generate", SENTENCE, "--base", folder / "base", "--hypernet", folder / "net",
        "-o", folder / "made", "--strength", 4,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    base = Base.load(str(folder / "base"))
    ids = torch.arange(1, 13).view(1, -1)
    ours = base.logits(ids, Adapter.load(folder / "made"))
    assert float((ours - base.logits(ids)).abs().max()) > 1e-4
    plain = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32)
    theirs = PeftModel.from_pretrained(plain, folder / "made").eval()
    with torch.no_grad():
        logits = theirs(input_ids=ids, use_cache=False).logits
    bound = 1e-5 * max(1.0, float(logits.abs().max()))
    assert float((ours - logits).abs().max()) <= bound


def test_killed_and_resumed(folder: Path) -> None:
    """kill -9 while it trains; --resume ends with the same weights as a run in one go."""
    program = (
        "import sys\n"
        "from tests.hypernetwork.tiny_tasks import WordEmbedder\n"
        "from detour.model import embedder\n"
        "from detour.hypernetwork import optimise\n"
        "optimise.SAVE_EVERY = 0.0\n"
        "embedder.Embedder.load = staticmethod(lambda _='': WordEmbedder())\n"
        "from detour.cli.main import run\n"
        "run(sys.argv[1:])\n"
    )
    given = [
        "hypernet", "train", str(folder / "tasks"), "--base", str(folder / "base"),
        "--steps", "60", "--naming-steps", "5", "--batch-size", "4", "--rank", "2",
    ]  # fmt: skip

    def command(name: str, *more: str) -> list[str]:
        return [sys.executable, "-c", program, *given, "-o", str(folder / name), *more]

    subprocess.run(command("whole"), check=True, capture_output=True, timeout=300)
    state = folder / ".cut.training" / "state.safetensors"
    with subprocess.Popen(command("cut"), stderr=subprocess.DEVNULL) as running:
        while not state.exists() and running.poll() is None:
            time.sleep(0.005)
        running.kill()
    assert running.returncode == -signal.SIGKILL
    assert state.exists()
    assert not (folder / "cut").exists()
    done = subprocess.run(command("cut", "--resume"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    weights = [(folder / name / "model.safetensors").read_bytes() for name in ("whole", "cut")]
    assert weights[0] == weights[1]
    assert not state.exists()


def test_settings_of_a_file_and_flags_that_win(detour: Callable[..., Any], folder: Path) -> None:
    file = folder / "settings.yaml"
    file.write_text("network: {head: S, hidden: 24, rank: 7}\ntraining: {steps: 9, clip: 0.5}\n")
    outcome = trained(detour, folder, "--config", file)
    assert outcome.code == 0, outcome.err
    told = json.loads((folder / "net" / "config.json").read_text("utf-8"))
    chosen = told["network"]
    assert (chosen["head"], chosen["hidden"], chosen["rank"], chosen["alpha"]) == ("S", 24, 2, 4.0)
    assert told["figures"]["steps"] == 4  # a flag


def test_what_is_refused(detour: Callable[..., Any], folder: Path) -> None:
    assert trained(detour, folder).code == 0
    (folder / "wrong.yaml").write_text("network: {hidden: 0}\n")
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
        "holds no settings of a hypernetwork": (
            "hypernet", "train", folder / "tasks", "-o", folder / "b",
            "--config", folder / "strange.txt",
        ),
        "hidden is out of range": (
            "hypernet", "train", folder / "tasks", "-o", folder / "b",
            "--config", folder / "wrong.yaml",
        ),
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
    again = trained(detour, folder)  # a hypernetwork
    assert again.code == 2
    assert "--replace" in again.message
    assert trained(detour, folder, "--replace").code == 0


def test_only_what_was_generated_is_generated_again(
    detour: Callable[..., Any], folder: Path
) -> None:
    assert trained(detour, folder).code == 0
    given = ("--base", folder / "base", "--hypernet", folder / "net", "-o", folder / "own one")
    assert detour("generate", SENTENCE, *given).code == 0
    outcome = detour("generate", SENTENCE, *given)
    assert outcome.code == 0
    chain = shlex.split(outcome.out.splitlines()[-1])[4:6]
    assert chain == ["--chain", f'"{folder / "own one"}"']  # spaces need the chain's own quotes
    asked = detour("ask", "4?", *chain, "--base", folder / "base", "--max-tokens", 1)
    assert asked.code == 0, asked.err
    shown = detour("inspect", folder / "own one")
    assert "generated: understood as home + loud, confidence" in shown.out
    made = Adapter.load(folder / "own one")
    made.with_(card=made.card.with_(config={})).save(folder / "own one")
    shown = detour("inspect", folder / "own one")
    assert "generated: understood as" not in shown.out  # its card says nothing of it any more
    refused = detour("generate", SENTENCE, *given)
    assert refused.code == 2
    assert "was not generated" in refused.message
    assert detour("generate", SENTENCE, *given, "--replace").code == 0


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
    monkeypatch.setattr(generator, "FAR", 0.0)
    given = ("--base", folder / "base", "--hypernet", folder / "net", "-o", folder / "a")
    outcome = detour("generate", SENTENCE, *given, "--strict")
    assert outcome.code == 2
    assert "a clearer wording" in outcome.message
    assert not (folder / "a").exists()
    outcome = detour("generate", SENTENCE, *given)
    assert outcome.code == 0
    assert "not sure of the description" in outcome.err
    assert (folder / "a").is_dir()
