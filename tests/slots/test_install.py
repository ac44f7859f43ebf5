import copy
import threading

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from detour.errors import SlotError, SlotsBusy
from detour.slots.content import Content, per_row, shared, trainable
from detour.slots.install import SlotSet, install


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2)).eval()


def t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=40,
        d_model=16,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config).eval()


def ids(rows: int = 3, tokens: int = 5) -> torch.Tensor:
    return torch.randint(0, 40, (rows, tokens), generator=torch.Generator().manual_seed(1))


def logits(model: PreTrainedModel, tokens: torch.Tensor | None = None) -> torch.Tensor:
    tokens = ids() if tokens is None else tokens
    inputs = {"decoder_input_ids": tokens} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=tokens, use_cache=False, **inputs).logits


def contents(slots: SlotSet, rows: int | None = None, rank: int = 2) -> dict[str, Content]:
    generator = torch.Generator().manual_seed(2)
    lead = () if rows is None else (rows,)
    build = trainable if rows is None else per_row

    def factor(width: int) -> torch.Tensor:
        return torch.randn(*lead, rank, width, generator=generator) / 3

    return {name: build(factor(n), factor(out)) for name, (out, n) in slots.shapes.items()}


@pytest.mark.parametrize("make", [llama, gpt2, t5])
def test_installing_holding_and_removing_are_inverses(make) -> None:
    model = make()
    before = logits(model)
    keys = {name: set(module.__dict__) for name, module in model.named_modules()}
    names = list(model.state_dict())
    slots = install(model)
    assert torch.equal(logits(model), before)
    assert list(model.state_dict()) == names
    with slots.hold(contents(slots)) as held:
        assert held is slots
        assert slots.landed == len(slots.shapes) > 0
        assert (logits(model) - before).abs().max() > 1e-3
    assert slots.landed == 0
    assert torch.equal(logits(model), before)
    slots.remove()
    assert torch.equal(logits(model), before)
    assert {name: set(module.__dict__) for name, module in model.named_modules()} == keys
    assert slots.shapes == {}


def test_t5_still_reads_the_weight_itself() -> None:
    model = t5()
    slots = install(model)
    block = model.encoder.block[0].layer[-1].DenseReluDense
    assert block.wo.weight.dtype is torch.float32
    assert type(block.wo) is nn.Linear
    assert "encoder.block.0.layer.1.DenseReluDense.wo" in slots.shapes


@pytest.mark.parametrize("make", [llama, gpt2])
def test_a_tied_head_changes_the_output_but_not_the_embedding(make) -> None:
    model = make()
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight is embedding.weight
    before, weight = logits(model), head.weight.detach().clone()
    slots = install(model, ["lm_head"])
    down, up = torch.randn(2, 16), torch.randn(2, 40)
    with slots.hold({"lm_head": trainable(down, up)}), torch.no_grad():
        hidden = model.base_model(ids()).last_hidden_state
        torch.testing.assert_close(logits(model), before + hidden @ down.mT @ up)
    assert torch.equal(head.weight, weight)
    assert torch.equal(embedding.weight, weight)


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj"], ["model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.q_proj"]),
        (["0.mlp.up_proj", "lm_head"], ["model.layers.0.mlp.up_proj", "lm_head"]),
        (("model.layers.1.mlp.gate_proj",), ["model.layers.1.mlp.gate_proj"]),
        (r".*\.1\.self_attn\.[kv]_proj", [f"model.layers.1.self_attn.{k}_proj" for k in "kv"]),
    ],
)
def test_targets_follow_peft(targets, expected: list[str]) -> None:
    assert list(install(llama(), targets).shapes) == expected


def test_all_linear_layers_and_the_head() -> None:
    assert len(install(llama()).shapes) == 2 * 7 + 1
    slots = install(gpt2())
    assert slots.shapes["transformer.h.0.attn.c_attn"] == (48, 16)
    assert slots.linear_names() == [name for name in slots.shapes if name != "lm_head"]
    assert slots.linear_names(exclude_head=False) == list(slots.shapes)
    assert "lm_head" not in install(gpt2(), include_head=False).shapes


def test_any_module_will_do() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    slots = install(model)
    assert slots.shapes == {"0": (4, 3), "2": (2, 4)}
    assert slots.linear_names() == ["0", "2"]


@pytest.mark.parametrize(
    ("targets", "missing"),
    [
        (["q_proj", "nope", "embed_tokens"], "'nope', 'embed_tokens'"),
        ("q_proj", "'q_proj'"),
        (["_proj"], "'_proj'"),
        ([], ""),
    ],
)
def test_targets_that_match_nothing_are_listed(targets, missing: str) -> None:
    model = llama()
    with pytest.raises(SlotError, match=f"name no linear layer of the model: {missing};"):
        install(model, targets)
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_a_bad_pattern_is_a_slot_error() -> None:
    with pytest.raises(SlotError, match="not a regular expression"):
        install(llama(), "(q_proj")


def test_the_head_left_out_cannot_be_targeted() -> None:
    with pytest.raises(SlotError, match="'lm_head'"):
        install(llama(), ["lm_head"], include_head=False)


def test_a_second_installation_waits_for_the_first() -> None:
    model = llama()
    slots = install(model, ["q_proj"])
    with pytest.raises(SlotsBusy, match="has slots already"):
        install(model, ["k_proj"])
    slots.remove()
    assert len(install(model, ["k_proj"]).shapes) == 2


