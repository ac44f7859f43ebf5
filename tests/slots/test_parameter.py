"""Parameters without a slot: changed while they are held, themselves again afterwards."""

import pytest
import torch
from torch import nn

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.errors import SlotError, SlotsBusy, UnsupportedVariant
from detour.slots.chained import contents_for_chain, contents_for_rows
from detour.slots.install import install
from detour.slots.parameter import find


class Experts(nn.Module):
    """Stacked weights (experts, out, in) as transformers keeps them, and a gain."""

    def __init__(self, is_transposed: bool = False) -> None:
        super().__init__()
        self.is_transposed = is_transposed
        self.first = nn.Parameter(torch.randn(3, 4, 5))
        self.gain = nn.Parameter(torch.randn(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scaled = x * self.gain
        return torch.stack([nn.functional.linear(scaled, weight) for weight in self.first])


def model(is_transposed: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"mlp": Experts(is_transposed), "head": nn.Linear(4, 4)})


def chain(**updates: Update) -> Chain:
    return Chain.of(Adapter(dict(updates), "a"))


EXPERT = Update(torch.randn(2, 5), torch.randn(4, 2), 0.5)
GAIN = Update(torch.ones(1, 1), torch.randn(5, 1))


def test_places_are_found_by_name():
    frozen = model()
    assert find(frozen, "mlp.first[2]").shape == (4, 5)
    assert find(frozen, "mlp.gain[:]").shape == (5, 1)
    assert find(model(is_transposed=True), "mlp.first[0]").shape == (5, 4)
    for nowhere in (
        "mlp.first[3]",
        "mlp.first[:]",
        "mlp.gain",
        "mlp.other[:]",
        "no.gain[:]",
        "mlp.gain[0]",
    ):
        assert find(frozen, nowhere) is None


def test_changes_act_and_leave_again():
    frozen, x = model(), torch.randn(2, 5)
    slots = install(frozen)
    before, names = frozen["mlp"](x), [name for name, _ in frozen.named_parameters()]
    own = frozen["mlp"].first
    both = chain(**{"mlp.first[1]": EXPERT, "mlp.gain[:]": GAIN})
    with slots.hold(contents_for_chain(-2.0 * both)):
        assert slots.landed == 2
        assert slots.exchanged
        assert slots.parameter("mlp.first") is own
        assert find(frozen, "mlp.gain[:]").value is not slots.parameter("mlp.gain")
        changed = frozen["mlp"](x)
    scaled = x * (frozen["mlp"].gain - 2 * GAIN.up[:, 0])
    weights = torch.stack([own[0], own[1] - 2 * EXPERT.delta(), own[2]])
    wanted = torch.stack([nn.functional.linear(scaled, weight) for weight in weights])
    torch.testing.assert_close(changed, wanted, rtol=1e-5, atol=1e-5)
    assert slots.landed == 0
    assert not slots.exchanged
    assert frozen["mlp"].first is own
    assert [name for name, _ in frozen.named_parameters()] == names
    assert torch.equal(frozen["mlp"](x), before)


def test_a_transposed_stack_is_changed_the_other_way_round():
    frozen = model(is_transposed=True)
    update = Update(torch.randn(1, 4), torch.randn(5, 1))
    before = frozen["mlp"].first[0].clone()
    with install(frozen).hold(contents_for_chain(chain(**{"mlp.first[0]": update}))):
        torch.testing.assert_close(frozen["mlp"].first[0], before + update.delta().mT)


def test_rows_that_differ_are_refused_by_name():
    frozen = model()
    slots = install(frozen)
    contents = contents_for_rows([chain(**{"mlp.first[1]": EXPERT}), None])
    with (
        pytest.raises(UnsupportedVariant, match=r"mlp\.first\[1\] cannot differ"),
        slots.hold(contents),
    ):
        pass
    with slots.hold(contents_for_rows([chain(**{"mlp.gain[:]": GAIN})] * 2)):
        assert slots.landed == 1


def test_what_lands_nowhere_is_listed():
    slots = install(model())
    with pytest.raises(SlotError, match=r"2 of 2 layers.*mlp\.first\[9\].*mlp\.gain\[:\]"):
        slots.check({"mlp.first[9]": (4, 5), "mlp.gain[:]": (4, 5)})


def test_somebody_else_hears_that_the_slots_are_busy():
    slots = install(model())
    mine, other = (contents_for_chain(chain(**{"mlp.gain[:]": GAIN})) for _ in range(2))
    with slots.hold(mine), pytest.raises(SlotsBusy), slots.hold(other):
        pass
    with slots.hold(other):
        assert slots.landed == 1


def test_a_parameter_has_no_output():
    scaled = Update(torch.ones(1, 1), torch.ones(5, 1), 1.0, torch.ones(5))
    slots = install(model())
    contents = contents_for_chain(chain(**{"mlp.gain[:]": scaled}))
    with pytest.raises(SlotError, match="no output"), slots.hold(contents):
        pass
