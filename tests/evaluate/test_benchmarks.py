"""Benchmarks of the lm-eval harness: found, loaded, refused; figures of tasks and of groups."""

import os
from collections.abc import Callable
from math import sqrt
from pathlib import Path

import pytest
from lm_eval.tasks import TaskManager
from tests.evaluate import tiny_benchmarks

from detour.adapter.adapter import Adapter
from detour.errors import BaseError, ConfigError, DataError, RequestError
from detour.evaluate.benchmarks import load_benchmarks, names_of, run_benchmarks
from detour.evaluate.harness import HarnessModel
from detour.evaluate.t2l_ten import TEN
from detour.measure.statistics import mean, rate
from detour.model.base import Base

ANSWERS = ("a shop", "nobody", "Ulm", "a shop", "hair", "who", "Köln", "Ulm", "x", "y")


@pytest.fixture
def base(tiny_folder: Path) -> Base:
    return Base.load(str(tiny_folder))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tiny_benchmarks.write(tmp_path / "tasks", ANSWERS)


def test_names() -> None:
    ten = [benchmark.name for benchmark in TEN]
    assert names_of("lm-eval:piqa, mmlu,piqa") == ("piqa", "mmlu")
    assert list(names_of("lm-eval:t2l-ten")) == ten
    assert list(names_of("lm-eval:tiny,t2l-ten,boolq")) == ["tiny", *ten]
    for suite in ("piqa", "lm-eval:", "lm-eval:,", "t2l-ten"):
        with pytest.raises(ConfigError, match="--suite names no benchmark"):
            names_of(suite)


def test_shares_have_wilsons_interval_and_means_students(base: Base, folder: Path) -> None:
    (folder / "scoring.py").write_text(
        "def length(doc, results):\n    return {'length': len(doc['answer']) / 2}\n"
    )
    definition = tiny_benchmarks.DEFINITIONS["choice"].replace("tiny_choice", "lengths")
    scored = "process_results: !function scoring.length\nmetric_list: [{metric: length, "
    (folder / "lengths.yaml").write_text(
        definition.partition("metric_list")[0].replace("tag: tiny\n", "")
        + scored + "aggregation: mean, higher_is_better: true}]\n"
    )  # fmt: skip
    loaded = load_benchmarks(["tiny_choice", "lengths"], folder)
    figures = run_benchmarks(base, loaded)["base"]
    assert figures["lengths/length"] == mean([len(answer) / 2 for answer in ANSWERS])
    hits = round(figures["tiny_choice/acc"].value * 10)
    assert figures["tiny_choice/acc"] == rate([True] * hits + [False] * (10 - hits))


def test_a_tag_is_several_benchmarks_and_a_chain_of_nothing_is_the_base(
    base: Base, folder: Path
) -> None:
    loaded = load_benchmarks(["tiny"], folder)
    assert set(loaded.tasks) == {"tiny_choice", "tiny_writing"}
    assert list(run_benchmarks(base, loaded, limit=2)) == ["base"]


@pytest.mark.parametrize("sized", [True, False])
def test_a_group_is_the_mean_of_its_members(base: Base, folder: Path, sized: bool) -> None:
    tiny_benchmarks.grouped(folder, sized)
    figures = run_benchmarks(base, load_benchmarks(["both"], folder))["base"]
    one, other, both = (figures[f"{n}/acc"] for n in ("tiny_choice", "tiny_fewer", "both"))
    assert (one.n, other.n, both.n) == (10, 4, 14)
    share = 10 / 14 if sized else 0.5
    assert one.value != other.value
    assert both.value == pytest.approx(share * one.value + (1 - share) * other.value)
    half = [(figure.high - figure.low) / 2 for figure in (one, other)]
    wide = sqrt((share * half[0]) ** 2 + ((1 - share) * half[1]) ** 2)
    assert both.high == pytest.approx(both.value + wide)
    assert both.low == pytest.approx(max(both.value - wide, min(one.low, other.low)))


