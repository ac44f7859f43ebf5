import itertools

import pytest
import torch
from torch import Tensor

from detour.errors import SlotError
from detour.slots.arithmetic import FEW, LowRank, Rows, add, fast, low_rank
from detour.slots.content import Content, Spread, Term, per_row, pissa, trainable
from detour.slots.reference import reference

ROWS, ADAPTERS, RANK, IN, OUT = 3, 4, 2, 5, 6
LEAD = {Spread.SHARED: (), Spread.PER_ROW: (ROWS,), Spread.BANKED: (ADAPTERS,)}
SPREADS = list(itertools.product(Spread, Spread))
GATES = ["none", "number", "rows", "rank"]
KINDS = [
    (down, up, gate)
    for down, up in SPREADS
    for gate in (["rows"] if Spread.BANKED in (down, up) else GATES)
]

# (shape of x without features, row index): sequences in order and not, packed, flattened
LAYOUTS = {
    "batch in order": ((3, 4), [0, 1, 2]),
    "batch out of order": ((3, 4), [2, 0, 2]),
    "the first rows": ((2, 3), [0, 1]),
    "larger batch": ((5, 2), [2, 0, 1, 1, 0]),
    "packed": ((2, 4), [[0, 0, 1, 2], [2, 2, 1, 1]]),
    "flattened": ((5,), [0, 0, 2, 1, 1]),
    "flattened in order": ((3,), [0, 1, 2]),
    "patches": ((3, 2, 2), [1, 2, 0]),
}


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


def gradients(function, x: Tensor, content: Content, rows: Rows | None) -> list[Tensor]:
    leaves = [x, *(t for part in content.terms for t in part.tensors)]
    weights = torch.linspace(-1, 1, OUT, dtype=x.dtype)
    return list(torch.autograd.grad((function(x, content, rows) * weights).sum(), leaves))


def assert_alike(x: Tensor, content: Content, rows: Rows | None, tolerance: float = 1e-10) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(fast(x, content, rows), reference(x, content, rows), **close)
    pairs = zip(
        gradients(fast, x, content, rows), gradients(reference, x, content, rows), strict=True
    )
    for ours, expected in pairs:
        torch.testing.assert_close(ours, expected, **close)
    with torch.no_grad():
        torch.testing.assert_close(fast(x, content, rows), reference(x, content, rows), **close)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("down", "up", "gate"), KINDS)
def test_fast_equals_the_reference(down: Spread, up: Spread, gate: str, layout: str) -> None:
    lead, index = LAYOUTS[layout]
    content = Content((term(down, up, gate),))
    assert_alike(tensor(*lead, IN), content, Rows.of(torch.tensor(index)))


@pytest.mark.parametrize("rank", [1, 8, 9, 20])
@pytest.mark.parametrize("tokens", [1, 15, 16, 40])
def test_every_rank_and_length_of_a_shared_term(rank: int, tokens: int) -> None:
    content = Content((term(Spread.SHARED, Spread.SHARED, "number", rank),))
    assert_alike(tensor(1, tokens, IN), content, None)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sum_of_all_kinds(layout: str) -> None:
    lead, index = LAYOUTS[layout]
    kinds = [term(down, up) for down, up in SPREADS] + [term(*[Spread.SHARED] * 2, "none", 3)]
    assert_alike(tensor(*lead, IN), Content(tuple(kinds)), Rows.of(torch.tensor(index)))


def test_fp32() -> None:
    kinds = [term(down, up, dtype=torch.float32) for down, up in SPREADS]
    x = tensor(3, 7, IN, dtype=torch.float32)
    assert_alike(x, Content(tuple(kinds)), Rows.of(torch.arange(3)), 2e-5)


def test_gradcheck_of_the_own_function() -> None:
    y, x = tensor(2, 9, OUT), tensor(2, 9, IN)
    down, up = tensor(RANK, IN), tensor(RANK, OUT)
    for gate in (None, 0.5, tensor(2, 9, RANK), tensor(2, 1, 1)):
        assert torch.autograd.gradcheck(LowRank.apply, (y, x, down, up, gate))
    batched = tensor(2, RANK, IN), tensor(2, RANK, OUT)
    assert torch.autograd.gradcheck(LowRank.apply, (y, x, *batched, tensor(2, 1, RANK)))


