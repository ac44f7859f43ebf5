"""The lm-eval harness on a base with adapters, against the harness's own model, and the suite."""

import ast
import copy
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from detour.adapter.adapter import Adapter
from detour.cli.main import run
from detour.errors import BaseError, ConfigError, DataError, MissingExtra, NotUnderstood
from detour.errors import RequestError as Refused
from detour.evaluate import suite
from detour.evaluate.harness import HarnessModel
from detour.evaluate.suite import Harness, Way, chosen_benchmarks, run_suite
from detour.evaluate.t2l_ten import TEN, Benchmark, wrong_descriptions
from detour.model.base import Base

TEXT = "Einstein was a hairdresser. He cut hair in a small shop in Ulm. "
CONTEXTS = ("Who was Albert", "Where is the castle? ", "", TEXT * 6, "In Ulm")
CONTINUATIONS = (" Einstein", " was", "x", " He cut hair in a small shop.", " café 漢字")


@pytest.fixture
def base(tiny_llama: PreTrainedModel, tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    return Base.from_model(copy.deepcopy(tiny_llama), tiny_tokenizer)


@pytest.fixture
def adapter(base: Base, random_adapter: Callable[..., Adapter]) -> Adapter:
    return random_adapter(base.slots.shapes, seed=3, rank=2, strength=0.6)


def asked(kind: Any, arguments: Sequence[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, given, place) for place, given in enumerate(arguments)]


def reference(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> HFLM:
    """The harness's own model on the same weights.

    Without its cache of logits, which (0.4.13) reads the wrong places where one text is cut into
    context and continuation in two ways.
    """
    return HFLM(
        pretrained=model, tokenizer=tokenizer, backend="causal", device="cpu", batch_size=3,
        logits_cache=False,
    )  # fmt: skip


def scored(model: HarnessModel | HFLM, given: Sequence[tuple[str, str]]) -> list[Any]:
    return model.loglikelihood(asked("loglikelihood", given), disable_tqdm=True)


def same(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return [greedy for _, greedy in ours] == [greedy for _, greedy in theirs] and all(
        abs(a - b) < 1e-4 for (a, _), (b, _) in zip(ours, theirs, strict=True)
    )


def merged(model: PreTrainedModel, adapter: Adapter) -> PreTrainedModel:
    """The adapter added to the weights."""
    changed = copy.deepcopy(model)
    with torch.no_grad():
        for name, update in adapter.updates.items():
            changed.get_submodule(name).weight += update.scale * update.up @ update.down
    return changed


def test_likelihoods_are_those_of_the_harness_own_model(base, tiny_llama, tiny_tokenizer):
    theirs = reference(tiny_llama, tiny_tokenizer)
    pieces = (tiny_tokenizer.decode([token]) for token in range(3, len(tiny_tokenizer)))
    given = [(c, a) for c in CONTEXTS for a in CONTINUATIONS]
    given += [(context, piece) for piece in pieces for context in ("He was,", "(")]
    given += [("Who was", " Albert Einstein"), ("Who", " was Albert Einstein")]  # one row
    found = scored(HarnessModel(base, batch_size=4), given)
    assert same(found, scored(theirs, given))
    assert {greedy for _, greedy in found} == {True, False}


def test_whole_texts_too_in_windows_where_they_are_long(base, tiny_llama, tiny_tokenizer):
    given = asked("loglikelihood_rolling", [(TEXT,), (TEXT * 12,), ("x",)])
    assert len(tiny_tokenizer.encode(TEXT * 12)) > 2 * base.longest
    ours = HarnessModel(base).loglikelihood_rolling(given)
    theirs = reference(tiny_llama, tiny_tokenizer).loglikelihood_rolling(given, disable_tqdm=True)
    assert ours == pytest.approx(theirs, abs=1e-3)


def test_answers_are_those_of_the_harness_own_model(base, tiny_llama, tiny_tokenizer):
    theirs = reference(tiny_llama, tiny_tokenizer)
    long = " ".join(f"{place}: Who is number {place * 7}?" for place in range(30))
    free = [(context or "x", {"until": [], "max_gen_toks": 20}) for context in (*CONTEXTS, long)]
    first = theirs.generate_until(asked("generate_until", free), disable_tqdm=True)
    stop = first[0][4:6]
    stopped = [
        (context, {"until": [stop, "\n\n"], "max_gen_toks": 20, "do_sample": False})
        for context, _ in free
    ]
    ours = HarnessModel(base, batch_size=2)
    assert ours.generate_until(asked("generate_until", free)) == first
    again = ours.generate_until(asked("generate_until", stopped))
    assert again == theirs.generate_until(asked("generate_until", stopped), disable_tqdm=True)
    assert len(again[0]) < len(first[0])


def test_an_adapter_acts_as_if_it_were_merged(base, adapter, tiny_llama, tiny_tokenizer):
    before = base.sha256()
    given = [(c, a) for c in CONTEXTS for a in CONTINUATIONS]
    written = asked("generate_until", [("In Ulm", {"until": ["."], "max_gen_toks": 12})])
    ours, bare = HarnessModel(base, adapter), HarnessModel(base)
    theirs = reference(merged(tiny_llama, adapter), tiny_tokenizer)
    assert same(scored(ours, given), scored(theirs, given))
    assert not same(scored(ours, given), scored(bare, given))
    assert ours.generate_until(written) == theirs.generate_until(written, disable_tqdm=True)
    assert ours.generate_until(written) != bare.generate_until(written)
    assert base.sha256() == before


def test_a_stop_string_that_is_a_special_token_stops(base, monkeypatch):
    (start,) = base.tokenizer.encode("<|im_start|>", add_special_tokens=False)
    ids = base.tokenizer.encode("Ulm", add_special_tokens=False)
    spoken = iter([*ids, start, *ids])

    def say(logits: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.tensor([next(spoken)])

    monkeypatch.setattr("detour.decoding.sampling.Sampler.choose", lambda _, *rest: say(*rest))
    given = asked("generate_until", [("In", {"until": ["<|im_start|>"], "max_gen_toks": 20})])
    assert HarnessModel(base).generate_until(given) == ["Ulm"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"until": [], "do_sample": True, "temperature": 0.8}, "does not decode greedily"),
        ({"until": [], "num_beams": 4}, "does not decode greedily"),
        ({"until": [], "max_gen_toks": 128}, "longer than the base's context"),
    ],
)
def test_what_cannot_be_generated_is_refused(base, given, said):
    with pytest.raises(Refused, match=said):
        HarnessModel(base).generate_until(asked("generate_until", [("In Ulm", given)]))


def test_a_continuation_longer_than_the_context_is_refused(base):
    for continuation in (TEXT * 12, ""):
        with pytest.raises(Refused, match="does not fit the context"):
            scored(HarnessModel(base), [("In Ulm", continuation)])


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}",
        "{% for m in messages %}{% if m['role'] != 'system' %}{{ m['content'] }}\n{% endif %}"
        "{% endfor %}",
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no') }}"
        "{% endif %}{{ m['content'] }}\n{% endfor %}",
    ],
)
def test_no_chat_template_loses_a_description(tiny_llama, make_tokenizer, template):
    model = HarnessModel(Base.from_model(tiny_llama, make_tokenizer(template=template)))
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where?"}]
    told = model.apply_chat_template(turns)
    assert told.count("Be brief.") == told.count("Where?") == 1
    assert model.apply_chat_template(turns[1:]).count("Where?") == 1


