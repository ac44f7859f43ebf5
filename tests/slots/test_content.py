import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain, LayerWeight, Term
from detour.adapter.unbound import Unbound
from detour.adapter.update import Update
from detour.errors import SlotError
from detour.slots.arithmetic import Rows, fast
from detour.slots.chained import contents_for_chain, contents_for_rows
from detour.slots.content import (
    Content,
    Spread,
    bank,
    per_row,
    shared,
    trainable,
)
from detour.slots.content import Term as SlotTerm

IN, OUT = 4, 3
MANY = 24  # adapters: more than a bank pays for
LAYERS = ("layers.0.q", "layers.1.q")


def update(rank: int = 2, seed: int = 0, scale: float = 2.0) -> Update:
    generator = torch.Generator().manual_seed(seed)
    return Update(
        torch.randn(rank, IN, generator=generator),
        torch.randn(OUT, rank, generator=generator),
        scale,
    )


def adapter(seed: int, rank: int = 2, layers: tuple[str, ...] = LAYERS) -> Adapter:
    return Adapter({name: update(rank, seed + i) for i, name in enumerate(layers)}, f"a{seed}")


def delta(content: Content | None, row: int = 0) -> torch.Tensor:
    """The dense (out, in) change that a content makes in one row."""
    if content is None or not content.terms:
        return torch.zeros(OUT, IN)
    rows = Rows.of(torch.full((IN,), row))
    return fast(torch.eye(IN), content, rows).mT


def expected(chain: Chain | None, layer: str) -> torch.Tensor:
    pairs = chain.updates().get(layer, []) if chain else []
    return sum((w * u.delta() for u, w in pairs), torch.zeros(OUT, IN))


def test_shared_is_the_weighted_sum() -> None:
    one, two = update(2, 0), update(3, 1)
    content = shared([(one, 0.5), (two, -2.0)])
    assert content.shape == (OUT, IN)
    assert content.terms[0].rank == 5
    torch.testing.assert_close(delta(content), 0.5 * one.delta() - 2.0 * two.delta())


def test_weight_zero_is_left_out() -> None:
    one = update()
    assert shared([(one, 0.0)]).terms == ()
    assert shared([(one, 1.5), (one, -1.5)]).terms == ()
    assert shared([(one, 0.0), (update(3, 1), 1.0)]).terms[0].rank == 3


def test_factors_take_the_dtype_asked_for_after_scaling() -> None:
    one = Update(torch.ones(1, IN), torch.ones(OUT, 1), 1 / 3)
    term = shared([(one, 3.0)], torch.bfloat16).terms[0]
    assert term.up.dtype is term.down.dtype is torch.bfloat16
    assert torch.equal(term.up, torch.ones(1, OUT).bfloat16())


def test_a_bank_mixes_ranks_without_padding() -> None:
    members = [update(2, 0), None, update(5, 1), update(2, 2)]
    gate = torch.tensor([[1.0, 9.0, 0.0, 0.0], [0.5, 0.0, -1.0, 2.0]])
    content = bank(members, gate)
    assert sorted(term.down.shape[:2] for term in content.terms) == [(1, 5), (2, 2)]
    torch.testing.assert_close(delta(content, 0), members[0].delta())
    mixed = 0.5 * members[0].delta() - members[2].delta() + 2.0 * members[3].delta()
    torch.testing.assert_close(delta(content, 1), mixed)


def test_a_bank_needs_a_gate_over_its_members() -> None:
    with pytest.raises(SlotError, match="gate does not fit the bank"):
        bank([update()], torch.ones(2, 3))


def test_per_row_and_trainable_take_a_scale() -> None:
    one, two = update(2, 0, 1.0), update(2, 1, 1.0)
    generated = per_row(
        torch.stack([one.down, two.down]), torch.stack([one.up.mT, two.up.mT]), scale=3.0
    )
    torch.testing.assert_close(delta(generated, 1), 3.0 * two.delta())
    torch.testing.assert_close(delta(trainable(one.down, one.up.mT, 0.5)), 0.5 * one.delta())


