"""One case of a held-out examination: what the model reads, and which answers are right.

Knows no model and no world; the generators beside it draw the cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from recipes.starter.rows import Message


@dataclass(frozen=True)
class Case:
    """A prompt and its right answer; `accept` decides where more than one answer is right."""

    messages: list[Message]
    right: str
    language: str
    accept: Callable[[str], bool] | None = None

    def passed(self, answer: str) -> bool:
        """Whether the answer is right: exactly equal, unless `accept` is given."""
        return self.accept(answer) if self.accept else answer == self.right