@pytest.mark.parametrize("tokens", [3, FEW])
@pytest.mark.parametrize("shape", [(9,), (1, 9)])
def test_what_torch_differentiates_is_what_the_own_function_says(
    tokens: int, shape: tuple[int, ...]
) -> None:
    lines = (*shape[:-1], tokens)
    for gate in (None, 0.5, tensor(*lines, RANK), tensor(*lines[:-1], 1, 1)):
        values = [tensor(*lines, OUT), tensor(*lines, IN), tensor(RANK, IN), tensor(RANK, OUT)]
        learned = [*values, gate] if isinstance(gate, torch.Tensor) else values
        found = low_rank(*values, gate)
        expected = LowRank.apply(*values, gate)
        torch.testing.assert_close(found, expected)
        ours = torch.autograd.grad(found.square().sum(), learned)
        theirs = torch.autograd.grad(expected.square().sum(), learned)
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize("wanted", range(5))
def test_only_the_gradient_asked_for_is_formed(wanted: int) -> None:
    values = [tensor(9, OUT), tensor(9, IN), tensor(RANK, IN), tensor(RANK, OUT), tensor(9, 1)]
    everything = torch.autograd.grad(LowRank.apply(*values).square().sum(), values)
    alone = [v.detach().requires_grad_(i == wanted) for i, v in enumerate(values)]
    LowRank.apply(*alone).square().sum().backward()
    torch.testing.assert_close(alone[wanted].grad, everything[wanted])
    assert all(v.grad is None for i, v in enumerate(alone) if i != wanted)


@pytest.mark.parametrize("factor_dtype", [torch.float32, torch.bfloat16])
def test_a_bf16_base_keeps_its_dtype(factor_dtype: torch.dtype) -> None:
    content = Content((term(Spread.SHARED, Spread.SHARED, "number", 4, dtype=factor_dtype),))
    x = tensor(2, 20, IN, dtype=torch.bfloat16)
    y = torch.randn(2, 20, OUT).bfloat16()
    exact = Content(tuple(Term(t.down.double(), t.up.double(), gate=t.gate) for t in content.terms))
    expected = y.double() + reference(x.double(), exact)
    result = add(y, x, content)
    assert result.dtype is torch.bfloat16
    torch.testing.assert_close(result.double(), expected, rtol=0.02, atol=0.02)
    gradient_x, gradient_down, _ = gradients(fast, x, content, None)
    assert gradient_x.dtype is torch.bfloat16
    assert gradient_down.dtype is factor_dtype
    with torch.no_grad():
        torch.testing.assert_close(add(y.clone(), x, content), result, rtol=0.01, atol=0.01)


def test_fp32_factors_over_bf16_are_multiplied_in_fp32() -> None:
    down, up = torch.full((1, 2), 1 + 2**-10), torch.tensor([[1.0]])
    x = torch.tensor([[256.0, -256.0]]).bfloat16()
    down[0, 1] = 1.0  # bf16 factors would give 0: they cannot tell 1 + 2^-10 from 1
    assert fast(x, trainable(down, up)).item() == 0.25


def test_add_leaves_y_alone_where_gradients_flow_and_changes_it_elsewhere() -> None:
    content = trainable(tensor(RANK, IN), tensor(RANK, OUT))
    y, x = tensor(4, OUT, grad=False), tensor(4, IN, grad=False)
    before = y.clone()
    result = add(y, x, content)
    assert torch.equal(y, before)
    with torch.no_grad():
        assert add(y, x, content) is y
    torch.testing.assert_close(y, result.detach())


def test_a_strided_output_is_changed_too() -> None:
    content = trainable(tensor(RANK, IN, grad=False), tensor(RANK, OUT, grad=False))
    x = tensor(4, 3, IN, grad=False)
    y = torch.zeros(3, 4, OUT, dtype=torch.float64).transpose(0, 1)
    torch.testing.assert_close(add(y, x, content), reference(x, content))


def test_an_empty_content_adds_nothing() -> None:
    y = tensor(2, OUT)
    assert add(y, tensor(2, IN), Content()) is y


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (None, "no row index is set"),
        (torch.tensor(0), "no row index is set"),
        (torch.tensor([0, 1]), "does not fit the input"),
        (torch.tensor([0]), "does not fit the input"),
        (torch.zeros(3, 1, dtype=torch.long), "does not fit the input"),
        (torch.zeros(3, 4, IN, dtype=torch.long), "does not fit the input"),
        (torch.tensor([0, 1, 3]), "a row that the content does not have"),
    ],
)
@pytest.mark.parametrize("function", [fast, reference])
def test_a_row_index_that_does_not_fit_is_an_error(function, index, message: str) -> None:
    content = Content((term(Spread.BANKED, Spread.BANKED),))
    rows = None if index is None else Rows.of(index)
    with pytest.raises(SlotError, match=message):
        function(tensor(3, 4, IN), content, rows)


@pytest.mark.parametrize("index", [[], [0.5], [True], [-1, 0]])
def test_an_index_must_name_rows(index: list[float]) -> None:
    with pytest.raises(SlotError, match="row index"):
        Rows.of(torch.tensor(index))


