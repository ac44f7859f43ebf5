"""`detour evaluate --suite`: figures are those that the harness's own model gets."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lm_eval.evaluator import evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from tests.evaluate import tiny_benchmarks
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.adapter.adapter import Adapter
from detour.model.base import Base

METRICS = {
    "tiny_choice/acc", "tiny_choice/acc_norm", "tiny_choice/mcc",
    "tiny_writing/exact_match,whole", "tiny_writing/bleu,whole", "tiny_writing/chrf,whole",
    "tiny_writing/exact_match,first", "tiny_writing/bleu,first", "tiny_writing/chrf,first",
    "tiny_whole/byte_perplexity", "tiny_whole/bits_per_byte",
    "tiny_last/perplexity", "tiny_last/acc",
}  # fmt: skip


@pytest.fixture
def tasks(tmp_path: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where every second item wants what the base says."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    from lm_eval.api.instance import Instance

    from detour.evaluate.harness import HarnessModel

    asked = [
        Instance("generate_until", {}, (f"Which is number {n}?", {"until": ["\n\n"],
                                                                  "max_gen_toks": 24}), n)
        for n in range(9)
    ]  # fmt: skip
    said = HarnessModel(tiny_base).generate_until(asked)
    answers = [one if n % 2 else f"Nobody said {n}." for n, one in enumerate(said)]
    return tiny_benchmarks.write(tmp_path / "tasks", answers)


def by_their_own_model(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast
) -> dict[str, dict[str, Any]]:
    """What the harness reports of its own model, files found from the folder on."""
    theirs = HFLM(
        pretrained=model, tokenizer=tokenizer, backend="causal", device="cpu", batch_size=4,
        logits_cache=False,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        manager = TaskManager(include_path=folder, include_defaults=False)
        loaded = manager.load(list(tiny_benchmarks.NAMES))
    told = evaluate(theirs, loaded, bootstrap_iters=0)
    assert told is not None
    return told["results"]


def test_figures_are_those_of_the_harness_own_model(
    detour: Callable[..., Any],
    keep: Callable[..., Adapter],
    tasks: Path,
    tiny_folder: Path,
    tiny_llama: PreTrainedModel,
    tiny_tokenizer: PreTrainedTokenizerFast,
) -> None:
    keep("strange")
    asked = "lm-eval:" + ",".join(tiny_benchmarks.NAMES)
    given = ("evaluate", "--suite", asked, "--tasks-folder", tasks, "--base", tiny_folder)
    told = detour(*given, "--chain", "strange", "--json").json
    assert (told["kind"], told["suite"], told["skipped"]) == ("suite", asked, {})
    assert told["benchmarks"] == list(tiny_benchmarks.NAMES)
    assert set(told["metrics"]) == {"base", "chain"}
    base, chain = told["metrics"]["base"], told["metrics"]["chain"]
    assert set(base) == set(chain) == METRICS
    theirs = by_their_own_model(tasks, copy.deepcopy(tiny_llama), tiny_tokenizer)
    for key, figure in base.items():
        task, _, metric = key.partition("/")
        wanted = theirs[task][metric if "," in metric else f"{metric},none"]
        assert figure["value"] == pytest.approx(wanted, rel=1e-5, abs=1e-5), key
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["n"] == 9
    assert 0 < base["tiny_writing/exact_match,whole"]["value"] < 1
    assert 0 < base["tiny_choice/acc"]["value"] < 1
    changed = {key for key in METRICS if chain[key]["value"] != base[key]["value"]}
    assert {key.partition("/")[0] for key in changed} == set(tiny_benchmarks.NAMES)


def test_without_a_chain_as_a_table(
    detour: Callable[..., Any], tasks: Path, tiny_folder: Path
) -> None:
    outcome = detour(
        "evaluate", "--suite", "lm-eval:tiny_choice", "--tasks-folder", tasks, "--limit", 4,
        "--base", tiny_folder,
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["metric", "base"]
    assert [line.split()[0] for line in lines[1:]] == [
        "tiny_choice/acc", "tiny_choice/mcc", "tiny_choice/acc_norm"
    ]  # fmt: skip
    assert "tiny_choice, base: items judged: 4" in outcome.err


def test_mistakes(
    detour: Callable[..., Any],
    fails: Callable[..., dict[str, str]],
    tasks: Path,
    tiny_folder: Path,
    tmp_path: Path,
) -> None:
    here = ("--tasks-folder", tasks, "--base", tiny_folder)
    suite = ("evaluate", "--suite", "lm-eval:tiny_choice")
    cases: dict[str, tuple[object, ...]] = {
        "nothing to measure on is given": ("evaluate",),
        "DATA does not go with --suite": (*suite, "rows.jsonl"),
        "--split does not go with --suite": (*suite, "--split", "test"),
        "--limit goes with --suite only": ("evaluate", "rows.jsonl", "--limit", 3),
        "--tasks-folder goes with --suite only": ("evaluate", "rows.jsonl", *here),
        "--suite names no benchmark": ("evaluate", "--suite", "t2l-ten"),
        "no benchmark": ("evaluate", "--suite", "lm-eval: ,"),
        "does not exist": (*suite, "--tasks-folder", tmp_path / "nowhere"),
    }
    for said, call in cases.items():
        assert said in fails(2, *call)["error"], call
    outcome = detour(*suite, *here, "--shots", 10)  # the data are read by then, with a bar
    assert outcome.code == 2
    assert "too few rows for that many examples; expected at most 9" in outcome.err


def test_the_ten_are_named_where_their_data_are_missing(
    fails: Callable[..., dict[str, str]], tiny_folder: Path
) -> None:
    told = fails(2, "evaluate", "--suite", "lm-eval:t2l-ten", "--base", tiny_folder)
    for name in ("arc_challenge", "arc_easy", "boolq", "gsm8k", "hellaswag", "openbookqa", "piqa",
                 "winogrande"):  # fmt: skip
        assert name in told["error"]
    assert "HF_HOME" in told["hint"]


def test_a_harness_that_is_not_installed_is_told(
    fails: Callable[..., dict[str, str]], tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    told = fails(2, "evaluate", "--suite", "lm-eval:piqa", "--base", tiny_folder)
    assert "lm_eval" in told["error"]
    assert told["hint"] == 'pip install "detour-lora[evaluate]"'