def heard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every context of a likelihood that is asked for."""
    contexts: list[str] = []
    plain = HarnessModel.loglikelihood

    def listen(self: HarnessModel, requests: list, disable_tqdm: bool = True) -> list:
        contexts.extend(request.args[0] for request in requests)
        return plain(self, requests, disable_tqdm)

    monkeypatch.setattr(HarnessModel, "loglikelihood", listen)
    return contexts


def test_worked_examples_are_the_same_for_every_arm(
    base: Base,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    random_adapter: Callable[..., Adapter],
) -> None:
    contexts = heard(monkeypatch)
    adapter = random_adapter(base.slots.shapes, strength=0.3)
    loaded = load_benchmarks(["tiny_choice"], folder, shots=2)
    assert set(run_benchmarks(base, loaded, adapter, limit=3)) == {"base", "chain"}
    first, second = contexts[:12], contexts[12:]
    assert first == second
    assert {context.count("Question:") for context in first} == {3}


def test_who_is_defined_without_examples_keeps_to_that(
    base: Base, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contexts, notes = heard(monkeypatch), list[str]()
    (folder / "choice.yaml").write_text(tiny_benchmarks.DEFINITIONS["choice"] + "num_fewshot: 0\n")
    loaded = load_benchmarks(["tiny_choice"], folder, shots=2, teller=notes.append)
    run_benchmarks(base, loaded, limit=2)
    assert {context.count("Question:") for context in contexts} == {1}
    assert notes == ["tiny_choice is defined without examples and stays so"]
    with pytest.raises(ConfigError, match="too few rows"):
        load_benchmarks(["tiny_writing"], folder, shots=11)


def test_conversations(
    base: Base, folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_llama, make_tokenizer
) -> None:
    contexts = heard(monkeypatch)
    loaded = load_benchmarks(["tiny_choice"], folder)
    run_benchmarks(base, loaded, limit=2, chat_template=True)
    assert contexts[0].startswith("<|im_start|>user\nQuestion: Which")
    without = Base.from_model(tiny_llama, make_tokenizer(template=None))
    with pytest.raises(BaseError, match="no chat template"):
        run_benchmarks(without, loaded, chat_template=True)


def test_files_are_looked_for_from_the_folder_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert load_benchmarks(["tiny_choice"], Path("tasks")).loaded
    assert Path.cwd() == folder.parent
    (folder / "rows.jsonl").rename(folder / "other.jsonl")
    with pytest.raises(DataError, match="the data of tiny_choice, tiny_last is not at h") as caught:
        load_benchmarks(["tiny_choice", "tiny_last"], Path("tasks"))
    assert "rows.jsonl" in caught.value.found
    assert str(folder) in caught.value.expected
    assert Path.cwd() == folder.parent


def test_definitions_with_faults(base: Base, folder: Path) -> None:
    choice = tiny_benchmarks.DEFINITIONS["choice"]
    (folder / "bad.yaml").write_text(
        choice.replace("tiny_choice", "bad").replace("output_type: multiple_choice",
                                                     "output_type: dance")
    )  # fmt: skip
    with pytest.raises(DataError, match="cannot use the definition or the data of bad") as caught:
        load_benchmarks(["tiny_choice", "bad"], folder)
    assert "dance" in caught.value.found
    (folder / "rows.jsonl").write_text('{"question": "x"\n')
    with pytest.raises(DataError, match="cannot use the definition or the data of tiny_choice"):
        load_benchmarks(["tiny_choice"], folder)


def test_a_fault_that_shows_late_is_told(base: Base, folder: Path) -> None:
    (folder / "scoring.py").write_text("def fail(doc, results):\n    return doc['nothing']\n")
    (folder / "late.yaml").write_text(
        tiny_benchmarks.DEFINITIONS["choice"].replace("tiny_choice", "late")
        + "process_results: !function scoring.fail\n"
    )
    with pytest.raises(DataError, match="the harness fails on late") as caught:
        run_benchmarks(base, load_benchmarks(["late"], folder), limit=1)
    assert "nothing" in caught.value.found


def test_unknown_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TaskManager.__init__

    def near_only(self: TaskManager, **given: object) -> None:  # all definitions take seconds
        plain(self, **{**given, "include_defaults": False})

    monkeypatch.setattr(TaskManager, "__init__", near_only)
    with pytest.raises(ConfigError, match="the harness knows no benchmark tiny_choise") as caught:
        load_benchmarks(["tiny_choise"], folder)
    assert caught.value.expected.startswith("tiny_choice")
    (folder / "broken.yaml").write_text("task: x\nrows: [a,\n  b: {\n")
    with pytest.raises(DataError, match=r"broken\.yaml:\d+ is not YAML"):
        load_benchmarks(["x"], folder)


def test_programs_run_only_where_that_is_permitted(
    base: Base, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    (folder / "scoring.py").write_text(
        "import os\n\n\ndef allowed(references, predictions):\n"
        "    return float(os.environ.get('HF_ALLOW_CODE_EVAL') == '1')\n"
    )
    (folder / "program.yaml").write_text(
        tiny_benchmarks.DEFINITIONS["writing"].partition("metric_list")[0]
        .replace("tiny_writing", "program") + "unsafe_code: true\n"
        "metric_list: [{metric: !function scoring.allowed, aggregation: mean, "
        "higher_is_better: true}]\n"
    )  # fmt: skip
    notes: list[str] = []
    some = load_benchmarks(["program", "tiny_choice", "mbpp"], folder, teller=notes.append)
    assert list(some.loaded) == ["tiny_choice"]
    assert set(some.skipped) == {"program", "mbpp"}
    assert all("--allow-code-execution" in note for note in notes)
    with pytest.raises(ConfigError, match="every benchmark asked for runs what the model writes"):
        load_benchmarks(["program", "mbpp"], folder)
    figures = run_benchmarks(base, load_benchmarks(["program"], folder, allow_code=True), limit=2)
    assert figures["base"]["program/allowed"] == rate([True, True])
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_answers_must_fit_the_context(base: Base, folder: Path) -> None:
    definition = tiny_benchmarks.DEFINITIONS["writing"]
    (folder / "writing.yaml").write_text(definition.replace("toks: 24", "toks: 128"))
    with pytest.raises(RequestError, match=r"tiny_writing: .*longer than the base's context"):
        run_benchmarks(base, load_benchmarks(["tiny_choice", "tiny_writing"], folder))