def test_company_is_a_sum() -> None:
    one, two = update(2, 0), update(3, 1)
    content = shared([(one, 1.0)]) + bank([two], torch.tensor([[2.0], [0.0]]))
    assert content.rows == 2
    torch.testing.assert_close(delta(content, 0), one.delta() + 2.0 * two.delta())
    torch.testing.assert_close(delta(content, 1), one.delta())


@pytest.mark.parametrize(
    ("down", "up", "spreads", "gate", "message"),
    [
        ((2, 4), (3, 5), "SS", None, "differ in rank"),
        ((2, 2, 4), (2, 5), "SS", None, "number of dimensions"),
        ((2, 4), (2, 5), "PS", None, "number of dimensions"),
        ((6, 2, 4), (7, 2, 5), "PP", None, "differ in their rows"),
        ((6, 2, 4), (7, 2, 5), "BB", (3, 6), "differ in their adapters"),
        ((6, 2, 4), (6, 2, 5), "BB", (3, 7), "differ in their adapters"),
        ((6, 2, 4), (6, 2, 5), "PP", (7,), "differ in their rows"),
        ((6, 2, 4), (3, 2, 5), "BP", (2, 6), "differ in their rows"),
        ((6, 2, 4), (6, 2, 5), "BB", None, "gate does not fit"),
        ((6, 2, 4), (6, 2, 5), "BB", (6,), "gate does not fit"),
        ((2, 4), (2, 5), "SS", (3, 4), "gate does not fit"),
        ((2, 4), (2, 5), "SS", (), "gate does not fit"),
    ],
)
def test_tensors_of_a_term_must_fit(down, up, spreads: str, gate, message: str) -> None:
    kinds = {"S": Spread.SHARED, "P": Spread.PER_ROW, "B": Spread.BANKED}
    gate = None if gate is None else torch.ones(gate)
    with pytest.raises(SlotError, match=message):
        SlotTerm(torch.ones(down), torch.ones(up), *(kinds[s] for s in spreads), gate)


def test_a_term_has_one_floating_point_dtype() -> None:
    with pytest.raises(SlotError, match="one floating point dtype"):
        SlotTerm(torch.ones(2, 4), torch.ones(2, 5).bfloat16())
    with pytest.raises(SlotError, match="one floating point dtype"):
        SlotTerm(torch.ones(2, 4).long(), torch.ones(2, 5).long())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (trainable(torch.ones(2, IN + 1), torch.ones(2, OUT)), "features"),
        (per_row(torch.ones(3, 2, IN), torch.ones(3, 2, OUT)), "number of rows"),
        (trainable(torch.ones(2, IN, device="meta"), torch.ones(2, OUT, device="meta")), "device"),
    ],
)
def test_terms_of_a_content_must_fit(other: Content, message: str) -> None:
    with pytest.raises(SlotError, match=message):
        per_row(torch.ones(2, 1, IN), torch.ones(2, 1, OUT)) + other


def test_contents_for_a_chain() -> None:
    chain = 0.8 * adapter(0) - adapter(10, 3)
    contents = contents_for_chain(chain)
    assert set(contents) == set(LAYERS)
    for layer in LAYERS:
        torch.testing.assert_close(delta(contents[layer]), expected(chain, layer))


def test_nothing_is_held_for_nothing() -> None:
    one = adapter(0)
    assert contents_for_chain(None) == {}
    assert contents_for_chain(Chain()) == {}
    assert contents_for_chain(0.0 * one) == {}
    assert contents_for_chain(one - one) == {}
    assert contents_for_rows([None, Chain(), 0.0 * one, one - one]) == {}
    assert contents_for_rows([]) == {}


