"""What a row of training data can be: a conversation, a text, a text with a class or a number.

The first two are learned by a language model and live in `model/examples.py`. Knows values only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from detour.model.examples import Example, Plain

Kind: TypeAlias = Literal["chat", "text", "classification", "regression"]


@dataclass(frozen=True)
class Labelled:
    """A text and the name of its class."""

    text: str
    label: str
    source: str = ""


@dataclass(frozen=True)
class Valued:
    """A text and a number."""

    text: str
    value: float
    source: str = ""


Record: TypeAlias = Example | Plain | Labelled | Valued


def text_of(record: Record) -> str:
    """All that stands in a record, for whatever looks at texts."""
    if isinstance(record, Example):
        return "\n".join(message["content"] for message in record.messages)
    return record.text


def input_of(record: Record) -> str:
    """What is asked, without the answer: what splits and leakage go by."""
    return record.prompt if isinstance(record, Example) else record.text


def parts_of(record: Record) -> tuple[str, str]:
    """What is asked, and what is learned of it; of a text alone the text, and nothing."""
    return input_of(record), "" if isinstance(record, Plain) else answer_of(record)


def answer_of(record: Record) -> str:
    """What is learned of it, as text."""
    if isinstance(record, Example):
        return record.messages[-1]["content"]
    if isinstance(record, Labelled):
        return record.label
    return record.text if isinstance(record, Plain) else repr(record.value)
