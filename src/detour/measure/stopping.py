"""Whether answers end: a few learned questions asked, with a little more room than their answers.

An adapter that was taught turns without the token that ends them talks on for ever; this finds it
before anybody serves it. Knows bases, chains and conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from detour.decoding.request import Finish
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.base import AnyChain, Base
from detour.model.examples import Example, Plain

ASKED = 4  # rows: those with the shortest answers
LONGEST = 64  # tokens; answers that are all longer are not tried, for they would take minutes
ROOM = 16  # tokens more than twice the answer's own


@dataclass(frozen=True)
class Stopping:
    """How many answers ended by themselves, out of how many."""

    ended: int
    asked: int
    unended: tuple[str, ...] = ()
    """What was said where no end came."""


def stopping(base: Base, rows: Sequence[Example | Plain], chain: AnyChain = None) -> Stopping:
    """Ask the questions of the rows with the shortest answers; plain texts have none.

    Raises:
        BaseError: the base has no tokenizer.
        WrongBase, SlotError, SlotsBusy: as `Base.ask`.
    """
    tokenizer = base.tokenizer
    if tokenizer is None:
        raise BaseError(text("{base} has no tokenizer", base=base.name))
    asked = {row.prompt: row for row in rows if isinstance(row, Example)}
    answers = [row.messages[-1]["content"] for row in asked.values()]
    lengths = [len(tokenizer.encode(told, add_special_tokens=False)) for told in answers]
    order = sorted(range(len(lengths)), key=lambda place: lengths[place])[:ASKED]
    chosen = [place for place in order if lengths[place] <= LONGEST]
    if not chosen:
        return Stopping(0, 0)
    questions = [list(asked.values())[place].messages[:-1] for place in chosen]
    prompts = [[dict(message) for message in turns] for turns in questions]
    room = 2 * max(lengths[place] for place in chosen) + ROOM
    most = base.longest - max(len(base.chat(prompt)) for prompt in prompts)
    said = base.generate(prompts, chain, max_new_tokens=max(1, min(room, most)))
    unended = [base.decode(one.ids) for one in said if one.finish is not Finish.STOP]
    return Stopping(len(said) - len(unended), len(said), tuple(unended))