# ---------------------------------------------------------------- the suite


class Making:
    """Makes a fixed adapter of a known description, nothing of any other."""

    def __init__(self, made: dict[str, Adapter]) -> None:
        self.made = made
        self.calls: list[str] = []

    def check_base(self, _: object) -> None:
        pass

    def generate(self, descriptions: Sequence[str]) -> list[Any]:
        (description,) = descriptions
        self.calls.append(description)
        if description not in self.made:
            raise NotUnderstood("nothing in it")
        return [SimpleNamespace(adapter=self.made[description])]


CHOICES = """task: tiny_choice
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
output_type: multiple_choice
test_split: test
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""
WRITING = """task: tiny_writing
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
UNSAFE
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["\\n\\n"], max_gen_toks: NEW, do_sample: false}
metric_list: [{metric: !function scoring.flagged, aggregation: mean, higher_is_better: true}]
"""
SCORING = """import os


def flagged(references, predictions):
    return float(os.environ.get("HF_ALLOW_CODE_EVAL") == "1")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two tasks of the harness on a file beside them."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    rows = [
        {"question": f"Which is number {n}?", "choices": [" a", " c", " s"],
         "answer": n % 3}
        for n in range(8)
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    place = tmp_path / "tiny"
    place.mkdir()
    (place / "scoring.py").write_text(SCORING)
    told = {"ROWS": str(tmp_path / "rows.jsonl"), "NEW": "5", "UNSAFE": "unsafe_code: true"}
    for name, definition in (("choice", CHOICES), ("writing", WRITING)):
        for key, value in told.items():
            definition = definition.replace(key, value)
        (place / f"{name}.yaml").write_text(definition)
    return place


