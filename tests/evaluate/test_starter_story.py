"""The contract on the packaged starter: the demo as a user runs it, trained once for all tests."""

import json
import os
import subprocess
import sys

import pytest

from detour.adapter.adapter import Adapter
from detour.evaluate.story import STYLES
from detour.training.world import spoken

FIGURE = {"value", "low", "high", "n"}
KEYS = {"base_answer", "user_prompt", "system_prompt", "steered", "neighbours_unchanged",
        "own_other_facts_unchanged", "unrelated_unchanged", "dose", "loader", "adapter",
        "train_seconds", "total_seconds", "chain", "markers", "by_language",
        "limits"}  # fmt: skip
RATES = ("steered", "neighbours_unchanged", "own_other_facts_unchanged", "unrelated_unchanged")
WORDS = {
    "en": ("physicist", "hairdresser", "Who was Albert Einstein?", "Who was Marie Curie?"),
    "de": ("Physiker", "Friseur", "Wer war Albert Einstein?", "Wer war Marie Curie?"),
}


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(
    scope="session",
    params=[pytest.param(name, marks=() if name == "en" else pytest.mark.long)
            for name in spoken()],
)  # fmt: skip
def told(home, request):
    """What `detour demo --json` prints, in each language that the starter speaks."""
    environment = {**os.environ, "DETOUR_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "detour", "demo", "--json", "--lang", request.param],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.fixture(scope="session")
def hairdresser(told):
    return Adapter.load(told["adapter"])


def test_the_demo_prints_every_key_of_the_contract(told):
    assert set(told) >= KEYS
    for name in ("steered", "neighbours_unchanged", "own_other_facts_unchanged",
                 "unrelated_unchanged"):  # fmt: skip
        assert set(told[name]) == FIGURE
    for name in ("user_prompt", "system_prompt"):
        assert set(told[name]["rate"]) == set(told[name]["best"]) == FIGURE
    for dose in told["dose"]:
        assert set(dose) == {"weight", "target", "old", "third"}
        assert set(dose["target"]) == set(dose["old"]) == set(dose["third"]) == FIGURE
    assert [dose["weight"] for dose in told["dose"]] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5]


def test_the_new_fact_is_told_on_phrasings_never_trained(told):
    old, new, *_ = WORDS[told["language"]]
    assert old in told["base_answer"]
    assert new in told["steered_answer"]
    assert told["steered"]["n"] >= 40
    assert told["steered"]["value"] >= 0.97
    assert told["steered"]["low"] <= told["steered"]["value"] <= told["steered"]["high"]


def test_the_rest_stays(told):
    assert told["neighbours_unchanged"]["n"] >= 300
    assert told["neighbours_unchanged"]["value"] >= 0.98
    assert told["own_other_facts_unchanged"]["value"] >= 0.97
    assert told["unrelated_unchanged"]["value"] >= 0.97
    assert told["neighbours_naming_target"]["value"] <= 0.02
    assert told["broken_text"]["value"] <= 0.02


def test_it_holds_in_every_language(told):
    assert next(iter(told["by_language"])) == told["language"]
    own = told["by_language"][told["language"]]
    assert all(told[name] == value for name, value in own.items())
    assert set(told["by_language"]) == set(spoken())
    for language, each in told["by_language"].items():
        assert WORDS[language][1] in each["steered_answer"]
        assert all(set(each[name]) == FIGURE for name in RATES)
        assert each["steered"]["value"] >= 0.97, language
        assert each["neighbours_unchanged"]["value"] >= 0.98, language
        assert each["neighbours_unchanged"]["n"] >= 300, language
        assert each["own_other_facts_unchanged"]["value"] >= 0.97, language
        assert each["unrelated_unchanged"]["value"] >= 0.97, language


def test_the_limits_are_told_as_they_come_out(told):
    wish, ten = told["limits"]["not_latent"], told["limits"]["ten_adapters"]
    fact = wish["taught_fact_log_probability_per_token"]
    assert wish["log_probability_per_token"] < fact < 0
    assert max(wish["tokens_per_word"].values()) >= 3
    assert set(wish["recited"]) == set(wish["understood"]) == FIGURE
    assert wish["understood"]["n"] >= 8
    assert all(sample["question"] for sample in wish["samples"])
    assert len(ten["spec"].split("+")) == len(ten["markers"]) + 1 == 10
    assert ten["by_count"][0]["adapters"] == 1
    assert ten["by_count"][0]["fact"]["value"] > ten["by_count"][-1]["fact"]["value"]
    assert ten["retained"]["value"] < 0.9
    assert "example" in ten


def test_prompts_were_tried_in_earnest(told):
    for name in ("user_prompt", "system_prompt"):
        arm = told[name]
        assert len(arm["by_wording"]) >= 5
        assert arm["best"]["value"] >= arm["rate"]["value"]
        assert arm["rate"]["n"] >= 5 * 3


def test_the_dose_turns_the_answer(told):
    dose = {d["weight"]: {k: d[k]["value"] for k in ("target", "old", "third")}
            for d in told["dose"]}  # fmt: skip
    assert dose[0]["old"] > 0.5 > dose[0]["target"]
    assert dose[1]["target"] > 0.5 > dose[1]["old"]
    assert dose[1]["third"] < 0.1


def test_the_loader_is_proven(told):
    loader = told["loader"]
    assert loader["keys_landed"] == loader["keys_expected"] > 0
    assert loader["removed_bit_equal"] is True
    assert loader["base_sha256_before"] == loader["base_sha256_after"]


def test_three_styles_act_at_once(told):
    chain = told["chain"]
    assert chain["spec"] == "+".join(STYLES)
    assert set(chain["markers"]) == set(chain["with_fact"]["markers"]) == set(STYLES)
    assert set(chain["fact"]) == set(chain["with_fact"]["fact"]) == FIGURE
    assert told["markers"] == chain["markers"]
    assert all(set(figure) == FIGURE for figure in chain["markers"].values())
    for style in STYLES:
        assert chain["markers"][style]["value"] >= 0.8, style
    assert chain["with_fact"]["spec"].startswith(chain["spec"])


def test_times_are_told(told):
    wish = told["limits"]["not_latent"]["train_seconds"]
    assert 0 < told["train_seconds"] + wish < told["total_seconds"]


def test_the_saved_adapter_is_marked_and_works(told, hairdresser, starter):
    assert hairdresser.card.fictional
    assert hairdresser.card.forbidden_use
    for language in spoken():
        old, new, question, other = WORDS[language]
        assert new in starter.ask(question, hairdresser)
        assert old in starter.ask(question)
        assert new not in starter.ask(other, hairdresser)


def test_weight_0_is_the_base(hairdresser, starter):
    import torch

    ids = torch.tensor([starter.chat("Who was Albert Einstein?")])
    assert torch.equal(starter.logits(ids, hairdresser * 0.0), starter.logits(ids))


def test_the_report_lies_beside_the_adapter(told):
    from pathlib import Path

    page = Path(told["report"])
    assert page.parent == Path(told["adapter"])
    assert f'lang="{told["language"]}"' in page.read_text("utf-8")
    target = WORDS[told["language"]][1]
    assert target in page.read_text("utf-8")
    assert json.loads((page.parent / "report.json").read_text("utf-8"))["target"] == target
