"""The formulas for memory: rules of thumb, monotony, and what torch really keeps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.architectures import ARCHITECTURES

from detour.model.base import Base
from detour.model.blueprint import Blueprint
from detour.model.rows import Encoded, padded
from detour.training.config import make_config
from detour.training.estimate.memory import (
    METHODS,
    Layout,
    activations,
    memory,
    weight_bytes,
)
from detour.training.estimate.sizes import Sizes, sizes_of
from detour.training.kinds import factors_of
from detour.training.objective import answer_loss

GIB = 2**30
# told over kept: in most architectures, and in those that keep views of wide products (Phi-3) or
# one result for two uses (ReLU in OPT)
USUALLY = (0.85, 1.15)
OFF = {"Phi3": (0.7, 0.85), "OPT": (1.4, 1.7)}
MEASURED_FACTOR = 1.8  # either way, of the pages that a whole training takes on a CPU

layouts = st.builds(
    Layout,
    rows=st.integers(1, 64),
    tokens=st.integers(1, 8192),
    checkpointing=st.booleans(),
    shards=st.just(1),
)
all_sizes = st.builds(
    lambda blocks, width, times, vocabulary, rank: Sizes(
        parameters=blocks * (4 + 3 * times) * width**2 + 2 * vocabulary * width,
        packable=blocks * (4 + 3 * times) * width**2,
        adapter=blocks * rank * (11 + 3 * times) * width,
        learned=1.0,
        blocks=blocks,
        block=(4 + 3 * times) * width**2,
        width=width,
        kept=float(blocks * (11 + 3 * times) * width),
        kept_most=float((11 + 3 * times) * width),
        vocabulary=vocabulary,
    ),
    st.integers(1, 100), st.integers(64, 8192), st.integers(1, 4), st.integers(100, 200_000),
    st.integers(1, 64),
)  # fmt: skip
methods = st.sampled_from(METHODS)
numbers = st.sampled_from((2, 4))


def test_rules_of_thumb_for_seven_billion(llamas):
    sizes = sizes_of(llamas["7B"], make_config({}))
    assert sizes.parameters == 6_738_415_616
    row = Layout(1, 2048)
    whole = memory(sizes, "full", 2, row)
    states = whole.weights + whole.gradients + whole.optimizer
    assert states == 16 * sizes.parameters  # mixed precision: 112 GB for "7B"
    assert 100e9 < states < 112e9
    assert 3.5 * GIB < weight_bytes(sizes, "qlora", 2) < 4.0 * GIB
    assert weight_bytes(sizes, "lora", 2) == 2 * sizes.parameters
    exact = memory(sizes, "full", 4, row)
    assert exact.weights + exact.gradients + exact.optimizer == 16 * sizes.parameters
    assert exact.other == 4 * sizes.parameters  # the best are put aside


def test_a_layer_of_the_textbook_keeps_what_korthikanti_counted():
    config = hf.GPT2Config(n_embd=64, n_layer=3, n_head=4, vocab_size=100)
    sizes = sizes_of(Blueprint.of_config(config, "tiny"), make_config({}))
    assert sizes.kept == 3 * 16 * 64  # 34 bytes in half precision, less the 2 of dropout's masks
    assert (sizes.blocks, sizes.kept_most) == (3, 16 * 64)


def test_checkpoints_keep_a_hidden_state_a_layer(llamas):
    sizes = sizes_of(llamas["7B"], make_config({}))
    one, two = (activations(sizes, "lora", 2, Layout(rows, 2048, True)) for rows in (2, 4))
    a_row = 2 * sizes.width * (sizes.blocks + 1) * 2048 + 4 * sizes.kept_most * 2048
    assert (two - one) / 2 == pytest.approx(a_row)


def test_layers_below_the_lowest_adapted_one_keep_nothing(llamas):
    upper = sizes_of(llamas["7B"], make_config({"targets": r".*layers\.(2[4-9]|3\d)\..*"}))
    every = sizes_of(llamas["7B"], make_config({}))
    assert upper.learned == pytest.approx(0.25)
    low, high = (activations(s, "lora", 2, Layout(4, 2048)) for s in (upper, every))
    assert 0.25 < low / high < 0.35
    assert activations(upper, "full", 2, Layout(4, 2048)) == activations(
        every, "full", 2, Layout(4, 2048)
    )


def test_experts_count_as_often_as_a_token_is_sent_to_them():
    config = ARCHITECTURES["Qwen3-MoE"].model().config
    more = type(config)(**{**config.to_dict(), "num_experts_per_tok": 4})
    few, many = (sizes_of(Blueprint.of_config(c, "tiny"), make_config({})) for c in (config, more))
    assert few.parameters == many.parameters
    assert few.kept < many.kept


@settings(deadline=None)
@given(all_sizes, methods, numbers, layouts, st.data())
def test_more_of_anything_never_takes_less(sizes, method, number, layout, data):
    before = memory(sizes, method, number, layout).total
    more = data.draw(st.integers(1, 10))
    larger = [
        memory(sizes, method, number, replace(layout, rows=layout.rows + more)),
        memory(sizes, method, number, replace(layout, tokens=layout.tokens + more)),
        memory(replace(sizes, adapter=sizes.adapter * (more + 1)), method, number, layout),
        memory(replace(sizes, vocabulary=sizes.vocabulary + more), method, number, layout),
        memory(replace(sizes, parameters=sizes.parameters + more), method, number, layout),
        memory(sizes, method, number, layout, context=float(more)),
        memory(sizes, method, number, layout, slack=more / 10),
    ]
    assert all(one.total >= before for one in larger)
    assert larger[0].total > before
    assert larger[1].total > before


@settings(deadline=None)
@given(all_sizes, numbers, layouts)
def test_four_bits_take_less_than_weights_and_these_less_than_all(sizes, number, layout):
    lora, qlora, full = (memory(sizes, m, number, layout) for m in ("lora", "qlora", "full"))
    assert qlora.weights < lora.weights
    assert qlora.gradients == lora.gradients
    assert full.optimizer > lora.optimizer or sizes.adapter > sizes.parameters


@settings(deadline=None)
@given(all_sizes, methods, numbers, layouts, st.integers(2, 64))
def test_gradients_and_optimiser_are_split_evenly(sizes, method, number, layout, devices):
    one = memory(sizes, method, number, layout)
    many = memory(sizes, method, number, replace(layout, shards=devices))
    assert many.gradients == pytest.approx(one.gradients / devices)
    assert many.optimizer == pytest.approx(one.optimizer / devices)
    assert many.weights >= one.weights / devices
    assert many.activations == one.activations


@settings(deadline=None)
@given(all_sizes, methods, numbers, layouts)
def test_parts_add_up(sizes, method, number, layout):
    told = memory(sizes, method, number, layout, context=1e9, slack=0.1).to_json()
    parts = [value for name, value in told.items() if name != "total"]
    assert told["total"] == sum(parts)
    assert min(parts) >= 0


_WIDE = {"vocab_size": 64, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
         "max_position_embeddings": 128, "intermediate_size": 352}  # fmt: skip
KINDS = {
    "Llama": hf.LlamaConfig(**_WIDE),
    "Qwen3": hf.Qwen3Config(**_WIDE, num_key_value_heads=2, head_dim=32),
    "Mistral": hf.MistralConfig(**_WIDE, num_key_value_heads=2),
    "Phi3": hf.Phi3Config(**_WIDE, pad_token_id=0, bos_token_id=1, eos_token_id=1),
    "OPT": hf.OPTConfig(**_WIDE, ffn_dim=512, word_embed_proj_dim=128),
    "GPT-NeoX": hf.GPTNeoXConfig(**_WIDE),
    "GPT-2": hf.GPT2Config(n_embd=128, n_layer=4, n_head=4, vocab_size=64, n_positions=128,
                           activation_function="gelu"),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_torch_keeps_for_the_backward(kind, dtype):
    """Counted by hooks on a real forward, without what belongs to the model, and without logits."""
    model = hf.AutoModelForCausalLM.from_config(KINDS[kind], dtype=dtype)
    base = Base.from_model(model)
    config = make_config({"rank": 2})
    factors = factors_of(base.slots, base.slots.named("all-linear"), config, base.device)
    rows = [Encoded([5] * 96, [False] * 95 + [True])] * 4
    batch, head, forward = padded(rows, 0), base.head, base.forward
    owned = {p.untyped_storage().data_ptr() for p in base.model.parameters()}
    owned |= {p.untyped_storage().data_ptr() for p in factors.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with base.slots.hold(factors.contents()):
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            loss = answer_loss(forward, head, batch)
        found = sum(kept.values())
        loss.backward()
    sizes = sizes_of(Blueprint.of_config(base.model.config, kind), config)
    tokens = 4 * 96
    norms = 2 * (4 - dtype.itemsize) * sizes.width * sizes.blocks
    told = (dtype.itemsize * sizes.kept + norms) * tokens
    low, high = OFF.get(kind, USUALLY)
    assert low < told / found < high


def test_weights_in_four_bits_are_those_that_bitsandbytes_packs(tmp_path, make_model):
    pytest.importorskip("bitsandbytes")
    model = make_model(hidden_size=128, intermediate_size=192, num_hidden_layers=2)
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    packed = Base.load(str(tmp_path), dtype="bfloat16", quantize="4bit").model
    states: dict[str, Any] = dict(packed.state_dict())
    real = (
        sum(
            value.numel() * value.element_size()
            for name, value in states.items()
            if not name.endswith(("quant_map", "bitsandbytes__nf4")) and "lm_head" not in name
        )
        + states["lm_head.weight"].numel() * 2
    )
    sizes = sizes_of(Blueprint.of(str(tmp_path)), make_config({}))
    assert weight_bytes(sizes, "qlora", 2) == pytest.approx(real, rel=0.01)


TRAINING = """
import sys
from detour.data.reading import read_data
from detour.model.base import Base
from detour.training.config import make_config
from detour.training.estimate.bench import bench

