"""Bases in 8 and 4 bits, on the CPU too: slots act beside the packed weights."""

import pytest
import torch
from torch import nn

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.unbound import Unbound
from detour.adapter.update import Update
from detour.errors import BaseError, MissingExtra
from detour.model.base import Base
from detour.model.plain_weight import plain_weight

pytestmark = pytest.mark.filterwarnings("ignore")  # bitsandbytes and accelerate warn of many things
IDS = torch.arange(4, 16).reshape(2, 6)
Q = "model.layers.1.self_attn.q_proj"


@pytest.fixture(scope="module")
def folder(make_model, tiny_tokenizer, tmp_path_factory):
    """64 wide: whole blocks of 4-bit values."""
    path = tmp_path_factory.mktemp("wide")
    make_model("llama", hidden_size=64, intermediate_size=128).save_pretrained(path)
    tiny_tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module", params=["8bit", "4bit"])
def packed(request, folder):
    return Base.load(str(folder), quantize=request.param)


def adapter(**unbound) -> Adapter:
    generator = torch.Generator().manual_seed(0)
    update = Update(
        torch.randn(2, 64, generator=generator), torch.randn(64, 2, generator=generator)
    )
    return Adapter({Q: update}, "a", unbound=Unbound(**unbound))


def test_weights_are_packed_and_the_fingerprint_is_that_of_the_files(packed, folder):
    plain = Base.load(str(folder))
    assert packed.fingerprint == plain.fingerprint
    linear = packed.model.get_submodule(Q)
    assert type(linear) is not nn.Linear
    assert not linear.weight.is_floating_point()
    assert packed.slots.shapes == plain.slots.shapes
    assert packed.ask("Where?", max_new_tokens=4)


def test_a_chain_adds_exactly_its_low_rank_change(packed):
    module, one = packed.model.get_submodule(Q), adapter()
    x = torch.randn(2, 5, 64)
    from detour.slots.chained import contents_for_chain

    with torch.no_grad():
        before = module(x)
        with packed.hold(contents_for_chain(packed.bind(0.5 * one))):
            change = module(x) - before
        assert torch.equal(module(x), before)
    wanted = 0.5 * x @ one.updates[Q].delta().mT
    torch.testing.assert_close(change, wanted, rtol=1e-3, atol=1e-2 * float(wanted.abs().max()))


def test_a_gradient_flows_through_packed_layers(packed):
    module = packed.model.get_submodule(Q)
    weight = plain_weight(module)
    with torch.no_grad():
        module(torch.randn(2, 64))  # a validation comes first
    x = torch.randn(3, 64, requires_grad=True)
    module(x).float().sum().backward()
    assert x.grad is not None
    wanted = weight.sum(0).expand(3, 64)
    torch.testing.assert_close(x.grad, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))


def test_rows_keep_to_themselves(packed):
    before = packed.logits(IDS)
    mixed = packed.logits(IDS, [Chain.of(adapter()), None])
    moved, drifted = (mixed - before).abs().amax(dim=(1, 2)).tolist()
    assert moved > 0.1
    # LLM.int8() keeps the largest columns of the whole batch apart, so that rows round together
    eight = type(packed.model.get_submodule(Q)).__name__ == "Linear8bitLt"
    assert drifted <= (0.1 * moved if eight else 1e-3)


def test_the_plain_weight_is_what_the_layer_does(packed):
    module = packed.model.get_submodule(Q)
    weight = plain_weight(module)
    x = torch.randn(3, 64)
    with torch.no_grad():
        torch.testing.assert_close(
            x @ weight.mT, module(x).float(), rtol=0.02, atol=0.02 * float(module(x).abs().max())
        )


def test_dora_is_bound_to_the_packed_weight(packed):
    changed = plain_weight(packed.model.get_submodule(Q)) + adapter().updates[Q].delta()
    magnitude = 2 * changed.norm(dim=1)
    bound = packed.bind(adapter(magnitudes={Q: magnitude})).terms[0].adapter.updates[Q]
    torch.testing.assert_close(bound.row_scale, torch.ones(64), rtol=1e-4, atol=1e-4)


def test_a_saved_module_is_a_difference_from_what_the_layer_does(packed):
    own = plain_weight(packed.model.get_submodule(Q))
    whole = Adapter({}, "whole", unbound=Unbound(weights={f"{Q}.weight": own + 1.0}))
    update = packed.bind(whole).terms[0].adapter.updates[Q]
    torch.testing.assert_close(update.delta(), torch.ones(64, 64), rtol=1e-4, atol=1e-4)


def test_a_packed_base_is_not_shared(packed):
    with pytest.raises(BaseError, match="packed layers cannot be shared"):
        packed.share()


def test_what_cannot_be_packed_is_told(tiny_folder, folder, monkeypatch):
    with pytest.raises(BaseError, match=r"too narrow for 4 bits.*64.*32.*8bit"):
        Base.load(str(tiny_folder), quantize="4bit")
    with pytest.raises(BaseError, match="unknown quantisation '3bit'"):
        Base.load(str(folder), quantize="3bit")

    def missing(module: str, extra: str) -> None:
        raise MissingExtra(f"{module} is not installed", hint=extra)

    monkeypatch.setattr("detour.model.quantized.require", missing)
    with pytest.raises(MissingExtra, match=r"bitsandbytes.*scale"):
        Base.load(str(folder), quantize="8bit")