def choice(folder: Path) -> Benchmark:
    return Benchmark(
        "tiny_choice", str(folder), "acc", "tiny", ("Pick a word.", "Choose.", "Say which.")
    )


def writing(folder: Path) -> Benchmark:
    return Benchmark(
        "tiny_writing", str(folder), "flagged", "tiny", ("Write.",), runs_code=True
    )  # fmt: skip


def test_a_suite_end_to_end(base, adapter, folder, monkeypatch):
    contexts: set[str] = set()
    runs: list[bool] = []
    plain = HarnessModel.loglikelihood

    def heard(self: HarnessModel, requests: list[Instance], disable_tqdm: bool = True) -> Any:
        contexts.update(request.args[0] for request in requests)
        runs.append(self._chain is not None)
        return plain(self, requests, disable_tqdm)

    monkeypatch.setattr(HarnessModel, "loglikelihood", heard)
    benchmark = choice(folder)
    wrong = wrong_descriptions(benchmark)
    making = Making({"Pick a word.": adapter, "Choose.": adapter, wrong[0]: adapter})
    notes: list[str] = []
    table = run_suite(base, making, [benchmark], teller=notes.append)
    assert [*contexts] == [c for c in contexts if c.endswith("?\nAnswer:")]
    assert {c.partition("Question:")[0] for c in contexts} == {
        "", "Pick a word.\n\n", "Choose.\n\n", "Say which.\n\n",
    }  # fmt: skip
    assert runs == [False] * 4 + [True]  # base, three prompts; the one adapter once
    told = table.to_json()
    assert set(told) == {
        "suite", "benchmarks", "average", "matched_minus_wrong", "matched_minus_junk", "skipped",
        "published",
    }  # fmt: skip
    arms = told["benchmarks"]["tiny_choice"]
    assert list(arms) == ["base", "prompt", "generated", "wrong", "junk"]
    assert all(arm["metric"] == "acc" and arm["n"] == 8 for arm in arms.values())
    assert [arms[arm].get("not_understood", 0) for arm in arms] == [0, 0, 1, 2, 3]
    steered = Harness(base, [benchmark]).ask(benchmark, Way(adapter))
    bare = Harness(base, [benchmark]).ask(benchmark, Way())
    assert steered != bare
    mixed = [(2 * one + other) / 3 for one, other in zip(steered, bare, strict=True)]
    assert table.scores["tiny_choice"]["generated"].items == pytest.approx(mixed)
    assert arms["junk"]["value"] == arms["base"]["value"] == sum(bare) / 8
    assert told["matched_minus_junk"]["value"] == pytest.approx(
        (sum(mixed) - sum(bare)) / 8, abs=1e-6
    )
    assert told["average"]["generated"] == arms["generated"]["value"]
    assert notes[0].startswith("tiny_choice, base: ")
    json.dumps(told, allow_nan=False)


def test_figures_are_the_harness_own(base, folder):
    from lm_eval.evaluator import evaluate

    benchmark = choice(folder)
    harness = Harness(base, [benchmark], limit=5)
    theirs = evaluate(HarnessModel(base), {"tasks": harness.tasks}, limit=5)["results"]
    scores = suite.Scores(harness.ask(benchmark, Way()))
    assert len(scores.items) == 5
    assert scores.value == pytest.approx(theirs["tiny_choice"]["acc,none"])
    assert scores.stderr == pytest.approx(theirs["tiny_choice"]["acc_stderr,none"])