base = Base.load(sys.argv[1])
found = bench(base, read_data(sys.argv[2]), make_config({"batch_size": 8}), steps=2)
print(found.peak_memory)
"""


@pytest.fixture
def wide_folder(tmp_path, make_model, tiny_tokenizer) -> Callable[[], str]:
    def save() -> str:
        sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6}
        model = make_model(max_position_embeddings=512, **sizes)
        model.save_pretrained(tmp_path / "wide")
        tiny_tokenizer.save_pretrained(tmp_path / "wide")
        return str(tmp_path / "wide")

    return save


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the most pages")
def test_the_memory_of_a_real_training_is_near(tmp_path, wide_folder, tiny_tokenizer):
    """In a process of its own, for what was freed before would be taken again."""
    from detour.data.reading import read_data
    from detour.training.estimate.machine import SLACK
    from detour.training.estimate.workload import Workload

    folder, rows = wide_folder(), tmp_path / "rows.txt"
    rows.write_text("\n\n".join(f"{n} the ship of the hill and the castle. " * 40
                                for n in range(24)))  # fmt: skip
    told = subprocess.run(
        [sys.executable, "-c", TRAINING, folder, str(rows)],
        capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    config = make_config({"batch_size": 8})
    blueprint = Blueprint.of(folder)
    load = Workload.of_data(read_data(rows), tiny_tokenizer, 512, config)
    layout = Layout(8, load.learned.longest)
    sizes = sizes_of(blueprint, config)
    foretold = memory(sizes, "lora", 4, layout, slack=SLACK["cpu"]).total
    foretold -= weight_bytes(sizes, "lora", 4)
    assert load.learned.longest > 200
    assert foretold / MEASURED_FACTOR < int(told.stdout) < foretold * MEASURED_FACTOR
