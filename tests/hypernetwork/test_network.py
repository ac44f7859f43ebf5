"""The network: its size, its start, and that one pass equals many."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from detour.hypernetwork.config import NetworkConfig, published
from detour.hypernetwork.encoder import Described
from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.places import places_of
from detour.model.base import Base

HEADS = ("L", "M", "S", "Z")
SHAPES = {
    "model.layers.0.self_attn.q_proj": (32, 32),
    "model.layers.0.self_attn.v_proj": (16, 32),
    "model.layers.1.self_attn.q_proj": (32, 32),
    "model.layers.1.self_attn.v_proj": (16, 32),
}


def small(head: str, encoder: str = "spans") -> NetworkConfig:
    return NetworkConfig.model_validate(
        {"head": head, "encoder": encoder, "rank": 2, "task_width": 8, "place_width": 4,
         "hidden": 16, "dropout": 0.0}
    )  # fmt: skip


def some(tasks: int = 3, parts: int = 2, width: int = 24) -> Described:
    torch.manual_seed(1)
    return Described(torch.randn(tasks, parts, width), torch.ones(tasks, parts, dtype=torch.bool))


def moved(network: Hypernetwork) -> Hypernetwork:
    """As if it had been trained: no weight is zero."""
    torch.manual_seed(2)
    for parameter in network.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize(("head", "millions"), [("L", 55.4), ("M", 34.4), ("S", 5.0)])
def test_published_sizes_on_mistral(head: str, millions: float) -> None:
    shapes: dict[str, tuple[int, int]] = {}
    for layer in range(32):
        shapes[f"model.layers.{layer}.self_attn.q_proj"] = (4096, 4096)
        shapes[f"model.layers.{layer}.self_attn.v_proj"] = (1024, 4096)
    with torch.device("meta"):
        network = Hypernetwork(published(head), places_of(shapes), 1024)  # type: ignore[arg-type]
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == millions


@pytest.mark.parametrize("head", HEADS)
def test_step_zero_is_the_base(head: str, base: Base) -> None:
    network = Hypernetwork(small(head), places_of(_shapes(base)), 24)
    ids = torch.arange(12).view(2, 6)
    generated = network(some(2))
    with torch.no_grad(), base.hold(generated.contents()), base.slots.rows(torch.arange(2), 6):
        logits = base.model(ids, use_cache=False).logits
    assert torch.equal(logits, base.logits(ids))


@pytest.mark.parametrize("head", HEADS)
def test_gradients_flow_at_step_zero(head: str, base: Base) -> None:
    network = Hypernetwork(small(head), places_of(_shapes(base)), 24)
    ids = torch.arange(12).view(2, 6)
    with base.hold(network(some(2)).contents()), base.slots.rows(torch.arange(2), 6):
        base.model(ids, use_cache=False).logits.square().mean().backward()
    for name, parameters in network.groups().items():
        if name.startswith("head"):
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in parameters), name


@pytest.mark.parametrize("head", HEADS)
def test_all_at_once_equals_one_by_one(head: str) -> None:
    network = moved(Hypernetwork(small(head), places_of(SHAPES), 24))
    described = some(3)
    whole = network(described)
    for task in range(3):
        one = network(Described(described.vectors[task : task + 1], described.there[:1]))
        for layer, (down, up) in one.factors.items():
            assert torch.allclose(whole.factors[layer][0][task], down[0], atol=1e-6)
            assert torch.allclose(whole.factors[layer][1][task], up[0], atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_the_updates_of_phrases_add_up(head: str) -> None:
    network = moved(Hypernetwork(small(head), places_of(SHAPES), 24))
    described = some(1)
    both = network(described)
    alone = [
        network(Described(described.vectors[:, part : part + 1], described.there[:, :1]))
        for part in range(2)
    ]
    for layer, (down, up) in both.factors.items():
        parts = [one.factors[layer] for one in alone]
        summed = sum((u[0].mT @ d[0] for d, u in parts), torch.zeros(()))
        assert torch.allclose(up[0].mT @ down[0], summed, atol=1e-5)


def test_a_part_that_is_not_there_changes_nothing() -> None:
    network = moved(Hypernetwork(small("L"), places_of(SHAPES), 24))
    described = some(1)
    first = network(Described(described.vectors[:, :1], described.there[:, :1]))
    there = torch.tensor([[True, False]])
    padded = network(Described(described.vectors, there))
    for layer, (down, up) in first.factors.items():
        wide_down, wide_up = padded.factors[layer]
        assert torch.allclose(up[0].mT @ down[0], wide_up[0].mT @ wide_down[0], atol=1e-6)


@pytest.mark.parametrize("encoder", ["mean", "tokens"])
def test_other_encoders_give_one_update_a_description(encoder: str) -> None:
    network = moved(Hypernetwork(small("L", encoder), places_of(SHAPES), 24))
    parts = 1 if encoder == "mean" else 5
    generated = network(some(2, parts))
    assert all(down.shape[:2] == (2, 2) for down, _ in generated.factors.values())


def test_padding_does_not_change_what_is_read_of_tokens() -> None:
    network = moved(Hypernetwork(small("L", "tokens"), places_of(SHAPES), 24))
    described = some(1, 3)
    vectors = torch.cat([described.vectors, torch.full((1, 2, 24), 9.0)], 1)
    there = torch.tensor([[True, True, True, False, False]])
    one, other = network(described), network(Described(vectors, there))
    for layer, (down, _) in one.factors.items():
        assert torch.allclose(down, other.factors[layer][0], atol=1e-6)


def test_layers_are_grouped_by_module_and_shape() -> None:
    shapes = {**SHAPES, "model.layers.2.self_attn.q_proj": (64, 32), "lm_head": (7, 32)}
    places = places_of(shapes)
    assert [(g.module, len(g.layers)) for g in places.groups] == [
        ("model.layers.#.self_attn.q_proj", 2),
        ("model.layers.#.self_attn.v_proj", 2),
        ("model.layers.#.self_attn.q_proj", 1),
        ("lm_head", 1),
    ]
    assert places.count == 6


def _shapes(base: Base) -> dict[str, tuple[int, int]]:
    return {n: base.slots.shapes[n] for n in base.slots.named(["q_proj", "v_proj"])}


def test_any_architecture(
    any_model: Callable[[], object], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Fused and transposed layers too: all linear layers get updates of the right shape."""
    base = Base.from_model(any_model, tiny_tokenizer)  # type: ignore[arg-type]
    shapes = {n: base.slots.shapes[n] for n in base.slots.named("all-linear")}
    network = moved(Hypernetwork(small("M"), places_of(shapes), 24))
    generated = network(some(2))
    assert {n: (u.shape[-1], d.shape[-1]) for n, (d, u) in generated.factors.items()} == shapes