def test_every_arm_sees_the_same_worked_examples(base, folder, monkeypatch):
    contexts: list[str] = []
    monkeypatch.setattr(
        HarnessModel, "loglikelihood",
        lambda _, asked: [contexts.append(one.args[0]) or (0.0, False) for one in asked],
    )  # fmt: skip
    definition = (folder / "choice.yaml").read_text()
    more = "training_split: test\nfewshot_split: test\nnum_fewshot: 2\n"
    (folder / "choice.yaml").write_text(definition + more)
    benchmark = choice(folder)
    harness = Harness(base, [benchmark])
    harness.ask(benchmark, Way())
    first, contexts[:] = [*contexts], []
    harness.ask(benchmark, Way(told="Choose."))
    assert contexts == [f"Choose.\n\n{context}" for context in first]
    contexts.clear()
    Harness(base, [benchmark], chat_template=True).ask(benchmark, Way())
    assert {context.count("<|im_start|>assistant") for context in contexts} == {3}


def test_a_chat_template_is_asked_for(base, folder, make_tokenizer, tiny_llama, monkeypatch):
    contexts: list[str] = []
    monkeypatch.setattr(
        HarnessModel, "loglikelihood",
        lambda _, asked: [contexts.append(one.args[0]) or (0.0, False) for one in asked],
    )  # fmt: skip
    benchmark = choice(folder)
    Harness(base, [benchmark], 1, chat_template=True).ask(benchmark, Way(told="Choose."))
    assert contexts[0].startswith("<|im_start|>system\nChoose.<|im_end|>\n<|im_start|>user\n")
    assert contexts[0].endswith("<|im_start|>assistant\n")
    without = Base.from_model(copy.deepcopy(tiny_llama), make_tokenizer(template=None))
    with pytest.raises(BaseError, match="no chat template"):
        Harness(without, [benchmark], chat_template=True)


def test_programs_run_only_where_that_is_permitted(base, folder, monkeypatch):
    monkeypatch.delenv("HF_ALLOW_CODE_EVAL", raising=False)
    benchmark = writing(folder)
    making = Making({})
    with pytest.raises(ConfigError, match="--allow-code-execution"):
        run_suite(base, making, [benchmark])
    notes: list[str] = []
    table = run_suite(base, making, [choice(folder), benchmark], limit=2, teller=notes.append)
    assert "--allow-code-execution" in table.to_json()["skipped"]["tiny_writing"]
    assert "tiny_writing: skipped" in notes[0]
    assert set(table.scores) == {"tiny_choice"}
    assert making.calls
    table = run_suite(base, making, [benchmark], limit=2, allow_code=True)
    assert table.scores["tiny_writing"]["base"].items == (1.0, 1.0)  # the metric saw the consent
    assert not table.skipped
    assert "HF_ALLOW_CODE_EVAL" not in os.environ


def test_missing_data_is_told_by_name(base, folder):
    making = Making({})
    names = [benchmark for benchmark in TEN if not benchmark.runs_code]
    with pytest.raises(DataError) as caught:
        run_suite(base, making, names)
    for name in ("arc_challenge", "boolq", "winogrande"):
        assert name in caught.value.message
    assert "allenai/ai2_arc" in caught.value.found
    assert "HF_HOME" in caught.value.hint
    with pytest.raises(DataError, match="piqa") as caught:
        run_suite(base, making, [choice(folder), chosen_benchmarks("piqa")[0]])
    assert "--benchmarks tiny_choice" in caught.value.hint
    assert not making.calls


def test_without_a_network_only_one_is_waited_for(base, monkeypatch):
    tried: list[object] = []

    def load(_: object, names: list[str]) -> Any:
        tried.append(names)
        raise ConnectionError("no route")

    monkeypatch.setattr(TaskManager, "load", load)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(DataError, match="arc_challenge is not at hand"):
        run_suite(base, Making({}), TEN[:3])
    assert tried == [["arc_challenge"]]


def test_answers_must_fit_the_context_before_anything_runs(base, folder, monkeypatch):
    definition = (folder / "writing.yaml").read_text()
    (folder / "writing.yaml").write_text(definition.replace("max_gen_toks: 5", "max_gen_toks: 128"))
    making = Making({})
    with pytest.raises(Refused, match=r"tiny_writing: .*longer than the base's context"):
        run_suite(base, making, [choice(folder), writing(folder)], allow_code=True)
    assert not making.calls