def test_weights_by_layer() -> None:
    one = adapter(0)
    chain = Chain((Term(one, 1.0, (LayerWeight(1, 1, 0.25),)), Term(adapter(5))))
    off = Chain((Term(one, 1.0, (LayerWeight(0, 0, 0.0),)),))
    assert set(contents_for_chain(off)) == {LAYERS[1]}
    contents = contents_for_rows([chain, off, None])
    for layer in LAYERS:
        for row, own in enumerate((chain, off, None)):
            torch.testing.assert_close(delta(contents[layer], row), expected(own, layer))


def test_layers_with_the_same_weights_share_one_gate() -> None:
    one, two = adapter(0), adapter(5, 3)
    contents = contents_for_rows([one + two, Chain.of(one), None])
    gates = {id(term.gate) for c in contents.values() for term in c.terms if term.rank == 2}
    full = contents_for_rows([Chain.of(one), None])
    assert len({id(c.terms[0].gate) for c in full.values()}) == 1
    assert len(gates) == 2  # two ranks: a column of the gate for each


def test_rows_that_agree_are_held_as_one_chain() -> None:
    chain = 0.5 * adapter(0) + adapter(5, 3)
    contents = contents_for_rows([chain, chain])
    for layer in LAYERS:
        assert contents[layer].rows is None
        torch.testing.assert_close(delta(contents[layer]), expected(chain, layer))


def test_an_adapter_with_its_own_layers() -> None:
    one, two = adapter(0, layers=LAYERS[:1]), adapter(5, layers=LAYERS[1:])
    contents = contents_for_rows([Chain.of(one), Chain.of(two)])
    assert torch.equal(delta(contents[LAYERS[0]], 1), torch.zeros(OUT, IN))
    torch.testing.assert_close(delta(contents[LAYERS[1]], 1), two.updates[LAYERS[1]].delta())


weights = st.sampled_from([-1.0, 0.0, 0.3, 1.0, 2.0])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.none() | st.lists(weights, min_size=3, max_size=3), min_size=1, max_size=5))
def test_every_row_gets_its_own_chain_whatever_the_others(rows: list[list[float] | None]) -> None:
    adapters = [adapter(0), adapter(5, 3), adapter(9, layers=LAYERS[:1])]
    chains = [
        row and Chain(tuple(Term(a, w) for a, w in zip(adapters, row, strict=True))) for row in rows
    ]
    contents = contents_for_rows(chains)
    backwards = contents_for_rows(chains[::-1])
    for row, chain in enumerate(chains):
        for layer in LAYERS:
            wanted = expected(chain, layer)
            mirrored = delta(backwards.get(layer), len(rows) - 1 - row)
            torch.testing.assert_close(delta(contents.get(layer), row), wanted)
            torch.testing.assert_close(mirrored, wanted)


def test_gain_and_shift_are_summed_by_weight() -> None:
    one, two = (
        Update(
            torch.ones(0, IN), torch.ones(OUT, 0), 1.0, torch.full((OUT,), g), torch.arange(OUT) * g
        )
        for g in (1.0, 10.0)
    )
    chains = [Chain((Term(Adapter({"up": one}, "a"), 0.5), Term(Adapter({"up": two}, "b"), -1.0)))]
    content = contents_for_chain(chains[0])["up"]
    assert not content.terms
    assert not content.is_empty
    torch.testing.assert_close(content.gain, torch.full((OUT,), -9.5))
    torch.testing.assert_close(content.shift, torch.arange(OUT) * -9.5)
    by_row = contents_for_rows([None, *chains])["up"]
    assert by_row.rows == 2
    torch.testing.assert_close(by_row.gain, torch.stack([torch.zeros(OUT), content.gain]))


def test_gain_and_shift_must_fit_their_terms() -> None:
    term = SlotTerm(torch.ones(1, IN), torch.ones(1, OUT), gate=torch.ones(2))
    with pytest.raises(SlotError, match="gain or shift"):
        Content((term,), torch.ones(OUT + 1))
    with pytest.raises(SlotError, match="gain or shift"):
        Content((term,), shift=torch.ones(3, OUT))