def test_shared_content_needs_no_rows_and_takes_any() -> None:
    content = Content((term(Spread.SHARED, Spread.SHARED, "number"),))
    x = tensor(3, 4, IN)
    assert torch.equal(fast(x, content), fast(x, content, Rows.of(torch.tensor([7, 8]))))


def test_picked_gates_are_remembered_unless_they_learn() -> None:
    rows = Rows.of(torch.tensor([1, 1]))
    fixed, learning = tensor(ROWS, 2, grad=False), tensor(ROWS, 2)
    assert rows.pick(fixed) is rows.pick(fixed)
    assert rows.pick(learning) is not rows.pick(learning)
    assert Rows.of(torch.arange(ROWS)).pick(fixed) is fixed


def test_pissa_starts_at_nothing_and_learns_both_factors() -> None:
    down, up = tensor(RANK, IN), tensor(RANK, OUT)
    content = pissa(down, up, 0.5)
    x = tensor(4, IN)
    torch.testing.assert_close(fast(x, content), torch.zeros(4, OUT, dtype=torch.float64))
    gradient = torch.autograd.grad(fast(x, content).sum(), [down, up])
    expected = torch.autograd.grad(fast(x, trainable(down, up, 0.5)).sum(), [down, up])
    for ours, theirs in zip(gradient, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.no_grad():
        up.add_(1.0)
    assert fast(x, content).abs().max() > 0.1


def test_per_row_factors_carry_their_gradient_to_what_made_them() -> None:
    seed = tensor(ROWS, 1)
    content = per_row(
        seed[:, :, None] * tensor(RANK, IN, grad=False),
        seed[:, :, None] * tensor(RANK, OUT, grad=False),
    )
    fast(tensor(3, 4, IN), content, Rows.of(torch.tensor([0, 2, 2]))).square().sum().backward()
    assert seed.grad is not None
    assert (seed.grad[:, 0] != 0).tolist() == [True, False, True]


@pytest.mark.parametrize("width", [64, 1024])
@pytest.mark.parametrize("gate", [None, 2.0])
def test_fp32_factors_learn_beside_16_bit_inputs(width: int, gate: float | None) -> None:
    tokens = 64
    x, y = (torch.randn(tokens, width).bfloat16().requires_grad_() for _ in range(2))
    down, up = (torch.randn(4, width).mul(0.1).requires_grad_() for _ in range(2))
    upstream = torch.randn(tokens, width).bfloat16()
    values = (y, x, down, up)
    found = low_rank(*values, gate)
    exact = [value.detach().double().requires_grad_() for value in values]
    expected = low_rank(*exact, gate)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=0.05, rtol=0.02)
    ours = torch.autograd.grad(found, values, upstream)
    theirs = torch.autograd.grad(expected, exact, upstream.double())
    for one, other, value in zip(ours, theirs, values, strict=True):
        assert one.dtype == value.dtype
        error = (one.double() - other).norm() / other.norm()
        assert error < 0.01, error


def test_16_bit_inputs_are_not_kept_in_fp32() -> None:
    x, y = (torch.randn(512, 1024).bfloat16().requires_grad_() for _ in range(2))
    down, up = (torch.randn(4, 1024).requires_grad_() for _ in range(2))
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        low_rank(y, x, down, up)
    assert sum(tensor.nbytes for tensor in kept) < 1.1 * x.nbytes


def test_low_rank_under_autocast_keeps_gradients_in_the_factors_dtype() -> None:
    down, up = (tensor(4, n, dtype=torch.float32) for n in (IN, OUT))
    x = tensor(20, IN, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        result = low_rank(torch.zeros(20, OUT).bfloat16(), x, down, up, 2.0)
    result.float().sum().backward()
    assert result.dtype is torch.bfloat16
    assert down.grad is not None
    torch.testing.assert_close(
        up.grad, 2.0 * (x @ down.mT).sum(0)[:, None].expand(4, OUT), rtol=0.05, atol=0.1
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("gate", [None, 0.5])
def test_many_tokens_of_one_chain_are_the_plain_product(dtype, gate):
    """Above 2**21 multiplications the two products are formed another way."""
    torch.manual_seed(0)
    x = torch.randn(2, 300, 256).to(dtype)
    y = torch.randn(2, 300, 128).to(dtype)
    down, up = torch.randn(16, 256) / 16, torch.randn(16, 128) / 4
    expected = y.double() + (gate or 1.0) * (x.double() @ down.double().mT) @ up.double()
    with torch.no_grad():
        found = add(y.clone(), x, Content((Term(down, up, gate=gate),)))
    tolerance = (
        {"atol": 1e-4, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.05, "rtol": 0.02}
    )
    torch.testing.assert_close(found.double(), expected, **tolerance)
