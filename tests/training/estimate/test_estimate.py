"""The whole answer: what fits where, in which layout, how long it takes, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detour.model.blueprint import Blueprint
from detour.training.config import make_config
from detour.training.estimate.estimate import (
    UNPACKING,
    Estimate,
    Question,
    estimate,
    most_rows,
)
from detour.training.estimate.machine import gpu_called
from detour.training.estimate.memory import Layout, memory
from detour.training.estimate.workload import Workload

A100, A100_40, L40, H100 = map(gpu_called, ("A100-80GB", "A100-40GB", "L40", "H100"))


@pytest.fixture
def ask(llamas):
    def answer(
        name: str = "7B", gpu=A100, devices: int = 1, tokens: int = 1024, **config
    ) -> Estimate:
        made = make_config({"rank": 16, **config})
        load = Workload.uniform(1000, tokens, tokens, made)
        return estimate(Question(llamas[name], made, load, gpu, devices, torch.bfloat16, 0.35, 2.0))

    return answer


@pytest.mark.parametrize(
    ("name", "gpu", "devices", "lora", "qlora", "full"),
    [
        ("7B", A100, 1, True, True, False),
        ("7B", A100_40, 1, True, True, False),
        ("7B", L40, 2, True, True, False),
        ("7B", H100, 8, True, True, True),
        ("30B", A100, 1, True, True, False),
        ("30B", A100_40, 1, False, True, False),
        ("30B", L40, 2, True, True, False),
        ("70B", A100, 1, False, True, False),
        ("70B", L40, 2, False, True, False),
        ("70B", L40, 1, False, True, False),  # as Dettmers et al. trained 65B on 48 GB
        ("70B", gpu_called("RTX-4090"), 1, False, False, False),
        ("70B", H100, 8, True, True, False),
    ],
)
def test_what_fits_where(ask, name, gpu, devices, lora, qlora, full):
    found = ask(name, gpu, devices)
    assert [way.fits for way in found.ways.values()] == [lora, qlora, full]
    for way in found.ways.values():
        assert way.fits == (way.memory.total <= gpu.memory)
        assert (way.devices_needed is None) == way.fits
        assert way.to_json()["micro_batch"] == (way.layout.rows if way.fits else 0)


def test_as_many_rows_as_fit_and_no_more(ask):
    found = ask(batch_size=64)
    way = found.ways["lora"]
    assert 1 < way.layout.rows == way.most_rows < 64
    fuller = replace(way.layout, rows=way.most_rows + 1)
    taken = memory(found.sizes, "lora", 2, fuller, A100.context, A100.slack).total
    assert way.memory.total <= A100.memory < taken


def test_layers_are_computed_again_only_where_they_must(ask):
    short, long = ask("30B", tokens=256), ask("30B", tokens=4096)
    assert not short.ways["qlora"].layout.checkpointing
    assert long.ways["qlora"].layout.checkpointing
    same = replace(long.question, machine=replace(A100, memory=10 * A100.memory))
    roomy = estimate(same)
    assert not roomy.ways["qlora"].layout.checkpointing
    assert 1.3 < long.ways["qlora"].flops / roomy.ways["qlora"].flops < 1.55


def test_copies_where_they_fit_else_parts(ask):
    found = ask("30B", L40, 2)
    assert found.ways["qlora"].layout.shards == 1
    assert found.ways["lora"].layout.shards == 2
    told = found.to_json()
    assert (told["lora"]["sharded"], told["qlora"]["sharded"]) == (True, False)
    assert any("one of 2 devices" in said for said in found.assumptions())


def test_what_does_not_fit_is_told_what_to_do(ask):
    said = ask("30B", A100_40).advice()
    assert any("qlora does" in one for one in said)
    assert any("× A100-40GB" in one for one in said)
    needed = ask("7B", A100).ways["full"].devices_needed
    assert needed == 2
    assert ask("7B", A100, needed).ways["full"].fits
    endless = ask("70B", gpu_called("T4"), tokens=4096 * 64)
    assert any("shorter" in one or "larger" in one for one in endless.advice())


def test_hours_follow_the_rule_of_six_and_of_four(ask):
    found = ask("7B", tokens=512, steps=100, batch_size=8)
    tokens = 100 * 8 * 512
    judged = 7 * 100 * 512
    layers_and_head = 6.74e9 - 32000 * 4096  # embeddings are looked up, not multiplied
    full, lora = found.ways["full"], found.ways["lora"]
    recomputed = 2 * layers_and_head * tokens  # where it does not fit, layers are computed again
    assert full.layout.checkpointing
    assert full.flops == pytest.approx(
        6 * layers_and_head * tokens + 2 * layers_and_head * judged + recomputed, rel=0.05
    )
    assert lora.flops == pytest.approx(
        4 * layers_and_head * tokens + 2 * layers_and_head * judged, rel=0.05
    )
    assert lora.seconds == pytest.approx(lora.flops / (0.35 * 312e12))
    assert found.ways["qlora"].seconds == pytest.approx(UNPACKING * lora.seconds)
    assert lora.energy.watt_hours == pytest.approx(400 * lora.seconds / 3600)
    assert lora.price == pytest.approx(2.0 * lora.seconds / 3600)


def test_more_devices_than_rows_do_not_help(ask):
    two, many = ask(devices=2, batch_size=2), ask(devices=8, batch_size=2)
    assert many.ways["lora"].seconds == pytest.approx(two.ways["lora"].seconds)
    assert many.ways["lora"].price == pytest.approx(4 * two.ways["lora"].price)


def test_parts_wait_for_the_link(ask):
    fast, slow = ask("70B", H100, 8), ask("70B", replace(H100, link=1e9), 8)
    assert fast.ways["lora"].layout.shards == slow.ways["lora"].layout.shards == 8
    assert slow.ways["lora"].seconds > 5 * fast.ways["lora"].seconds


def test_as_json(ask):
    told = ask().to_json()
    assert (told["base"], told["gpu"], told["parameters"]) == ("7B", "A100-80GB", 6_738_415_616)
    assert told["trainable"] == 16 * 32 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    for method in ("lora", "qlora", "full"):
        one = told[method]
        assert {"memory_bytes", "fits", "micro_batch", "checkpointing", "hours"} <= set(one)
        assert {"weights", "gradients", "optimizer", "activations", "total"} <= set(
            one["memory_bytes"]
        )
        low, high = one["hours_range"]
        assert low < one["hours"] < high


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 4096), st.integers(1, 64), st.integers(0, 64), st.floats(1.0, 4.0), st.data())
def test_more_of_anything_is_never_faster_and_never_smaller(tokens, batch, rank, room, data):
    blueprint = _tiny()

    def answer(tokens: int, batch: int, rank: int, room: float) -> Estimate:
        config = make_config({"rank": rank + 1, "batch_size": batch, "steps": 50})
        load = Workload.uniform(200, tokens, tokens, config)
        machine = replace(A100, memory=room * 1e9)
        return estimate(Question(blueprint, config, load, machine, 1, torch.bfloat16, 0.35))

    more = data.draw(st.integers(1, 100))
    before = answer(tokens, batch, rank, room)
    for after in (answer(tokens + more, batch, rank, room), answer(tokens, batch, rank + 9, room)):
        for method, way in before.ways.items():
            assert after.ways[method].most_rows <= way.most_rows or (
                after.ways[method].layout.checkpointing and not way.layout.checkpointing
            )
            assert after.ways[method].seconds >= way.seconds or method == "full"
    roomier = answer(tokens, batch, rank, room + 1)
    for method, way in before.ways.items():
        assert roomier.ways[method].fits >= way.fits
        assert roomier.ways[method].seconds <= way.seconds


def _tiny() -> Blueprint:
    import transformers as hf

    config = hf.LlamaConfig(
        hidden_size=512, intermediate_size=1024, num_hidden_layers=8, num_attention_heads=8,
        vocab_size=1000,
    )  # fmt: skip
    return Blueprint.of_config(config, "tiny")


def test_rows_that_fit_grow_with_the_memory(ask):
    sizes = ask().sizes
    counts = [
        most_rows(sizes, "lora", 2, Layout(1, 1024), replace(A100, memory=m * 1e9))
        for m in (10, 20, 40, 80)
    ]
    assert counts == sorted(counts)
    assert counts[0] == 0 < counts[-1]