@pytest.mark.parametrize("build", [contents_for_chain, lambda chain: contents_for_rows([chain])])
def test_an_adapter_that_is_not_bound_is_refused(build) -> None:
    whole = Adapter({"up": update()}, "dora", unbound=Unbound({"up": torch.ones(OUT)}))
    with pytest.raises(SlotError, match=r"dora holds whole values and is not bound.*base\.bind"):
        build(Chain.of(whole))


@pytest.mark.parametrize("build", [contents_for_chain, lambda chain: contents_for_rows([chain])])
def test_adapters_of_different_shapes_are_named(build) -> None:
    other = Adapter({LAYERS[0]: Update(torch.ones(1, IN + 1), torch.ones(OUT, 1))}, "other")
    with pytest.raises(SlotError, match=r"'layers\.0\.q' have different.*\(3, 4\), \(3, 5\)"):
        build(adapter(0) + other)
    with pytest.raises(SlotError, match="one layer have different shapes"):
        bank([update(), other.updates[LAYERS[0]]], torch.ones(1, 2))


def test_contents_go_to_the_device_asked_for() -> None:
    chains = [Chain.of(adapter(0)), None]
    for contents in (
        contents_for_chain(chains[0], device="meta"),
        contents_for_rows(chains, device="meta"),
    ):
        assert {t.device.type for c in contents.values() for k in c.terms for t in k.tensors} == {
            "meta"
        }


def many(count: int, rank: int = 2) -> list[Chain]:
    """Chains of one adapter of its own each, of ranks that differ."""
    return [(0.5 + n) * adapter(7 * n, rank + n % 2) for n in range(count)]


@pytest.mark.parametrize("count", [2, MANY])
def test_many_adapters_give_every_row_factors_of_its_own(count: int) -> None:
    chains = [*many(count), None]
    content = contents_for_rows(chains)[LAYERS[0]]
    spreads = {spread for term in content.terms for _, _, spread in term.factors}
    assert spreads == ({Spread.BANKED} if count == 2 else {Spread.PER_ROW})
    for row, chain in enumerate(chains):
        torch.testing.assert_close(delta(content, row), expected(chain, LAYERS[0]))


def test_wide_chains_are_no_wide_bank() -> None:
    whole = Chain(tuple(term for chain in many(MANY) for term in chain.terms))
    content = contents_for_rows([whole, None])[LAYERS[0]]
    assert {s for term in content.terms for _, _, s in term.factors} == {Spread.BANKED}


def test_own_factors_want_one_shape() -> None:
    chains = many(MANY)
    other = Adapter({LAYERS[0]: Update(torch.ones(1, IN + 1), torch.ones(OUT, 1))}, "other")
    with pytest.raises(SlotError, match=r"different shapes.*\(3, 4\), \(3, 5\)"):
        contents_for_rows([*chains, Chain.of(other)])


@pytest.mark.parametrize("count", [3, MANY])
def test_rows_that_are_kept_stay_what_they_were(count: int) -> None:
    scaled = Update(torch.ones(1, IN), torch.ones(OUT, 1), 1.0, torch.ones(OUT), torch.ones(OUT))
    chains = [*many(count), Chain.of(Adapter({LAYERS[0]: scaled}, "gain")), None]
    contents = contents_for_rows(chains)
    places = [count + 1, 0, count, 2]
    gates: dict[int, torch.Tensor] = {}
    for content in contents.values():
        kept = content.kept(torch.tensor(places), gates)
        assert kept.rows == len(places)
        for row, place in enumerate(places):
            torch.testing.assert_close(delta(kept, row), delta(content, place))
        if content.gain is not None:
            torch.testing.assert_close(kept.gain, content.gain[places])
            torch.testing.assert_close(kept.shift, content.shift[places])
        assert shared([(update(), 1.0)]).kept(torch.tensor([0]), gates).rows is None