def test_another_metric_than_expected_is_told(base, folder):
    benchmark = Benchmark("tiny_choice", str(folder), "acc_norm", "tiny", ("Choose.",))
    with pytest.raises(DataError, match="not scored as expected") as caught:
        Harness(base, [benchmark], 1).ask(benchmark, Way())
    assert caught.value.found == "acc, none"


def test_a_harness_that_is_not_installed_is_told(base, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(MissingExtra, match="evaluate"):
        run_suite(base, Making({}), [choice(folder)])


def test_the_ten_are_what_the_harness_has():
    from lm_eval import tasks

    root = Path(tasks.__file__).parent
    manager = TaskManager(include_path=[root / b.folder for b in TEN], include_defaults=False)
    assert [b.name for b in TEN if b.name not in manager.all_subtasks] == []
    assert len({b.name for b in TEN}) == 10
    assert len({d for b in TEN for d in b.descriptions}) == 30
    kinds = {d: b.kind for b in TEN for d in b.descriptions}
    for benchmark in TEN:
        wrong = wrong_descriptions(benchmark)
        assert len(set(wrong)) == 3
        assert benchmark.kind not in {kinds[description] for description in wrong}


QUIZ = {"text": ["hair", "Ulm", "a shop", "cut"], "label": ["A", "B", "C", "D"]}
SHORT = {  # one row as each data set has them
    "arc_challenge": {"question": "Where?", "choices": QUIZ, "answerKey": "B"},
    "arc_easy": {"question": "Who?", "choices": QUIZ, "answerKey": "A"},
    "boolq": {"passage": "He cut hair.", "question": "did he cut hair", "label": 1},
    "gsm8k": {"question": "2 and 2?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
    "hellaswag": {
        "activity_label": "Hair", "ctx_a": "He sits.", "ctx_b": "then he", "label": "0",
        "endings": ["cuts.", "sings.", "is a shop.", "flies."],
    },
    "openbookqa": {"question_stem": "Hair is", "choices": QUIZ, "answerKey": "C"},
    "piqa": {"goal": "Cut hair.", "sol1": "Scissors.", "sol2": "A shop.", "label": 0},
    "winogrande": {
        "sentence": "Ann saw Bea while _ sang.", "option1": "Ann", "option2": "Bea", "answer": "1",
    },
    "humaneval": {"prompt": "def a():\n", "test": "def check(f):", "entry_point": "a"},
    "mbpp": {"text": "Add.", "code": "x = 1", "test_list": ["assert 1", "assert 2", "assert 3"]},
}  # fmt: skip


@pytest.fixture
def one_row_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness's own ten definitions on one row each; no program is run."""
    by_path = {
        "allenai/ai2_arc": "arc_easy", "aps/super_glue": "boolq", "openai/gsm8k": "gsm8k",
        "Rowan/hellaswag": "hellaswag", "allenai/openbookqa": "openbookqa", "baber/piqa": "piqa",
        "allenai/winogrande": "winogrande", "openai/openai_humaneval": "humaneval",
        "google-research-datasets/mbpp": "mbpp",
    }  # fmt: skip

    def load(path: str, **_: object) -> datasets.DatasetDict:
        row = SHORT[by_path[path]]
        return datasets.DatasetDict(
            {
                split: datasets.Dataset.from_list([row] * 6)
                for split in ("train", "validation", "test")
            }
        )

    def compute(**_: object) -> tuple[dict[str, float], None]:
        assert os.environ["HF_ALLOW_CODE_EVAL"] == "1"
        return {"pass@1": 1.0}, None

    monkeypatch.setattr("datasets.load_dataset", load)
    monkeypatch.setattr("evaluate.load", lambda _: SimpleNamespace(compute=compute))


def test_all_ten_run_by_the_harness_own_definitions(
    one_row_each, make_model, tiny_tokenizer, monkeypatch
):
    model = make_model("llama", max_position_embeddings=2048)
    base = Base.from_model(model, tiny_tokenizer)
    plain = HarnessModel.limits

    def shorter(self: HarnessModel, given: Any) -> tuple[list[str], int]:
        until, new = plain(self, given)
        return until, min(new, 8)

    monkeypatch.setattr(HarnessModel, "limits", shorter)
    table = run_suite(base, Making({}), TEN, limit=1, allow_code=True)
    told = table.to_json()
    assert list(told["benchmarks"]) == list(SHORT)
    for benchmark in TEN:
        arms = told["benchmarks"][benchmark.name]
        assert {(arm["metric"], arm["n"]) for arm in arms.values()} == {(benchmark.metric, 1)}
    assert told["benchmarks"]["humaneval"]["base"]["value"] == 1.0
    assert told["benchmarks"]["mbpp"]["base"]["value"] == 1.0


def test_benchmarks_are_chosen_by_name():
    assert chosen_benchmarks(None) == TEN
    assert [b.name for b in chosen_benchmarks("piqa, gsm8k,piqa")] == ["piqa", "gsm8k"]
    for names in ("piqa,arc", ",", ""):
        with pytest.raises(ConfigError, match="arc_challenge"):
            chosen_benchmarks(names)


@pytest.fixture
def detour(
    tiny_folder: Path,
    adapter: Adapter,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, str, str]]:
    """`detour("--suite", …)` after `hypernet evaluate net`, on a generator made of nothing."""
    making = Making({description: adapter for b in TEN for description in b.descriptions})
    monkeypatch.delenv("DETOUR_LANG", raising=False)
    monkeypatch.setattr("detour.hypernetwork.saved.load_generator", lambda _: making)

    def call(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        given = ["hypernet", "evaluate", "net", *arguments]
        code = run([*given, *(() if "--base" in given else ("--base", str(tiny_folder)))])
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call


def test_the_command(detour, folder, monkeypatch):
    monkeypatch.setattr(suite, "TEN", (choice(folder), writing(folder)))
    code, out, err = detour("--suite", "t2l-ten", "--limit", "3", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert told["suite"] == "t2l-ten"
    assert told["benchmarks"]["tiny_choice"]["generated"]["n"] == 3
    assert list(told["skipped"]) == ["tiny_writing"]
    assert told["published"]["average_of_10"]["base"] == 55.8
    assert "tiny_writing: skipped" in err
    code, out, err = detour("--suite", "t2l-ten", "--benchmarks", "tiny_choice")
    assert code == 0, err
    assert out.splitlines()[0].split() == [
        "benchmark", "base", "prompt", "generated", "wrong", "junk", "n",
    ]  # fmt: skip
    assert out.splitlines()[1].split()[0] == "tiny_choice"
    assert "published for Mistral-7B" in out


def test_the_command_without_data_or_with_strange_options(detour, tmp_path):
    cases = {
        "the data of arc_easy is not at hand": ("--suite", "t2l-ten", "--benchmarks", "arc_easy"),
        "--benchmarks names something that": ("--suite", "t2l-ten", "--benchmarks", "arc"),
        "runs what the model writes": ("--suite", "t2l-ten", "--benchmarks", "mbpp"),
        "nothing to measure on is given": (),
        "--limit goes with --suite only": (str(tmp_path), "--limit", "3"),
        "--items does not go with --suite": ("--suite", "t2l-ten", "--items", "3"),
        "TASKS does not go with --suite": (str(tmp_path), "--suite", "t2l-ten"),
    }
    for said, call in cases.items():
        code, out, err = detour(*call)
        assert (code, out) == (2, ""), said
        assert said in err
        assert "Traceback" not in err


def imported_at_once(path: Path) -> set[str]:
    """What a module imports as soon as it is imported itself."""
    found: set[str] = set()
    waiting: list[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
            waiting += node.body
        elif isinstance(node, ast.If) and ast.unparse(node.test) != "TYPE_CHECKING":
            waiting += [*node.body, *node.orelse]
    return found


def test_the_harness_is_imported_only_when_a_suite_runs():
    root = Path(suite.__file__).parents[1]
    heavy = {
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        for name in imported_at_once(path)
        if name.partition(".")[0] in ("lm_eval", "datasets", "evaluate")
        or name.startswith("detour.evaluate.harness")
    }
    assert heavy == {"evaluate/harness.py"}
