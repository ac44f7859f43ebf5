"""An adapter that moves no logit is refused where it is used; every other one passes."""

import pytest
import torch

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.errors import AdapterWeightsError
from detour.model.acting import check_acts
from detour.model.base import Base


@pytest.fixture(params=["llama", "gpt2", "qwen3"])
def base(request, make_model) -> Base:
    return Base.from_model(make_model(request.param))


def one_layer(base: Base, strength: float) -> Adapter:
    """A change of the first layer alone."""
    name = base.slots.linear_names()[0]
    out, wide = base.slots.shapes[name]
    return Adapter({name: Update(torch.full((1, wide), strength), torch.ones(out, 1))}, "thin")


def test_an_adapter_that_moves_the_logits_passes(base, random_adapter) -> None:
    check_acts(base, None)
    check_acts(base, Chain())
    check_acts(base, random_adapter(base.slots.shapes, strength=0.01))
    check_acts(base, one_layer(base, 0.05))


def test_one_that_rounding_swallows_is_refused_by_name(base, random_adapter) -> None:
    weak = one_layer(base, 1e-12)
    base.bind(weak)  # every key lands, and its norm is above zero
    for chain in (Chain.of(weak), 0.0 * weak, Chain.of(random_adapter(base.slots.shapes), weak)):
        with pytest.raises(AdapterWeightsError, match="thin changes nothing that the base says"):
            check_acts(base, chain)


def test_weights_play_no_part(base, random_adapter) -> None:
    adapter = random_adapter(base.slots.shapes)
    check_acts(base, 0.0 * adapter)
    check_acts(base, adapter - Chain.of(adapter))


def test_rows_of_tokens_that_the_probe_does_not_meet_pass(base) -> None:
    table = next(n for n, m in base.model.named_modules() if isinstance(m, torch.nn.Embedding))
    rows, wide = base.slots.module(table).weight.shape
    one = torch.zeros(1, rows)
    one[0, 5] = 1.0
    check_acts(base, Adapter({table: Update(one, torch.ones(wide, 1), lookup=True)}, "one token"))