def test_a_second_holder_is_refused_in_any_thread() -> None:
    model = llama()
    slots = install(model)
    seen: list[BaseException] = []

    def hold() -> None:
        try:
            with slots.hold({}):
                pass
        except SlotsBusy as error:
            seen.append(error)

    with slots.hold(contents(slots)):
        held = logits(model)
        thread = threading.Thread(target=hold)
        thread.start()
        thread.join()
        with pytest.raises(SlotsBusy, match=r"base\.share"), slots.hold({}):
            pass
        with pytest.raises(SlotsBusy):
            slots.remove()
        assert torch.equal(logits(model), held)
    assert len(seen) == 1
    with slots.hold({}):
        assert slots.landed == 0


def test_all_faults_are_listed_and_nothing_is_attached() -> None:
    model = llama()
    before = logits(model)
    slots = install(model)
    faulty = contents(slots)
    faulty["model.layers.0.mlp.up_proj"] = trainable(torch.ones(1, 16), torch.ones(1, 25))
    faulty["model.layers.9.mlp.up_proj"] = trainable(torch.ones(1, 16), torch.ones(1, 24))
    faulty["lm_head"] = trainable(
        torch.ones(1, 16, device="meta"), torch.ones(1, 40, device="meta")
    )
    with pytest.raises(SlotError) as caught, slots.hold(faulty):
        pass
    message = str(caught.value)
    assert "3 of 16 layers do not fit the model" in message
    assert "layers.0.mlp.up_proj: the layer is (out, in) = (24, 16), the content (25, 16)" in (
        message
    )
    assert "layers.9.mlp.up_proj: no slot of that name" in message
    assert "lm_head: the layer is on cpu, the content on meta" in message
    assert slots.landed == 0
    assert torch.equal(logits(model), before)
    with slots.hold(contents(slots)):
        assert slots.landed == 15


def test_slots_are_emptied_when_the_holder_fails() -> None:
    model = llama()
    before = logits(model)
    slots = install(model)
    with pytest.raises(KeyError), slots.hold(contents(slots, 3)), slots.rows([0, 1, 2]):
        raise KeyError
    assert torch.equal(logits(model), before)
    with slots.hold(contents(slots, 3)), pytest.raises(SlotError, match="no row index"):
        logits(model)


def test_empty_contents_are_the_base() -> None:
    model = llama()
    before = logits(model)
    slots = install(model)
    with slots.hold({name: shared([]) for name in slots.shapes}), slots.rows([0, 0, 0]):
        assert slots.landed == 0
        assert torch.equal(logits(model), before)


@pytest.mark.parametrize("make", [llama, gpt2])
def test_rows_in_one_batch_equal_rows_alone_in_any_order(make) -> None:
    model = make()
    slots = install(model)
    with slots.hold(contents(slots, 3)):
        with slots.rows([0, 1, 2]):
            together = logits(model)
        with slots.rows(torch.tensor([2, 0, 1])):
            turned = logits(model, ids()[[2, 0, 1]])
        for row in range(3):
            with slots.rows([row]):
                alone = logits(model, ids()[row : row + 1])
            torch.testing.assert_close(together[row], alone[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(turned, together[[2, 0, 1]], rtol=1e-5, atol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-3


def test_rows_packed_into_one_sequence_equal_rows_alone() -> None:
    model = llama()
    slots = install(model)
    index = torch.arange(3).repeat_interleave(5)[None]
    positions = torch.arange(5).repeat(3)[None]
    mask = torch.block_diag(*[torch.ones(5, 5).tril()] * 3).bool()[None, None]
    with slots.hold(contents(slots, 3)), torch.no_grad():
        with slots.rows([0, 1, 2]):
            apart = logits(model)
        with slots.rows(index):
            packed = model(
                ids().reshape(1, 15), attention_mask=mask, position_ids=positions, use_cache=False
            ).logits
        with slots.rows(index), pytest.raises(SlotError, match="does not fit the input"):
            logits(model)
    torch.testing.assert_close(packed.reshape(3, 5, -1), apart, rtol=1e-5, atol=1e-5)


def test_row_indices_nest() -> None:
    model = llama()
    slots = install(model)
    with slots.hold(contents(slots, 3)), slots.rows([0, 1, 2]):
        outer = logits(model)
        with slots.rows([0, 0, 0]):
            assert not torch.equal(logits(model), outer)
        with slots.rows(None), pytest.raises(SlotError, match="no row index"):
            logits(model)
        assert torch.equal(logits(model), outer)


def shared_copy(model: nn.Module) -> nn.Module:
    """The same parameters in a module tree of its own."""
    return copy.deepcopy(model, {id(p): p for p in model.parameters()})


@pytest.mark.parametrize("twin_of", [copy.deepcopy, shared_copy])
def test_a_copy_has_slots_of_its_own(twin_of) -> None:
    model = llama()
    before = logits(model)
    slots = install(model)
    with slots.hold(contents(slots)):
        twin = twin_of(model)
        held = logits(model)
        assert torch.equal(logits(twin), before)
        own = install(twin)
        with own.hold(contents(own, 3)), own.rows([2, 1, 0]):
            assert (logits(twin) - before).abs().max() > 1e-3
            assert torch.equal(logits(model), held)
        own.remove()
        assert torch.equal(logits(twin), before)


def test_training_through_a_model_reaches_every_factor_and_no_weight() -> None:
    model = llama().requires_grad_(False)
    slots = install(model)
    live = contents(slots)
    factors = [t.requires_grad_() for c in live.values() for t in c.terms[0].tensors]
    with slots.hold(live):
        model(ids(), use_cache=False).logits.logsumexp(-1).sum().backward()
        before = logits(model)
        with torch.no_grad():
            for factor in factors:
                factor -= 0.1 * factor.grad
        assert not torch.equal(logits(model), before)
    assert all(factor.grad.abs().sum() > 0 for factor in factors)
    assert all(p.grad is None for p in model.parameters())
