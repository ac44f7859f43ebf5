"""`detour chain check`: verdicts, reasons, pictures, and chains that cannot be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.evaluate.chain_check import ranges

KEYS = {"a", "b", "cosine", "cancellation", "dominance", "input_overlap", "output_overlap",
        "verdict", "reason"}  # fmt: skip


def test_strangers_are_no_conflict(detour, keep):
    keep("formal", seed=1)
    keep("pun", seed=2)
    told = detour("chain", "check", "formal+pun", "--json")
    assert (told.code, told.err) == (0, "")
    assert told.json["chain"] == "formal+pun"
    assert [one["name"] for one in told.json["adapters"]] == ["formal", "pun"]
    assert sum(one["share"] for one in told.json["adapters"]) == pytest.approx(1, abs=1e-3)
    (pair,) = told.json["pairs"]
    assert set(pair) == KEYS
    assert (pair["a"], pair["b"]) == ("formal", "pun")
    assert told.json["faults"] == []
    assert told.json["seconds"] >= 0


def test_a_twin_over_steers_and_its_opposite_contradicts(detour, keep):
    keep("formal", seed=1)
    twice = detour("chain", "check", "formal+formal", "--json").json
    assert twice["verdict"] == "measure it"
    assert "they say the same" in twice["pairs"][0]["reason"]
    assert twice["pairs"][0]["b"] == "formal (2)"
    against = detour("chain", "check", "formal+formal:-1", "--json").json
    reason = against["pairs"][0]["reason"]
    assert "they contradict each other" in reason
    assert "100% of what they change is gone" in reason
    assert "in layers 0" in reason


def test_one_that_drowns_the_other(detour, keep):
    keep("formal", seed=1)
    keep("pun", seed=2)
    told = detour("chain", "check", "formal+pun:1e9", "--json").json
    assert "pun dominates: it makes 100.0%" in told["pairs"][0]["reason"]


def test_a_dead_adapter_makes_the_chain_invalid(detour, keep):
    formal = keep("formal", seed=1)
    Adapter(
        {n: Update(down=u.down, up=torch.zeros_like(u.up)) for n, u in formal.updates.items()},
        "dead", formal.base,
    ).save(Path("dead"))  # fmt: skip
    told = detour("chain", "check", "formal+./dead", "--json").json
    assert told["verdict"] == "invalid"
    assert told["faults"] == ["./dead changes nothing: it was not trained, or its weight is 0"]
    plain = detour("chain", "check", "formal+./dead")
    assert "verdict: invalid" in plain.out
    assert detour("chain", "check", "formal+./dead", "--strict").code == 1


def test_mixed_bases_are_invalid_with_a_reason(detour, keep):
    base = keep("formal", seed=1).base
    assert base is not None
    keep("pun", seed=2, base=replace(base, weights_sha256="0" * 64))
    told = detour("chain", "check", "formal+pun", "--json")
    assert told.code == 2
    assert told.json["verdict"] == "invalid"
    assert "made for different bases" in told.json["faults"][0]
    plain = detour("chain", "check", "formal+pun")
    assert plain.code == 2
    assert "made for different bases" in plain.err


def test_unequal_targets_name_the_layer(detour, keep):
    formal = keep("formal", seed=1)
    layer, update = next(iter(formal.updates.items()))
    wide = torch.ones(update.rank, update.in_features + 1)
    Adapter({layer: Update(down=wide, up=update.up)}, "wide", formal.base).save(Path("wide"))
    told = detour("chain", "check", "formal+./wide", "--json")
    assert told.json["verdict"] == "invalid"
    assert layer in told.json["faults"][0]


def test_fifty_adapters_are_looked_at(detour, keep):
    keep("formal", seed=1)
    told = detour("chain", "check", "+".join(["formal:0.02"] * 50), "--json").json
    assert len(told["pairs"]) == 50 * 49 / 2
    plain = detour("chain", "check", "+".join(["formal:0.02"] * 50))
    assert "pairs more" in plain.err


def test_strict_exits_with_1_where_there_is_a_reason(detour, keep):
    keep("formal", seed=1)
    assert detour("chain", "check", "formal+formal", "--strict").code == 1
    assert detour("chain", "check", "formal", "--strict").code == 0


def test_pages_and_pictures(detour, keep):
    keep("formal", seed=1)
    keep("pun", seed=2)
    told = detour("chain", "check", "formal+pun+formal", "--html", "c.html", "--picture", "c.png",
                  "--lang", "de")  # fmt: skip
    assert told.code == 0
    assert "Urteil: messen" in told.out
    page = Path("c.html").read_text("utf-8")
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "sie sagen dasselbe" in page
    assert Path("c.png").read_bytes().startswith(b"\x89PNG")
    again = detour("chain", "check", "formal", "--html", "c.html")
    assert again.code == 2
    assert "is there already" in again.err


def test_one_adapter_has_no_pairs(detour, keep):
    keep("formal", seed=1)
    told = detour("chain", "check", "formal", "--html", "one.html")
    assert told.code == 0
    assert "verdict: no conflict predicted" in told.out
    assert "<svg" not in Path("one.html").read_text("utf-8")


def test_ranges():
    assert ranges([]) == ""
    assert ranges([3]) == "3"
    assert ranges([0, 1, 2, 5, 7, 8]) == "0–2, 5, 7–8"
