"""An adapter meets a base: names, whole values, and what is refused."""

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.unbound import TokenRows, Unbound
from detour.adapter.update import Update
from detour.errors import (
    AdapterTooLarge,
    AdapterWeightsError,
    SlotError,
    SlotsBusy,
    WrongBase,
)
from detour.model.base import Base
from detour.model.binding import bound
from detour.slots.chained import contents_for_chain
from detour.slots.install import install

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
IDS = torch.arange(4, 12)[None]


@pytest.fixture
def base(tiny_llama) -> Base:
    return Base.from_model(tiny_llama)


@pytest.fixture
def dora(make_model, tmp_path: Path) -> Adapter:
    """DoRA on two kinds of layers, random."""
    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], use_dora=True, bias="none")
    wrapped = get_peft_model(make_model("llama"), config)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            parameter.data += 0.3 * torch.randn(parameter.shape)
    wrapped.save_pretrained(tmp_path / "dora", save_embedding_layers=False)
    return Adapter.load(tmp_path / "dora")


def renamed(adapter: Adapter, change: Callable[[str], str]) -> Adapter:
    return replace(adapter, updates={change(n): u for n, u in adapter.updates.items()})


@pytest.mark.parametrize(
    "change",
    [
        lambda name: name.removeprefix("model."),
        lambda name: "model." + name,
        lambda name: "language_model." + name,
        lambda name: name.replace("model.layers", "model.language_model.layers"),
    ],
    ids=["saved without a head", "nested twice", "language model", "within a vision model"],
)
def test_names_of_other_versions_land(base, random_adapter, change):
    shapes = {n: s for n, s in base.slots.shapes.items() if "layers" in n}
    plain = random_adapter(shapes)
    assert torch.equal(base.logits(IDS, renamed(plain, change)), base.logits(IDS, plain))


def test_names_that_fit_twice_or_nowhere_are_listed(base, random_adapter):
    shapes = {n: s for n, s in base.slots.shapes.items() if n.endswith("0.self_attn.q_proj")}
    plain = random_adapter(shapes)
    for change in (lambda _: "q_proj", lambda name: name.replace("q_proj", "query")):
        with pytest.raises(SlotError, match=r"1 of 1 layers do not fit.*no slot"):
            base.bind(renamed(plain, change))


def test_the_same_adapter_is_bound_once_and_not_kept(base, dora):
    first, second = (base.bind(dora).terms[0].adapter for _ in range(2))
    assert first is second
    assert not first.unbound
    assert base.bind(first).terms[0].adapter is first
    copy = dora.with_(name="copy")
    base.bind(copy)
    gone = weakref.ref(copy)
    del copy
    plain = Adapter(
        {"model.layers.0.self_attn.q_proj": Update(torch.ones(1, 32), torch.ones(32, 1))}, "p"
    )
    base.bind(plain)
    left = weakref.ref(plain)
    del plain
    gc.collect()
    assert gone() is None
    assert left() is None


def test_what_was_bound_belongs_to_that_base_only(base, dora, make_model):
    flat = (0.5 * base.bind(dora)).flatten("half")
    assert flat.base == base.fingerprint
    other = Base.from_model(make_model("llama", seed=3))
    with pytest.raises(WrongBase):
        other.bind(flat)


def test_a_base_whose_parameters_are_exchanged_is_not_shared(base):
    norm = Adapter({"model.norm.weight[:]": Update(torch.ones(1, 1), torch.ones(32, 1))}, "norm")
    before = base.logits(IDS)
    with (
        base.hold(contents_for_chain(base.bind(norm))),
        pytest.raises(SlotsBusy, match="exchanged"),
    ):
        base.share()
    assert torch.equal(base.share().logits(IDS), before)
    assert not torch.equal(base.logits(IDS, norm), before)


def test_a_bias_beside_a_kernel():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(100, 2))
    image = torch.randn(2, 3, 5, 5)
    kernel = Update(torch.randn(2, 3, 3, 3), torch.randn(4, 2))
    whole = Adapter({"0": kernel}, "a", unbound=Unbound(biases={"0": torch.randn(4)}))
    slots = install(model)
    own = bound(whole, model, slots)
    with slots.hold(contents_for_chain(Chain.of(own))), torch.no_grad():
        found = model(image)
    model[0].weight.data += kernel.delta()
    model[0].bias.data.copy_(whole.unbound.biases["0"])
    with torch.no_grad():
        torch.testing.assert_close(found, model(image), rtol=1e-5, atol=1e-5)


