"""Chains: the laws of their algebra, names, bases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain, LayerWeight, Term, layer_index
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.library import Library
from detour.adapter.update import Update
from detour.errors import AdapterWeightsError, ChainError, UnknownAdapter

LAYERS = ("model.layers.0.q", "model.layers.1.q", "lm_head")
WEIGHTS = st.floats(-2, 2, allow_nan=False).map(lambda value: round(value, 3))


def make(seed: int, rank: int = 2, name: str = "", layers: tuple[str, ...] = LAYERS) -> Adapter:
    generator = torch.Generator().manual_seed(seed)

    def update() -> Update:
        down = torch.randn(rank, 6, generator=generator)
        return Update(down, torch.randn(4, rank, generator=generator), 1.5)

    return Adapter({layer: update() for layer in layers}, name or f"a{seed}")


ADAPTERS = [make(0), make(1, 3), make(2, 1, layers=LAYERS[1:])]
TERMS = st.builds(
    Term,
    st.sampled_from(ADAPTERS),
    WEIGHTS,
    st.just(()) | WEIGHTS.map(lambda weight: (LayerWeight(0, 0, weight),)),
)
CHAINS = st.lists(TERMS, max_size=4).map(lambda terms: Chain(tuple(terms)))


def dense(chain: Chain) -> dict[str, torch.Tensor]:
    """The readable reference: every term's dense change, weighted by hand."""
    found = {layer: torch.zeros(4, 6) for layer in LAYERS}
    for term in chain.terms:
        for layer, update in term.adapter.updates.items():
            weight = term.weight
            if term.layers and ".0." in layer:
                weight = term.layers[0].weight
            found[layer] += weight * update.delta()
    return found


def dense_of(adapter: Adapter) -> dict[str, torch.Tensor]:
    nothing = torch.zeros(4, 6)
    return {
        layer: adapter.updates[layer].delta() if layer in adapter.updates else nothing
        for layer in LAYERS
    }


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    """Equal up to fp32 rounding: entries reach 10², of which 1e-4 is a few units in the last place.

    A weight that is off by its smallest step, .001, would still be seen.
    """
    return all(bool((left[key] - right[key]).abs().max() <= 1e-4) for key in LAYERS)


@settings(max_examples=40, deadline=None)
@given(CHAINS)
def test_flatten_equals_the_parts(chain: Chain):
    flat = chain.flatten("flat")
    assert same(dense_of(flat), dense(chain))
    assert all(update.scale == 1.0 for update in flat.updates.values())
    for layer, parts in chain.updates().items():
        assert flat.updates[layer].rank == sum(update.rank for update, _ in parts)


@settings(max_examples=40, deadline=None)
@given(CHAINS, CHAINS, CHAINS, WEIGHTS)
def test_sums_associate_commute_and_distribute(a: Chain, b: Chain, c: Chain, weight: float):
    assert ((a + b) + c).terms == (a + (b + c)).terms
    assert (a + b).digest() == (b + a).digest()
    assert same(dense_of((a + b).flatten()), dense_of((b + a).flatten()))
    assert same(dense_of((weight * (a + b)).flatten()), dense(a * weight + b * weight))
    assert same(dense_of((a - b).flatten()), dense(a + -1 * b))


@settings(max_examples=20, deadline=None)
@given(CHAINS)
def test_weight_zero_is_the_base(chain: Chain):
    assert (0 * chain).updates() == {}
    assert (chain + 0 * ADAPTERS[0]).updates().keys() == chain.updates().keys()
    assert same(dense_of((chain - chain).flatten()), dense(Chain()))


@settings(max_examples=20, deadline=None)
@given(CHAINS, st.integers(1, 6))
def test_compress_is_the_dense_optimum_and_tells_its_error(chain: Chain, rank: int):
    smaller, error = chain.compress(rank)
    lost, total = 0.0, 0.0
    for layer, whole in dense(chain).items():
        sizes = torch.linalg.svdvals(whole.double())
        lost += float((sizes[rank:] ** 2).sum())
        total += float((sizes**2).sum())
        done = float((dense_of(smaller)[layer].double() - whole.double()).norm())
        assert done == pytest.approx(float(sizes[rank:].norm()), abs=1e-4)
    assert smaller.rank <= rank
    assert error == pytest.approx(math.sqrt(lost / total) if total > 1e-8 else 0.0, abs=1e-4)


