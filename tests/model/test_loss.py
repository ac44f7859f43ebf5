import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
)

from detour.errors import BaseError, DataError
from detour.model import loss as loss_module
from detour.model.loss import (
    IGNORED,
    Head,
    completion_loss,
    hidden_states,
    targets_from,
    to_gradient_,
)
from detour.slots.content import trainable
from detour.slots.install import install


def batch(vocabulary=320):
    """Three rows, padded on the right, some tokens supervised."""
    torch.manual_seed(1)
    ids = torch.randint(0, vocabulary, (3, 11))
    lengths = torch.tensor([11, 6, 9])
    real = torch.arange(11) < lengths.unsqueeze(1)
    counted = real & (torch.arange(11) >= 4)
    return ids, real.long(), targets_from(ids, counted)


class CountingHead(nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head, self.sizes = head, []

    def forward(self, rows):
        self.sizes.append(rows.shape[0])
        return self.head(rows)


def full(logits, targets):
    return cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def test_targets_are_the_successors():
    ids = torch.tensor([[5, 6, 7, 8]])
    mask = torch.tensor([[False, False, True, True]])
    assert targets_from(ids, mask).tolist() == [[IGNORED, 7, 8, IGNORED]]
    first = torch.tensor([[True, False, False, False]])
    assert targets_from(ids, first).tolist() == [[IGNORED] * 4]


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_equals_full_cross_entropy_with_gradients(chunk):
    torch.manual_seed(0)
    head = nn.Linear(16, 50).requires_grad_(False)
    hidden = torch.randn(3, 11, 16)
    targets = batch(50)[2]
    ours, theirs = (hidden.clone().requires_grad_() for _ in range(2))
    loss = completion_loss(ours, head, targets, chunk=chunk)
    expected = full(head(theirs), targets)
    torch.testing.assert_close(loss, expected)
    (loss * 3).backward()
    (expected * 3).backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


@pytest.mark.parametrize("chunk", [2, 1000])
def test_a_learning_head_gets_its_gradients_too(chunk):
    torch.manual_seed(0)
    ours, theirs = nn.Linear(16, 50), nn.Linear(16, 50)
    theirs.load_state_dict(ours.state_dict())
    hidden = torch.randn(3, 11, 16)
    targets = batch(50)[2]
    mine, other = (hidden.clone().requires_grad_() for _ in range(2))
    completion_loss(mine, ours, targets, chunk=chunk).backward()
    full(theirs(other), targets).backward()
    torch.testing.assert_close(mine.grad, other.grad)
    torch.testing.assert_close(ours.weight.grad, theirs.weight.grad)
    torch.testing.assert_close(ours.bias.grad, theirs.bias.grad)


def test_the_head_sees_supervised_rows_only_and_never_more_than_a_chunk():
    head = CountingHead(nn.Linear(16, 50).requires_grad_(False))
    targets = batch(50)[2]
    supervised = int((targets != IGNORED).sum())
    assert 0 < supervised < targets.numel()
    completion_loss(torch.randn(3, 11, 16, requires_grad=True), head, targets, chunk=4)
    assert sum(head.sizes) == supervised
    assert max(head.sizes) == 4


def test_the_logits_of_one_chunk_exist_at_a_time():
    alive: list[weakref.ref] = []
    most = 0
    weight = torch.randn(50, 8)

    def head(part):
        nonlocal most
        most = max(most, sum(one() is not None for one in alive))
        logits = part @ weight.T
        alive.append(weakref.ref(logits))
        return logits

    hidden = torch.randn(1, 12, 8, requires_grad=True)
    completion_loss(hidden, head, torch.randint(50, (1, 12)), chunk=3).backward()
    assert len(alive) >= 4
    assert most == 0


def test_no_gradient_is_formed_where_none_is_wanted():
    head = CountingHead(nn.Linear(16, 50))
    with torch.no_grad():
        loss = completion_loss(torch.randn(3, 11, 16), head, batch(50)[2])
    assert not loss.requires_grad


def test_a_divisor_makes_micro_batches_add_up():
    torch.manual_seed(0)
    head = nn.Linear(16, 50).requires_grad_(False)
    hidden, targets = torch.randn(3, 11, 16), batch(50)[2]
    count = int((targets != IGNORED).sum())
    parts = [completion_loss(hidden[row], head, targets[row], divisor=count) for row in range(3)]
    torch.testing.assert_close(sum(parts), completion_loss(hidden, head, targets))


def test_nothing_supervised_is_an_error():
    head = nn.Linear(16, 50)
    with pytest.raises(DataError, match="supervised"):
        completion_loss(torch.randn(2, 16), head, torch.full((2,), IGNORED))


def test_bf16_hidden_states_keep_their_type():
    head = nn.Linear(16, 50, dtype=torch.bfloat16).requires_grad_(False)
    hidden = torch.randn(5, 16, dtype=torch.bfloat16, requires_grad=True)
    loss = completion_loss(hidden, head, torch.arange(5))
    loss.backward()
    assert loss.dtype == torch.float32
    assert hidden.grad.dtype == torch.bfloat16


def test_hidden_states_and_head_are_the_models_own_logits(any_model):
    ids, mask, _ = batch()
    positions = torch.arange(11).expand(3, 11)
    whole = any_model(ids, attention_mask=mask, position_ids=positions).logits
    ours = Head(any_model)(hidden_states(any_model, ids, mask, positions))
    torch.testing.assert_close(ours, whole)


@pytest.mark.parametrize(
    ("config", "kind", "special"),
    [
        (Gemma2Config, Gemma2ForCausalLM, {"final_logit_softcapping": 0.7, "head_dim": 8}),
        (CohereConfig, CohereForCausalLM, {"logit_scale": 0.3}),
        (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 7.0}),
    ],
)
def test_softcap_and_scales_are_respected(config, kind, special):
    torch.manual_seed(0)
    sizes = {
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "initializer_range": 1.0,
    }
    model = kind(config(**sizes, **special)).eval()
    ids = batch(64)[0]
    head = Head(model)
    torch.testing.assert_close(head(hidden_states(model, ids)), model(ids).logits)
    plain = head.module(hidden_states(model, ids))
    assert not torch.allclose(plain, model(ids).logits, atol=1e-2)


