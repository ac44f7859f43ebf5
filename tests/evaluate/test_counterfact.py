"""ES, PS, NS and S equal a straightforward loop over prompts; files that are none are told."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import DataError
from detour.evaluate import counterfact
from detour.evaluate.counterfact import continued, read_cases, scores, told_before, told_by_system
from detour.model.base import Base

PLACES = ("Rome", "Paris", "Oslo", "Berlin", "Ulm", "Bonn", "Wien", "Bern")


def edit(number: int, **changes: Any) -> dict[str, Any]:
    new, true = PLACES[number % 8], PLACES[(number * 3 + 1) % 8]
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": "{} was born in", "subject": f"Person {number}",
            "target_new": {"str": new, "id": "Q1"}, "target_true": {"str": true, "id": "Q2"},
            **changes,
        },
        "paraphrase_prompts": [f"Person {number} comes from", f"The home of Person {number} is"],
        "neighborhood_prompts": [f"Somebody {n} was born in" for n in range(number % 3 + 1)],
        "generation_prompts": ["Person is"],
    }  # fmt: skip


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "edits.json"
    found.write_text(json.dumps([edit(n) for n in range(12)]))
    return found


@pytest.fixture
def base(tiny_llama, tiny_tokenizer) -> Base:
    return Base.from_model(tiny_llama, tiny_tokenizer)


@pytest.fixture
def adapter(base: Base, random_adapter) -> Adapter:
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    return random_adapter(shapes, seed=3)


def reference(base: Base, path: Path, chain: Adapter | None, before: bool) -> dict[str, float]:
    """One prompt and one object at a time, as the papers say it."""

    def score(prompt: str, said: str) -> float:
        start = len(base.tokenizer(prompt)["input_ids"])
        ids = torch.tensor([base.tokenizer(f"{prompt} {said}")["input_ids"]])
        told = base.logits(ids, chain)[0].float().log_softmax(-1)
        return fmean(told[place - 1, ids[0, place]].item() for place in range(start, ids.shape[1]))

    won: dict[str, list[float]] = {"ES": [], "PS": [], "NS": []}
    for row in json.loads(path.read_text()):
        rewrite = row["requested_rewrite"]
        own = rewrite["prompt"].format(rewrite["subject"])
        new, true = (rewrite[key]["str"] for key in ("target_new", "target_true"))
        lead = f"{own} {new}. " if before else ""
        for name, prompts in (("ES", [own]), ("PS", row["paraphrase_prompts"]),
                              ("NS", row["neighborhood_prompts"])):  # fmt: skip
            pairs = [(score(lead + p, new), score(lead + p, true)) for p in prompts]
            won[name].append(fmean(t > n if name == "NS" else n > t for n, t in pairs))
    means = {name: fmean(values) for name, values in won.items()}
    return {**means, "S": 3 / sum(1 / value for value in means.values())}


@pytest.mark.parametrize("steered", [False, True])
def test_scores_are_those_of_the_papers(base, adapter, path, steered):
    chain = Chain.of(adapter) if steered else None
    found = scores(base, read_cases(path), chain)
    expected = reference(base, path, adapter if steered else None, before=False)
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected)
    assert all(one.n == 12 and one.low <= one.value <= one.high for one in found.values())


def test_an_adapter_moves_them(base, adapter, path):
    cases = read_cases(path)
    assert scores(base, cases) != scores(base, cases, adapter)


def test_the_control_says_the_edit_first(base, path):
    found = told_before(base, read_cases(path))
    expected = reference(base, path, None, before=True)
    assert {name: one.value for name, one in found.items()} == pytest.approx(expected)


def test_by_the_system_message_it_is_a_chat(base, path, monkeypatch):
    cases = read_cases(path)
    seen: list[str] = []
    asked = counterfact.log_likelihoods

    def watched(base, rows, *more):
        seen.extend(base.tokenizer.decode(row.ids) for row in rows[:1])
        return asked(base, rows, *more)

    monkeypatch.setattr(counterfact, "log_likelihoods", watched)
    found = told_by_system(base, cases)
    assert set(found) == {"ES", "PS", "NS", "S"}
    assert "Imagine that Person 0 was born in Rome." in seen[0]
    template, base.tokenizer.chat_template = base.tokenizer.chat_template, None
    try:
        assert told_by_system(base, cases) is None
    finally:
        base.tokenizer.chat_template = template


def test_edits_without_paraphrases_have_no_s(base, tmp_path):
    rows = [{**edit(n), "paraphrase_prompts": []} for n in range(3)]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    assert set(scores(base, read_cases(tmp_path / "a.json"))) == {"ES", "NS"}


def test_what_is_marked_is_the_object(base):
    row = continued(base.tokenizer, "Ada was born in", "Rome")
    told = [token for token, learned in zip(row.ids, row.learned, strict=True) if learned]
    assert base.tokenizer.decode(told).strip() == "Rome"


def test_only_so_many_are_read(path):
    assert [case.prompt for case in read_cases(path, 2)] == [
        "Person 0 was born in", "Person 1 was born in",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ("[]", "holds no edits"),
        ('{"a": 1}', "holds no edits"),
        ("[1]", "row 1 is no edit"),
        (json.dumps([edit(0), edit(1, prompt="born in")]), "row 2 is no edit.*one {}"),
        (json.dumps([edit(0, target_new={"id": "Q"})]), "row 1 is no edit.*target_new"),
        (json.dumps([edit(0, target_true=" ")]), "row 1 is no edit.*target_true"),
        (json.dumps([{**edit(0), "paraphrase_prompts": "x"}]), "paraphrase_prompts: a list"),
    ],
)
def test_files_that_are_none_are_told(tmp_path, content, told):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=told):
        read_cases(tmp_path / "a.json")
