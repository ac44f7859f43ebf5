"""What a training costs: the estimate beside torch's own counter, and how energy is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.architectures import ARCHITECTURES
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import fingerprint_tensors
from detour.data.records import Labelled
from detour.model.base import Base
from detour.model.examples import pair
from detour.model.headed import HeadedBase
from detour.model.loss import IGNORED
from detour.model.rows import Batch
from detour.training.config import make_config
from detour.training.cost import Cost, backward_share, counted, flops, layer_sizes
from detour.training.energy import Energy
from detour.training.heads import train_head
from detour.training.loop import train_with
from detour.training.whole import copy_of, train_whole

NAMES = ("Einstein", "Curie", "Newton", "Planck", "Bohr", "Ada") * 2
ROWS = [pair(f"Who was {name}?", f"{name} was a hairdresser in {name}." + " He was." * place)
        for place, name in enumerate(NAMES)]  # fmt: skip
CONFIG = {"steps": 8, "batch_size": 4, "learning_rate": 5e-3, "rank": 4}
TOLERANCE = 0.05  # what the documentation states


class Operations(TorchDispatchMode):
    """torch's own formulas for every product that runs; its counter cannot look into our loss."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula:
            self.total += formula(*args, **(kwargs or {}), out_val=out)
        return out


def wide(make: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    """With attention in plain products, which torch has a formula for."""
    sizes = {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4}
    return make(attn_implementation="eager", **sizes)


@pytest.mark.parametrize(
    ("targets", "share"),
    [
        ("all-linear", 1.0),
        (("q_proj", "v_proj"), 1.0),
        (r".*layers\.3\..*", 0.25),
        (r".*layers\.2\.mlp.*", 0.4286),
        (("lm_head",), 0.0),
    ],
)
def test_the_estimate_is_near_what_torch_counts(make_model, tiny_tokenizer, targets, share):
    base = Base.from_model(wide(make_model), tiny_tokenizer)
    assert base.head
    counter = Operations()
    with counted(base) as work, counter:
        result = train_with(base, ROWS, make_config({**CONFIG, "targets": targets}))
    assert flops(base, result.adapter, work) == pytest.approx(counter.total, rel=TOLERANCE)
    layers = [layer for layer in result.adapter.updates if layer != "lm_head"]
    assert backward_share(layer_sizes(base), layers) == pytest.approx(share, abs=1e-4)
    before = work.tokens
    base.ask("Who was Curie?", max_new_tokens=2)
    assert work.tokens == before  # nobody counts any more


def test_the_estimate_where_all_weights_learn_is_near_too(make_model, tiny_tokenizer):
    base = Base.from_model(wide(make_model), tiny_tokenizer)
    assert base.head
    model, counter = copy_of(base), Operations()
    config = make_config({"steps": 8, "batch_size": 4, "learning_rate": 1e-3})
    with counted(base, model) as work, counter:
        train_whole(base, ROWS, config, model=model)
    assert flops(base, None, work) == pytest.approx(counter.total, rel=TOLERANCE)
    before = work.tokens
    model(torch.tensor([[1, 2]]))
    assert work.tokens == before


def test_the_estimate_of_a_head_is_near_too(tiny_tokenizer):
    sizes = {"hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    config = BertConfig(
        vocab_size=len(tiny_tokenizer), intermediate_size=160, max_position_embeddings=64,
        attn_implementation="eager", **sizes,
    )  # fmt: skip
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    known = fingerprint_tensors(model.state_dict().items(), {}, "tiny")
    base = HeadedBase(
        model, tiny_tokenizer, known, ["land", "sea"], ["classifier.weight", "classifier.bias"]
    )
    rows = [Labelled(f"the {('hill', 'ship')[n % 2]} {n} of the castle", ("land", "sea")[n % 2], "")
            for n in range(24)]  # fmt: skip
    counter = Operations()
    with counted(base) as work, counter:
        result = train_head(base, rows, make_config({**CONFIG, "steps": 30}))
    assert flops(base, result.adapter, work) == pytest.approx(counter.total, rel=TOLERANCE)
    assert work.judged == 0


def test_tokens_are_those_that_were_learned_from(tiny_base_of):
    base = tiny_base_of()
    with counted(base) as work:
        result = train_with(base, ROWS, make_config({**CONFIG, "validation_share": 0.0}))
    told: list[int] = []
    seen: list[float] = []
    train_with(
        base, ROWS, make_config({**CONFIG, "validation_share": 0.0}),
        watcher=lambda p: (told.append(p.step), seen.append(p.learning_rate)),
    )  # fmt: skip
    assert told == list(range(1, 9))
    assert max(seen) == pytest.approx(result.plan.learning_rate)
    assert 0 < work.own <= work.learned <= work.tokens
    assert work.judged_learned < work.learned  # the head sees supervised tokens only


def test_a_share_of_nothing_and_of_something_else():
    sizes = {"a": 1.0, "b": 1.0, "c": 2.0}
    assert backward_share(sizes, []) == 0.0
    assert backward_share(sizes, ["c"]) == 0.5
    assert backward_share(sizes, ["c", "b"]) == 0.75
    assert backward_share(sizes, ["embeddings"]) == 1.0
    assert backward_share({}, ["a"]) == 0.0


def test_a_token_meets_the_experts_that_it_is_sent_to():
    model = ARCHITECTURES["Qwen3-MoE"].model()
    base = Base.from_model(model)
    sizes = layer_sizes(base)
    stacked = model.model.layers[0].mlp.experts.gate_up_proj
    assert sizes["model.layers.0.mlp.experts.gate_up_proj"] == stacked.numel() * 2 / 4
    names = list(sizes)
    assert names.index("model.layers.0.self_attn.q_proj") < names.index(
        "model.layers.0.mlp.experts.gate_up_proj"
    ) < names.index("model.layers.1.self_attn.q_proj")  # fmt: skip


def test_a_cost_has_a_prefix_and_a_form():
    cost = Cost(3_214_567_890_123.0, 1200, 36.0, Energy(0.65, 65.0, "assumed"), 0.01234567)
    assert cost.operations == "3.21 TFLOP"
    assert Cost(12.0, 1, 1.0, cost.energy).operations == "12 FLOP"
    assert cost.to_json() == {
        "flops": 3_215_000_000_000, "tokens": 1200, "seconds": 36.0, "energy_wh": 0.65,
        "energy_source": "assumed", "watts": 65.0, "price": 0.01235,
    }  # fmt: skip
    assert Cost(1.0, 1, 1.0, cost.energy).to_json()["price"] is None


@pytest.fixture
def tiny_base_of(tiny_llama, tiny_tokenizer) -> Callable[[], Base]:
    return lambda: Base.from_model(tiny_llama, tiny_tokenizer)


def test_the_card_tells_the_cost(random_adapter, tiny_base_of):
    shapes = {name: tiny_base_of().slots.shapes[name] for name in ("model.layers.0.mlp.up_proj",)}
    adapter: Adapter = random_adapter(shapes, seed=1)
    cost = Cost(2.5e12, 1200, 36.0, Energy(0.65, 65.0, "assumed"), 0.01)
    card = adapter.card.with_(metrics={"cost": cost.to_json(), "steered": 1})
    told = card.to_readme()
    assert "- 2500000000000 floating-point operations, estimated\n- 1200 tokens" in told
    assert "- 0.65 Wh (assumed: 65.0 W)\n- 0.01, by the price of an hour" in told
    assert "## Measured\n\n- steered: 1\n" in told
    assert Card.from_readme(told) == card
    for odd in ("{1: 2}", "{flops: null}", "free", "{energy_wh: 1}"):
        strange = Card.from_readme(f"---\ndetour:\n  metrics:\n    cost: {odd}\n---\nnothing\n")
    assert "- 1 Wh (unknown: ? W)" in strange.with_(text="").to_readme()


def test_rows_in_one_line_attend_to_themselves_only() -> None:
    base = Base.from_model(ARCHITECTURES["Llama"].model())
    lengths = torch.tensor([9, 5, 2])
    mask = (torch.arange(9)[None] < lengths[:, None]).long()
    batch = Batch(mask, mask, mask.roll(-1, 1).masked_fill(mask == 0, IGNORED))
    forward = base.forward
    assert forward.packs
    with counted(base) as work:
        forward(batch)
    assert (work.tokens, work.own, work.pairs) == (16, 16, 81 + 25 + 4)
