import pytest
import torch
from torch import Tensor

from detour.slots.arithmetic import Rows, fast
from detour.slots.content import Content, Spread, Term
from detour.slots.prepare import Gates, prepared
from detour.slots.reference import reference

ROWS, ADAPTERS, RANK, IN, OUT = 3, 4, 2, 5, 6
LEAD = {Spread.SHARED: (), Spread.PER_ROW: (ROWS,), Spread.BANKED: (ADAPTERS,)}
LAYOUTS = {(3, 4): [2, 0, 2], (2, 4): [[0, 0, 1, 2], [2, 2, 1, 1]], (5,): [0, 0, 2, 1, 1]}


def tensor(*shape: int, dtype: torch.dtype = torch.float64, grad: bool = True) -> Tensor:
    return (torch.randn(*shape, dtype=torch.float64) / 2).to(dtype).requires_grad_(grad)


def term(down: Spread, up: Spread, gate: str = "rows", rank: int = RANK, **kind: object) -> Term:
    factors = tensor(*LEAD[down], rank, IN, **kind), tensor(*LEAD[up], rank, OUT, **kind)
    gates = {
        "none": lambda: None,
        "number": lambda: 0.7,
        "rows": lambda: tensor(ROWS, **kind),
        "rank": lambda: tensor(ROWS, rank, **kind),
    }
    banked = Spread.BANKED in (down, up)
    return Term(*factors, down, up, tensor(ROWS, ADAPTERS, **kind) if banked else gates[gate]())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def frozen(*spreads: tuple[Spread, Spread], rank: int = RANK) -> list[Term]:
    return [term(down, up, "rows", rank, grad=False) for down, up in spreads]


def test_prepared_makes_one_term_of_the_frozen_and_adds_the_same() -> None:
    bank, both = (Spread.BANKED,) * 2, (Spread.SHARED,) * 2
    terms = [
        *frozen(bank, both),
        *frozen(bank, rank=3),
        term(*both, "rank", grad=False),
        term(*both, "none", grad=False),
        term(*both, "number", 7, grad=False),
    ]
    content = Content(tuple(terms))
    done = prepared(content, {})
    assert len(done.terms) == 1
    assert done.terms[0].rank == ADAPTERS * (RANK + 3) + 3 * RANK + 7
    for lead, index in LAYOUTS.items():
        x, rows = tensor(*lead, IN), Rows.of(torch.tensor(index))
        torch.testing.assert_close(fast(x, done, rows), reference(x, content, rows))
        torch.testing.assert_close(reference(x, done, rows), reference(x, content, rows))


def test_prepared_leaves_what_learns_alive() -> None:
    learning = term(Spread.SHARED, Spread.SHARED, "number")
    generated = frozen((Spread.PER_ROW, Spread.PER_ROW))[0]
    done = prepared(Content((learning, generated, *frozen((Spread.BANKED, Spread.BANKED)))), {})
    assert done.terms[:2] == (learning, generated)
    x, rows = tensor(3, 2, IN), Rows.of(torch.arange(3))
    before = fast(x, done, rows)
    with torch.no_grad():
        learning.up.add_(1.0)
    assert not torch.equal(fast(x, done, rows), before)


def test_prepared_numbers_alone_need_no_rows() -> None:
    both = (Spread.SHARED,) * 2
    content = Content(tuple(term(*both, g, grad=False) for g in ("none", "number", "number")))
    done = prepared(content, {})
    x = tensor(4, IN)
    assert len(done.terms) == 1
    assert done.rows is None
    torch.testing.assert_close(fast(x, done), reference(x, content))


def test_layers_of_one_gate_go_on_sharing_it() -> None:
    gate = tensor(ROWS, ADAPTERS, grad=False)

    def layer() -> Content:
        parts = [
            Term(
                tensor(ADAPTERS, rank, IN, grad=False),
                tensor(ADAPTERS, rank, OUT, grad=False),
                Spread.BANKED,
                Spread.BANKED,
                gate,
            )
            for rank in (2, 3)
        ]
        return Content(tuple(parts))

    gates: Gates = {}
    first, second = prepared(layer(), gates), prepared(layer(), gates)
    assert first.terms[0].gate is second.terms[0].gate


def test_factors_of_two_dtypes_are_not_made_one() -> None:
    both = (Spread.SHARED,) * 2
    kinds = [term(*both, "none", dtype=d, grad=False) for d in (torch.float32, torch.float64)]
    done = prepared(Content((kinds[0], kinds[1], kinds[0])), {})
    assert sorted(str(t.down.dtype) for t in done.terms) == ["torch.float32", "torch.float64"]


def test_wide_factors_lie_as_decoding_reads_them() -> None:
    both = (Spread.SHARED,) * 2
    thin, wide = (
        prepared(Content((term(*both, "none", rank, grad=False),)), {}).terms[0].down
        for rank in (8, 9)
    )
    assert thin.is_contiguous()
    assert wide.mT.is_contiguous()