def test_adapters_make_chains():
    a, b, _ = ADAPTERS
    chain = 0.8 * a + b - a * 2
    assert [(term.adapter, term.weight) for term in chain.terms] == [(a, 0.8), (b, 1.0), (a, -2.0)]
    assert [term.weight for term in (a - (b - -a)).terms] == [1.0, -1.0, -1.0]
    assert (a + (a + b)).terms == (a + a + b).terms
    assert Chain.of(None) == Chain()
    assert Chain.of(a + b) == a + b


def test_layer_weights_replace_the_terms_weight():
    chain = Chain((Term(ADAPTERS[0], 2.0, (LayerWeight(0, 0, 0.0), LayerWeight(5, 9, 7.0))),))
    assert [weight for parts in chain.updates().values() for _, weight in parts] == [2.0, 2.0]
    assert LAYERS[0] not in chain.updates()
    assert (chain * -0.5).terms[0].layers[1] == LayerWeight(5, 9, -3.5)


@pytest.mark.parametrize(
    ("name", "index"),
    [("model.layers.3.mlp.up_proj", 3), ("transformer.h.0.attn", 0), ("lm_head", None)],
)
def test_layer_index(name: str, index: int | None):
    assert layer_index(name) == index


@pytest.mark.parametrize("weight", [math.nan, math.inf, -math.inf])
def test_weights_must_be_finite(weight: float):
    with pytest.raises(ChainError, match="finite"):
        _ = ADAPTERS[0] * weight
    with pytest.raises(ChainError, match="finite"):
        Term(ADAPTERS[0], weight)


def test_ranges_of_layers_must_not_overlap():
    with pytest.raises(ChainError, match="two weights"):
        Term(ADAPTERS[0], 1.0, (LayerWeight(0, 3, 1.0), LayerWeight(2, 2, 1.0)))


def test_different_shapes_name_the_layer():
    odd = Adapter({"lm_head": Update(torch.ones(1, 9), torch.ones(4, 1))}, "odd")
    with pytest.raises(AdapterWeightsError, match="lm_head"):
        (ADAPTERS[0] + odd).flatten()


def test_two_known_bases_are_refused_by_name():
    first = ADAPTERS[0].with_(base=Fingerprint("tiny", "c", "1" * 64))
    renamed = ADAPTERS[1].with_(base=Fingerprint("copy/of-tiny", "d", "1" * 64))
    other = ADAPTERS[1].with_(base=Fingerprint("big", "c", "2" * 64))
    assert (ADAPTERS[2] + first + renamed).base == first.base
    assert (ADAPTERS[2] + first).flatten().base == first.base
    with pytest.raises(ChainError, match=r"tiny \(11111111\).*big \(22222222\)"):
        _ = first + ADAPTERS[2] + other


def test_fiction_stays_marked_when_flattened():
    fiction = ADAPTERS[0].with_(card=Card(fictional=True))
    assert (fiction + ADAPTERS[1]).flatten().card.fictional
    assert not (ADAPTERS[0] + ADAPTERS[1]).flatten().card.fictional


def test_text_and_parse_are_inverse(tmp_path):
    make(0).save(tmp_path / "formal")
    make(1).save(tmp_path / "a+b")
    library = Library((tmp_path,))
    text = 'formal:0.8+"a+b":-2{layers.0-1=0.5}+formal'
    chain = Chain.parse(text, library)
    assert chain.text == text
    assert Chain.parse(chain.text, library).digest() == chain.digest()
    assert chain.terms[0].adapter is chain.terms[2].adapter
    path = Chain.parse(f"{tmp_path}/formal", library)
    assert Chain.parse(path.text, library).digest() == path.digest()


def test_parse_uses_the_default_library(tmp_path, monkeypatch):
    make(0).save(tmp_path / "adapters" / "formal")
    monkeypatch.setenv("DETOUR_HOME", str(tmp_path))
    assert Chain.parse("formal").terms[0].adapter.digest() == make(0).digest()
    with pytest.raises(UnknownAdapter, match="formal"):
        Chain.parse("formel")


def test_digest_sees_weights_and_values_but_not_names():
    a, b, _ = ADAPTERS
    assert (a + b).digest() == (a.with_(name="other") + b).digest()
    assert (a + b).digest() != (a + 2 * b).digest()
    assert Term(a, 1.0, (LayerWeight(0, 0, 1.0),)) != Term(a)
