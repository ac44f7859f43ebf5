"""How long a row may be: in characters, or in tokens of a base.

Knows records; the tokenizer is given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from detour.data.records import text_of
from detour.errors import DataError
from detour.model.examples import Example, Plain

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Fits: TypeAlias = Callable[[Example | Plain], bool]
"""Whether a record is short enough."""
LONGEST_TOKEN = 64  # characters; a text above the limit even so is not tokenised in vain


def in_characters(limit: int) -> Fits:
    """At most so many characters, of all turns together."""
    return lambda record: len(text_of(record)) <= limit


def in_tokens(limit: int, tokenizer: PreTrainedTokenizerBase) -> Fits:
    """At most so many tokens as they are learned: a conversation with its chat template.

    What the template refuses fits; `detour check` says why it is refused. BaseError: there is no
    chat template, and the record is a conversation.
    """
    from detour.data.tokens import encoded

    def fits(record: Example | Plain) -> bool:
        if len(text_of(record)) > limit * LONGEST_TOKEN:
            return False
        try:
            return len(encoded(record, tokenizer)[0]) <= limit
        except DataError:
            return True

    return fits
