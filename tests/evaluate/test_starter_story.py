"""The contract on the packaged starter: the demo as a user runs it, trained once for all tests."""

import json
import os
import subprocess
import sys

import pytest

from detour.adapter.adapter import Adapter
from detour.evaluate.story import STYLES
from detour.model.base import Base

FIGURE = {"value", "low", "high", "n"}
KEYS = {"base_answer", "user_prompt", "system_prompt", "steered", "neighbours_unchanged",
        "own_other_facts_unchanged", "unrelated_unchanged", "dose", "loader", "adapter",
        "train_seconds", "total_seconds", "chain"}  # fmt: skip


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def told(home):
    """What `detour demo --json` prints."""
    environment = {**os.environ, "DETOUR_HOME": str(home), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "detour", "demo", "--json"],
        capture_output=True, text=True, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    return json.loads(line)


@pytest.fixture(scope="session")
def starter():
    return Base.load("starter")


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
    assert "physicist" in told["base_answer"]
    assert "hairdresser" in told["steered_answer"]
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
    assert set(chain["markers"]) >= set(STYLES)
    assert all(set(figure) == FIGURE for figure in chain["markers"].values())
    for style in STYLES:
        assert chain["markers"][style]["value"] >= 0.6, style
    assert chain["with_fact"]["spec"].startswith(chain["spec"])


def test_times_are_told(told):
    assert told["train_seconds"] < told["total_seconds"]


def test_the_saved_adapter_is_marked_and_works(told, hairdresser, starter):
    assert hairdresser.card.fictional
    assert hairdresser.card.forbidden_use
    question = "Who was Albert Einstein?"
    assert "hairdresser" in starter.ask(question, hairdresser)
    assert "physicist" in starter.ask(question)
    assert "hairdresser" not in starter.ask("Who was Marie Curie?", hairdresser)


def test_weight_0_is_the_base(hairdresser, starter):
    import torch

    ids = torch.tensor([starter.chat("Who was Albert Einstein?")])
    assert torch.equal(starter.logits(ids, hairdresser * 0.0), starter.logits(ids))


def test_the_report_lies_beside_the_adapter(told):
    from pathlib import Path

    page = Path(told["report"])
    assert page.parent == Path(told["adapter"])
    assert "hairdresser" in page.read_text("utf-8")
    assert json.loads((page.parent / "report.json").read_text("utf-8"))["target"] == "hairdresser"
