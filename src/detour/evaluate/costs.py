"""What the ways of steering cost, in floating-point operations counted while they run.

Two comparisons are easily mixed up: *using* a generated adapter against a prompt that says the same
(every answer pays for the prompt's tokens), and *making* it against training one for the task.
Counted are products (torch.utils.flop_counter), a multiplication and an addition each; attention
where torch's counter knows the kernel. Knows bases, arms and generators.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedTokenizerBase

from detour.errors import NotUnderstood
from detour.evaluate.hypernet import Arm, Asked, Item
from detour.hypernetwork.generator import Generator
from detour.model.base import Base
from detour.model.examples import Example
from detour.model.loss import hidden_states
from detour.slots.chained import contents_for_chain

SAMPLED = 12  # items whose answers are counted


@dataclass(frozen=True)
class Costs:
    """Floating-point operations, by their mean."""

    adapter: float
    """From a sentence to an adapter: reading it and generating."""
    answers: Mapping[str, float]
    """Of one answer, prompt included, by arm."""
    own_adapter: float
    """Of training a task's own adapter."""

    def break_even(self, arm: str) -> float:
        """Answers after which generating and using an adapter costs less than that arm.

        Infinite where the arm's answers are no dearer.
        """
        saved = self.answers[arm] - self.answers["generated"]
        return self.adapter / saved if saved > 0 else math.inf

    @property
    def of_training(self) -> float:
        """How many times the cost of generating an adapter that of training one is."""
        return self.own_adapter / self.adapter

    def to_json(self) -> dict[str, Any]:
        """As `detour hypernet evaluate --json` has it; an arm that is never dearer has null."""
        ends = {arm: self.break_even(arm) for arm in self.answers if arm != "generated"}
        return {
            "flops_per_adapter": self.adapter,
            "flops_per_answer": dict(self.answers),
            "flops_of_own_adapter": self.own_adapter,
            "training_over_generating": round(self.of_training, 1),
            "break_even_answers": {
                arm: None if math.isinf(end) else math.ceil(end) for arm, end in ends.items()
            },
        }


def costs(
    base: Base,
    generator: Generator,
    items: Sequence[Item],
    arms: Mapping[str, Arm],
    *,
    steps: int,
    rows: int = 1,
) -> Costs:
    """Count them on some of the items.

    `arms` must have "generated"; `steps` of `rows` rows are what training a task's own adapter
    takes, each twice the forward of a row with an adapter. Nothing is written and nothing learns.

    Raises:
        SlotsBusy: somebody else holds the base's slots.
    """
    _ = base.head  # its making takes a forward of its own
    chosen = random.Random("costs").sample(list(items), min(SAMPLED, len(items)))
    texts = list(dict.fromkeys(item.description.text for item in chosen))
    made = [_counted(lambda text=text: _generate(generator, text)) for text in texts]
    answers = {
        name: sum(
            _counted(lambda one=one, item=item: _answer(base, one, item.row))
            for one, item in zip(arm(chosen), chosen, strict=True)
        ) / len(chosen)
        for name, arm in arms.items()
    }  # fmt: skip
    # through frozen layers the backward takes the products of the forward: one for the inputs
    step = 2 * answers["generated"]
    return Costs(sum(made) / len(made), answers, step * rows * steps)


def _counted(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _generate(generator: Generator, text: str) -> None:
    try:
        generator.generate([text])
    except NotUnderstood:
        return  # reading it is what it cost


def _answer(base: Base, asked: Asked, row: Example) -> None:
    """The forward of a whole answer; decoding token by token takes the same products."""
    answer = _tokenizer(base).encode(row.messages[-1]["content"], add_special_tokens=False)
    ids = torch.tensor([[*base.chat(asked.messages), *answer]], device=base.device)
    chain = base.bind(asked.chain)
    contents = contents_for_chain(chain) if chain.terms else {}
    head = base.head
    # with gradients allowed, for without them torch's counter does not see oneDNN's products
    with base.hold(contents), torch.enable_grad():
        head(hidden_states(base.model, ids)[:, -len(answer) - 1 :])


def _tokenizer(base: Base) -> PreTrainedTokenizerBase:
    assert base.tokenizer is not None  # items were asked of this base
    return base.tokenizer
