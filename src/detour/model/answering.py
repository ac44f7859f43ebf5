"""What a base says where a row already holds the answer: greedily, and with room for it.

Knows bases, chains and conversations; knows no figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detour.decoding.request import Finish, Request, Sampling
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.base import AnyChain, Base
from detour.model.examples import Example

FEWEST = 64  # tokens, however short the answers are
BEYOND = 16  # tokens past the longest answer, so that one that goes on is seen to go on


@dataclass(frozen=True)
class Answer:
    """One answer; `cut` where it ended for want of room, not by itself."""

    text: str
    cut: bool


def room_for(base: Base, rows: Sequence[Example]) -> int:
    """Tokens in which the longest of the rows' last answers can be given.

    Raises:
        BaseError: the base has no tokenizer.
    """
    return max([FEWEST, *(length + BEYOND for length in _lengths(base, rows))])


def too_long(base: Base, rows: Sequence[Example], limit: int) -> int:
    """How many of the rows' last answers have more tokens than that. Raises as `room_for`."""
    return sum(length > limit for length in _lengths(base, rows))


def answers_to(
    base: Base, rows: Sequence[Example], chain: AnyChain = None, max_new_tokens: int | None = None
) -> list[Answer]:
    """Greedy answers to all but the last turn of every row, in their order.

    Args:
        base: the model.
        rows: conversations that end with an answer.
        chain: what acts.
        max_new_tokens: of each answer, as far as its context has them; by default `room_for` all.

    Raises:
        BaseError: no tokenizer or chat template.
        RequestError: a question that fills the context.
        WrongBase, SlotError, SlotsBusy: as `Base.ask`.
    """
    limit = room_for(base, rows) if max_new_tokens is None else max_new_tokens
    bound = base.bind(chain)
    acting = bound if bound.terms else None
    requests: list[Request] = []
    for place, row in enumerate(rows):
        ids = base.chat([dict(turn) for turn in row.messages[:-1]])
        room = max(1, min(limit, base.longest - len(ids)))
        sampling = Sampling(max_new_tokens=room, eos_ids=base.eos_ids)
        requests.append(Request(str(place), ids, acting, sampling))
    found = base.engine.generate(requests)
    return [Answer(base.decode(one.ids), one.finish is Finish.LENGTH) for one in found]


def _lengths(base: Base, rows: Sequence[Example]) -> list[int]:
    """Tokens of the last answers, the one that ends them included."""
    tokenizer = base.tokenizer
    if tokenizer is None:
        raise BaseError(text("{base} has no tokenizer", base=base.name))
    answers = [row.messages[-1]["content"] for row in rows]
    return [len(tokenizer.encode(told, add_special_tokens=False)) + 1 for told in answers]
