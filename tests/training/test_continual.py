"""One task after another: forgetting is measured, and what acts beneath stays as it is."""

import pytest
import torch

from detour.adapter.chain import Chain
from detour.errors import ConfigError
from detour.model.base import Base
from detour.model.examples import Example, pair
from detour.training.config import make_config
from detour.training.continual import Continual, Lesson, continual, right
from detour.training.factors import Factors, Size
from detour.training.loop import train_with
from detour.training.under import Under

CONFIG = make_config(
    {"steps": 60, "batch_size": 6, "learning_rate": 5e-3, "rank": 4, "validation_share": 0.0}
)


@pytest.fixture(scope="module")
def base(tiny_folder) -> Base:
    return Base.load(str(tiny_folder))


def rows(question: str, answer: str) -> list[Example]:
    return [pair(f"{question} {number}?", answer, None) for number in range(6)]


LESSONS = [Lesson(name, rows(q, a), rows(q, a)) for name, q, a in (
    ("one", "Who was", "Nobody."), ("two", "Where is", "Here."),
)]  # fmt: skip


def test_what_is_forgotten_is_counted() -> None:
    yes, no, half = (True, True), (False, False), (True, False)
    told = Continual(
        ("a", "b", "c"),
        ((yes, no, no), (half, yes, no), (no, half, yes)),
        Chain(),
    )
    assert told.score(1, 0) == 0.5
    assert told.backward_transfer == pytest.approx(((0.0 - 1.0) + (0.5 - 1.0)) / 2)
    assert told.forgetting == (1.0, 0.5)


def test_replay_keeps_what_plain_training_loses(base: Base) -> None:
    said: list[str] = []
    plain = continual(base, LESSONS, CONFIG, "plain", teller=said.append)
    kept = continual(base, LESSONS, CONFIG, "replay", share=1.0)
    assert plain.score(0, 0) == plain.score(1, 1) == 1.0
    assert kept.score(1, 0) >= plain.score(1, 0)
    assert kept.backward_transfer >= -0.2
    assert said[0].startswith("plain, after one: one 1.00  two 0.00")
    with pytest.raises(ConfigError, match="at least two"):
        continual(base, LESSONS[:1], CONFIG)


def test_long_answers_are_judged_whole(base: Base) -> None:
    lesson = [pair(f"Say {n}.", "aa" * 45) for n in range(2)]
    assert len(base.tokenizer.encode("aa" * 45)) > 64
    learned = train_with(base, lesson, CONFIG.model_copy(update={"learning_rate": 1e-2})).adapter
    assert right(base, lesson, Chain.of(learned)) == (True, True)


def test_every_task_has_its_own_adapter(base: Base) -> None:
    told = continual(base, LESSONS, CONFIG, "o_lora", orthogonality=5.0)
    assert [term.adapter.name for term in told.chain.terms] == ["one", "two"]
    assert told.score(1, 1) > 0.5
    first, second = (term.adapter for term in told.chain.terms)
    free = train_with(base, LESSONS[1].train, CONFIG, beneath=first).adapter

    def overlap(adapter) -> float:
        return sum(
            float((u.down @ first.updates[layer].down.mT).square().sum())
            for layer, u in adapter.updates.items()
        )

    assert overlap(second) < 0.2 * overlap(free)


def test_what_acts_beneath_is_neither_changed_nor_lost(base: Base) -> None:
    first = train_with(base, LESSONS[0].train, CONFIG, name="one").adapter
    digest = first.digest()
    second = train_with(base, LESSONS[1].train, CONFIG, name="two", beneath=0.5 * first).adapter
    assert first.digest() == digest
    ids = torch.arange(4, 16)[None]
    under = Under.of(base, 0.5 * first)
    factors = Factors(
        {n: base.slots.shapes[n] for n in second.updates}, Size(4, 4.0), 0, base.device
    )
    with base.hold(under.with_(factors.contents())), torch.no_grad():
        started = base.model(ids, use_cache=False).logits
    assert torch.allclose(started, base.logits(ids, 0.5 * first), atol=1e-5)
    assert float(under.overlap(factors).detach()) > 0
    none = Under.of(base, None)
    assert (none.contents, none.digest) == ({}, "")
    assert float(none.overlap(factors)) == 0.0
