"""Logits against PEFT, and the laws of chains, on tiny random models."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.slots.chained import contents_for_chain, contents_for_rows
from detour.slots.install import SlotSet, install

# PEFT 0.21 asks transformers 5.23 by a name that is on its way out
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    return LlamaForCausalLM(config).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)).eval()


TARGETS = {llama: ["q_proj", "v_proj", "down_proj", "lm_head"], gpt2: ["c_attn", "c_proj"]}
IDS = torch.randint(0, 40, (3, 6), generator=torch.Generator().manual_seed(1))


def lora_model(make, rank: int = 4, seed: int = 0, rslora: bool = False) -> nn.Module:
    config = LoraConfig(
        r=rank,
        lora_alpha=9,
        target_modules=TARGETS[make],
        use_rslora=rslora,
        fan_in_fan_out=make is gpt2,
    )
    model = get_peft_model(make(), config).eval()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return model


def adapter_of(model: nn.Module, name: str) -> Adapter:
    updates = {
        layer.removeprefix("base_model.model."): Update(
            module.lora_A["default"].weight.detach(),
            module.lora_B["default"].weight.detach(),
            module.scaling["default"],
        )
        for layer, module in model.named_modules()
        if hasattr(module, "lora_A")
    }
    return Adapter(updates, name)


def logits(model: nn.Module, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        return model(ids, use_cache=False).logits


def with_rows(model: nn.Module, slots: SlotSet, chains, ids: torch.Tensor = IDS) -> torch.Tensor:
    with slots.hold(contents_for_rows(chains)), slots.rows(torch.arange(len(chains))):
        return logits(model, ids)


@pytest.mark.parametrize("rslora", [False, True])
@pytest.mark.parametrize("make", [llama, gpt2])
def test_logits_equal_peft(make, rslora: bool) -> None:
    reference = lora_model(make, rslora=rslora)
    chain = Chain.of(adapter_of(reference, "one"))
    model = make()
    before = logits(model)
    slots = install(model)
    with slots.hold(contents_for_chain(chain)):
        ours = logits(model)
    assert (logits(reference) - ours).abs().max() <= 1e-5
    assert (before - ours).abs().max() > 1e-2


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_mixed_batch_equals_peft_row_by_row(make) -> None:
    references = [lora_model(make, 4, 0), lora_model(make, 2, 1), make()]
    chains = [Chain.of(adapter_of(m, str(i))) for i, m in enumerate(references[:2])]
    model = make()
    ours = with_rows(model, install(model), [*chains, None])
    for row, reference in enumerate(references):
        assert (logits(reference)[row] - ours[row]).abs().max() <= 1e-5


@pytest.mark.parametrize("make", [llama, gpt2])
def test_gradients_equal_peft(make) -> None:
    reference = lora_model(make)
    adapter = adapter_of(reference, "one")
    reference(IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
    model = make().requires_grad_(False)
    slots = install(model)
    live = contents_for_chain(Chain.of(adapter))
    factors = [t.requires_grad_() for c in live.values() for t in c.terms[0].tensors]
    with slots.hold(live):
        model(IDS, use_cache=False).logits.logsumexp(-1).sum().backward()
    assert len(factors) == 2 * len(adapter.updates)
    for layer, content in live.items():
        module = reference.get_submodule("base_model.model." + layer)
        scale = module.scaling["default"]
        term = content.terms[0]
        torch.testing.assert_close(
            term.down.grad, module.lora_A["default"].weight.grad, rtol=1e-4, atol=1e-5
        )
        torch.testing.assert_close(
            term.up.grad * scale, module.lora_B["default"].weight.grad.mT, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize("make", [llama, gpt2])
def test_chains_keep_their_laws(make) -> None:
    one, two = (adapter_of(lora_model(make, r, s), f"a{s}") for r, s in ((4, 0), (3, 1)))
    model = make()
    before = logits(model)
    slots = install(model)

    def of(chain: Chain) -> torch.Tensor:
        with slots.hold(contents_for_chain(chain)):
            return logits(model)

    mixed = 0.8 * one - 0.3 * two
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(of(mixed), of(-0.3 * two + 0.8 * one), **close)
    torch.testing.assert_close(of(mixed), of(Chain.of(mixed.flatten("flat"))), **close)
    assert torch.equal(of(0.0 * one + 0.0 * two), before)
    assert torch.equal(of(mixed + 0.0 * two), of(mixed))
    assert torch.equal(of(one - one), before)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_rows_keep_to_themselves(make) -> None:
    one, two = (adapter_of(lora_model(make, r, s), f"a{s}") for r, s in ((4, 0), (3, 1)))
    chains = [one + 0.5 * two, None, -1.0 * two]
    model = make()
    before = logits(model)
    slots = install(model)
    together = with_rows(model, slots, chains)
    assert torch.equal(together[1], before[1])
    assert torch.equal(with_rows(model, slots, [0.0 * one, None, 0.0 * two]), before)
    turned = with_rows(model, slots, chains[::-1], IDS.flip(0)).flip(0)
    torch.testing.assert_close(turned, together, rtol=1e-5, atol=1e-5)
    for row, chain in enumerate(chains):
        with slots.hold(contents_for_chain(chain)):
            alone = logits(model, IDS[row : row + 1])
        torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)


def test_fp32_factors_over_a_bf16_base_stay_near_fp32() -> None:
    chain = Chain.of(adapter_of(lora_model(llama), "one"))
    model = llama()
    slots = install(model)
    with slots.hold(contents_for_chain(chain)):
        exact = logits(model)
    slots.remove()
    slots = install(model.bfloat16())
    with slots.hold(contents_for_chain(chain)):
        rounded = logits(model)
    assert rounded.dtype is torch.bfloat16
    assert (rounded.float() - exact).abs().max() < 0.05 * exact.abs().max()
