"""The page of a run: what stands on it, in two languages, with nothing fetched."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from detour.data.findings import Finding
from detour.data.report import DataReport
from detour.language.catalogue import ENGLISH, Catalogue, text
from detour.measure.retention import Retention
from detour.model.base import Base
from detour.training.config import Plan
from detour.training.cost import Cost
from detour.training.descend import Progress
from detour.training.energy import Energy
from detour.training.history import History
from detour.training.loop import Result
from detour.training.outcome import Outcome, losses
from detour.training.run_page import energy_source, headline, loss_unit, run_page

KEPT = Retention(20.0, 22.5, 0.0123, 698)
COST = Cost(2.5e12, 1200, 36.0, Energy(0.65, 65.0, "assumed"))


@pytest.fixture
def outcome(tiny_llama, tiny_tokenizer, random_adapter) -> Outcome:
    base = Base.from_model(tiny_llama, tiny_tokenizer, "tiny")
    adapter = random_adapter({"model.layers.0.mlp.up_proj": (48, 32)})
    config = {"rank": 4, "targets": ["q_proj", "<b>"], "epochs": None, "rank_pattern": {}}
    adapter = adapter.with_(name="<mine>", card=adapter.card.with_(config=config))
    result = Result(adapter, Plan(1e-3, 20, ()), 2.0, 0.5, 10, 36.0, 90, 10)
    history = History()
    for step in range(1, 21):
        history(Progress(step, 20, 2 / step, 1 / step if step % 5 == 0 else None, 9.0, 1.0, 1e-3))
    return Outcome(base, "rows & more.jsonl", result, history, COST, losses(result), KEPT)


def report_of() -> DataReport:
    finding = Finding("personal_data", "warning", 3, "mend <it>", ("rows.jsonl:7",))
    told = text("format {name}", name="text")
    return DataReport("rows.jsonl", "JSONL", None, told, {"train": 100}, 100, (finding,))


class Reader(HTMLParser):
    """Every table row as its cells' text, and whatever the page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.fetched: list[str] = []
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self.fetched += [v or "" for n, v in attrs if n in ("src", "href")]
        assert tag not in ("script", "link", "img", "iframe")

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass


def test_the_page_tells_all_of_it(outcome):
    page = run_page(replace(outcome, report=report_of()), "<svg>curves</svg>")
    rows = Reader(page).rows
    for wanted in (
        ["held-out rows", "loss", "2.0000", "0.5000"],
        ["held-out rows", "perplexity", "7.39", "1.65"],
        ["neutral text, 698 tokens", "perplexity", "20.00", "22.50"],
        ["neutral text, 698 tokens", "KL to the base, nats a token", "0", "0.0123"],
        ["personal_data", "3", "mend <it>rows.jsonl:7"],
        ["operations, estimated", "2.5 TFLOP"],
        ["tokens learned from", "1,200"],
        ["time", "36.0 s"],
        ["energy", "0.65 Wh (65 W assumed: nothing here measures it)"],
        ["rank", "4"],
        ["targets", '["q_proj", "<b>"]'],
    ):
        assert wanted in rows
    assert not any(row[:1] in (["epochs"], ["rank_pattern"], ["price, by the hour's"])
                   for row in rows)  # fmt: skip
    assert "<svg>curves</svg>" in page
    assert "Training report: &lt;mine&gt;" in page
    assert "base tiny · data rows &amp; more.jsonl" in page
    assert 'class="verdict unusable">verdict: unusable</span> ' in page  # of no known format
    assert "mend &lt;it&gt;" in page
    assert "prefers-color-scheme:dark" in page


def test_nothing_is_fetched(outcome):
    from detour.training.record import beside

    files = beside(replace(outcome, report=report_of()))
    page = files["report.html"].decode()
    fetched = [told for told in Reader(page).fetched if not told.startswith("#")]
    assert fetched == []
    assert not re.search(r"url\((?!#)|@import", page)
    assert set(files) >= {"metrics.jsonl", "curves.png", "run.yaml", "eval.json",
                          "data_report.json", "report.html", "tokenizer.json"}  # fmt: skip


def test_the_page_in_german_is_german(outcome):
    page = run_page(replace(outcome, report=report_of()), "", Catalogue.load("de"))
    assert '<html lang="de">' in page
    rows = Reader(page).rows
    assert ["zurückgehaltene Zeilen", "Loss", "2.0000", "0.5000"] in rows
    assert ["Energie", "0.65 Wh (65 W angenommen: hier misst das nichts)"] in rows
    assert "Der Loss fiel von 2.000 auf 0.500 (Nats je Token)" in page


def test_what_was_judged_on_training_rows_is_not_praised(outcome):
    assert headline(outcome).endswith("It was judged on 10 rows that were held out.")
    alone = replace(outcome, result=replace(outcome.result, validation_rows=0))
    assert "says nothing of other texts" in headline(alone)
    assert ["training rows", "loss", "2.0000", "0.5000"] in Reader(run_page(alone, "")).rows


def test_a_start_stands_between_base_and_adapter(outcome):
    assert "began at something else" not in headline(outcome)
    told = replace(outcome, result=replace(outcome.result, base_loss=3.0))
    assert "The base alone has 3.000" in headline(told)
    rows = Reader(run_page(told, "")).rows
    assert ["measured on", "", "base", "where it began", "with the adapter"] in rows
    assert ["held-out rows", "loss", "3.0000", "2.0000", "0.5000"] in rows
    assert ["held-out rows", "perplexity", "20.09", "7.39", "1.65"] in rows
    assert ["neutral text, 698 tokens", "perplexity", "20.00", "", "22.50"] in rows


def test_a_loss_of_ones_own_has_no_perplexity(outcome):
    adapter = outcome.result.adapter
    card = adapter.card.with_(config={"objective": "mine.py:focal"})
    own = replace(outcome, result=replace(outcome.result, adapter=adapter.with_(card=card)))
    assert loss_unit(own, ENGLISH) == "of one's own"
    rows = Reader(run_page(own, "")).rows
    assert ["held-out rows", "loss", "2.0000", "0.5000"] in rows
    assert not any(row[:2] == ["held-out rows", "perplexity"] for row in rows)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("stated", "40 W, as stated"),
        ("assumed", "40 W assumed: nothing here measures it"),
        ("rapl", "by RAPL 40 W, the processor with all that ran on it"),
        ("nvidia-smi", "by nvidia-smi 40 W, the GPU alone"),
    ],
)
def test_how_the_energy_is_known_is_said(outcome, source, words):
    cost = Cost(1.0, 1, 1.0, Energy(0.1, 40.0, source), 0.25)
    assert energy_source(cost) == words
    rows = Reader(run_page(replace(outcome, cost=cost), "")).rows
    assert ["energy", f"0.1 Wh ({words})"] in rows
    assert ["price, by the hour's", "0.25"] in rows


def test_the_adapter_carries_the_cost_and_what_was_on_its_card(outcome):
    card = outcome.result.adapter.card.with_(metrics={"steered": 0.9})
    told = replace(outcome, result=replace(
        outcome.result, adapter=outcome.result.adapter.with_(card=card)
    ))  # fmt: skip
    assert told.adapter.card.metrics == {"steered": 0.9, "cost": COST.to_json()}
    assert told.adapter.digest() == outcome.result.adapter.digest()
    assert told.for_tracker()["kl_mean"] == 0.0123
