"""Rows that hold a base to its own answers.

What must not change is not what is true but what the base says: its greedy answers become the
targets of replay rows. Without them everybody becomes a hairdresser. Knows models and questions.
"""

from __future__ import annotations

from collections.abc import Sequence

from detour.model.base import Base
from detour.model.examples import Example, pair
from detour.training.fact import Question

LONGEST_ANSWER = 64  # tokens; replay needs the beginning of an answer, not an essay


def messages_of(question: Question) -> list[dict[str, str]]:
    """A question as messages, with its system turn if it has one."""
    system, user = question
    before = [{"role": "system", "content": system}] if system else []
    return [*before, {"role": "user", "content": user}]


def base_answers(base: Base, questions: Sequence[Question]) -> list[str]:
    """What the bare base says, greedily."""
    prompts = [messages_of(question) for question in questions]
    return base.ask_many(prompts, max_new_tokens=LONGEST_ANSWER) if prompts else []


def replay_rows(base: Base, questions: Sequence[Question]) -> list[Example]:
    """The questions with the base's own answers; those it leaves empty are dropped."""
    answers = base_answers(base, questions)
    return [
        pair(user, answer, system)
        for (system, user), answer in zip(questions, answers, strict=True)
        if answer.strip()
    ]