def test_an_unknown_treatment_of_logits_is_refused_by_name(make_model):
    model = make_model("llama")
    forward = model.forward

    def scaled(*args, **kwargs):
        output = forward(*args, **kwargs)
        output.logits = output.logits * 1.5
        return output

    model.forward = scaled
    with pytest.raises(BaseError, match="LlamaForCausalLM"):
        Head(model)


def test_gradients_through_slots_equal_those_through_the_whole_model(make_model):
    """Hidden states, head and chunks against the model's own loss, a trainable slot everywhere."""
    ids, mask, targets = batch()
    grads = []
    for way in ("ours", "theirs"):
        model = make_model("llama").requires_grad_(False)
        slots = install(model)
        generator = torch.Generator().manual_seed(0)
        factors, contents = [], {}
        for name, (out, wide) in slots.shapes.items():
            down = torch.randn(2, wide, generator=generator).mul(0.2).requires_grad_()
            up = torch.randn(2, out, generator=generator).mul(0.2).requires_grad_()
            factors += [down, up]
            contents[name] = trainable(down, up, 0.5)
        with slots.hold(contents):
            if way == "ours":
                hidden = hidden_states(model, ids, mask)
                loss = completion_loss(hidden, Head(model), targets, chunk=5)
            else:
                loss = full(model(ids, attention_mask=mask).logits, targets)
            loss.backward()
        grads.append([loss.detach()] + [factor.grad for factor in factors])
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_a_model_without_a_head_is_named(make_model):
    with pytest.raises(BaseError, match="LlamaModel has no language model head"):
        Head(make_model("llama").model)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cached", [1, 3 * 37, 2**18])
def test_logits_become_their_own_gradient(monkeypatch, dtype, cached):
    monkeypatch.setattr(loss_module, "CACHED", cached)  # 37 words: rows of 1, 3 and all
    torch.manual_seed(0)
    logits = (torch.randn(11, 37) * 40).to(dtype)  # some words have no probability that fp32 holds
    wanted = torch.randint(37, (11,))
    leaf = logits.float().clone().requires_grad_()
    expected = torch.nn.functional.cross_entropy(leaf, wanted, reduction="sum")
    (gradient,) = torch.autograd.grad(expected, leaf)
    total = to_gradient_(logits, wanted)
    torch.testing.assert_close(total, expected.detach())
    torch.testing.assert_close(logits, gradient.to(dtype))