def test_dora_is_linear_in_its_weight(base, dora):
    bound = base.bind(dora)
    flat = (0.5 * base.bind(dora)).flatten("half")
    torch.testing.assert_close(base.logits(IDS, flat), base.logits(IDS, 0.5 * bound))
    assert torch.equal(base.logits(IDS, 0.0 * bound), base.logits(IDS))
    both = base.logits(IDS.expand(2, -1), [Chain.of(dora), 0.5 * dora])
    torch.testing.assert_close(both[1:], base.logits(IDS, flat), rtol=1e-4, atol=1e-5)


def test_an_adapter_that_changes_nothing_is_refused(base):
    zero = Update(torch.randn(2, 32), torch.zeros(32, 2))
    with pytest.raises(AdapterWeightsError, match=r"dead changes nothing.*first training step"):
        base.bind(Adapter({"model.layers.0.self_attn.q_proj": zero}, "dead"))
    still = Unbound(weights={"model.norm.weight": base.model.model.norm.weight.detach()})
    with pytest.raises(AdapterWeightsError, match="changes nothing"):
        base.bind(Adapter({}, "dead", unbound=still))


Q = "model.layers.0.self_attn.q_proj"
MISFITS = {
    "a head the model lacks": Unbound(weights={"score.weight": torch.ones(2, 32)}),
    "a larger vocabulary": Unbound(weights={"lm_head.weight": torch.ones(999, 32)}),
    "token rows of another width": Unbound(
        tokens={"model.embed_tokens": TokenRows((1,), torch.ones(1, 5))}
    ),
    "an id beyond the vocabulary": Unbound(
        tokens={"model.embed_tokens": TokenRows((999,), torch.ones(1, 32))}
    ),
    "token rows of a linear layer": Unbound(tokens={Q: TokenRows((1,), torch.ones(1, 32))}),
    "a bias of a layer without one": Unbound(biases={Q: torch.ones(32)}),
    "magnitudes of another length": Unbound(magnitudes={Q: torch.ones(31)}),
}


@pytest.mark.parametrize("unbound", MISFITS.values(), ids=MISFITS)
def test_whole_values_that_do_not_fit_are_named(base, unbound):
    update = Update(torch.randn(2, 32), torch.randn(32, 2))
    with pytest.raises(SlotError, match="|".join(unbound.names)):
        base.bind(Adapter({Q: update}, "a", unbound=unbound))


def test_an_embeddings_factors_do_not_land_on_a_linear_layer(base):
    update = Update(torch.randn(2, 32), torch.randn(32, 2), lookup=True)
    with pytest.raises(SlotError, match="of another kind"):
        base.bind(Adapter({Q: update}, "a"))


def test_whole_values_must_be_finite():
    with pytest.raises(AdapterWeightsError, match=r"q\.whole_magnitude"):
        Unbound(magnitudes={"q": torch.tensor([float("nan")])})
    with pytest.raises(AdapterWeightsError, match=r"q\.whole_bias"):
        Unbound(biases={"q": torch.tensor([1])})


@pytest.mark.parametrize("name", ["nowhere.table", "model.embed_tokens.weight"])
def test_token_rows_of_a_module_that_is_not_there_are_named(base, name):
    unbound = Unbound(tokens={name: TokenRows((1,), torch.ones(1, 4))})
    with pytest.raises(SlotError, match=name):
        base.bind(Adapter({}, "rows", unbound=unbound))


def test_more_token_rows_than_fit_are_refused(base, monkeypatch):
    monkeypatch.setattr("detour.model.binding._MOST_ONE_HOT", 100)
    weight = base.model.get_input_embeddings().weight
    unbound = Unbound(tokens={"model.embed_tokens": TokenRows((1, 2), weight[:2] + 1)})
    with pytest.raises(AdapterTooLarge, match="modules_to_save"):
        base.bind(Adapter({}, "rows", unbound=unbound))
