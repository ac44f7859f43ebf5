import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from detour.model.base import Base
from detour.model.examples import pair
from detour.model.loss import IGNORED
from detour.model.rows import encode, padded
from detour.training.factors import Factors, Size
from detour.training.objective import answer_loss, base_log_probabilities, kl, kl_to_base

ROWS = [pair("Who was Einstein?", "A hairdresser."), pair("Where?", "In Ulm, in a shop.")]


@pytest.fixture
def base(tiny_llama, tiny_tokenizer):
    return Base.from_model(tiny_llama, tiny_tokenizer)


@pytest.fixture
def batch(tiny_tokenizer):
    return padded(encode(tiny_tokenizer, ROWS, 128), 0)


def logits_at_answers(base, batch):
    """(supervised, vocab) of a whole forward, and their targets."""
    with torch.no_grad():
        logits = base.model(batch.ids, attention_mask=batch.mask).logits
    kept = batch.targets != IGNORED
    return logits[kept], batch.targets[kept]


def test_kl_is_torchs():
    torch.manual_seed(0)
    one, other = torch.randn(2, 7, 50).log_softmax(-1)
    expected = kl_div(other, one, log_target=True, reduction="batchmean")
    torch.testing.assert_close(kl(one, other), expected)
    assert float(kl(one, one)) == 0.0
    assert float(kl(one, other)) != pytest.approx(float(kl(other, one)))


def test_the_answer_loss_is_cross_entropy_on_answers_alone(base, batch):
    """Mutation check: a loss over prompts or padding would be another number."""
    logits, targets = logits_at_answers(base, batch)
    loss = answer_loss(base.forward, base.head, batch)
    torch.testing.assert_close(loss, cross_entropy(logits, targets))
    whole = base.logits(batch.ids, mask=batch.mask)
    everything = cross_entropy(whole[:, :-1].flatten(0, 1), batch.ids[:, 1:].flatten())
    assert float(loss) != pytest.approx(float(everything), abs=1e-3)


def test_the_padding_has_no_part_in_the_loss(base, batch):
    other = padded(encode(base.tokenizer, ROWS, 128), pad_id=7)
    assert not torch.equal(other.ids, batch.ids)
    one = answer_loss(base.forward, base.head, batch)
    torch.testing.assert_close(answer_loss(base.forward, base.head, other), one)


def test_kl_to_the_base_is_zero_at_the_start_and_grows(base, batch):
    bare = base_log_probabilities(base.forward, base.head, batch)
    logits, _ = logits_at_answers(base, batch)
    torch.testing.assert_close(bare, logits.log_softmax(-1), atol=1e-5, rtol=1e-5)
    factors = Factors(base.slots.shapes, Size(2, 2.0), 0, base.device)
    head = base.head
    with base.hold(factors.contents()):
        assert abs(float(kl_to_base(base.forward, head, batch, bare).detach())) < 1e-6
        with torch.no_grad():
            for _, up in factors.pairs.values():
                up.normal_(std=0.2, generator=torch.Generator().manual_seed(1))
        moved = kl_to_base(base.forward, head, batch, bare)
        now, _ = logits_at_answers(base, batch)
        expected = kl_div(now.log_softmax(-1), bare, log_target=True, reduction="batchmean")
        torch.testing.assert_close(moved, expected, atol=1e-5, rtol=1e-4)
        assert float(moved.detach()) > 0.01
        moved.backward()
    grads = [up.grad for _, up in factors.pairs.values()]
    assert any(grad is not None and float(grad.abs().max()) > 0 for grad in grads)
