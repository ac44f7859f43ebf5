"""A base and a chain on the same rows: what they answer, and how probable the right answer is.

Knows bases, rows of data and figures.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.data.languages import language_of
from detour.data.records import text_of
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.measure.statistics import Figure, mean_of_totals
from detour.measure.texts import text_figures
from detour.model.answering import answers_to, room_for, too_long
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.likelihood import log_likelihoods
from detour.model.rows import encode

AT_ONCE = 16  # rows
A_LANGUAGE = 10  # rows below which nothing is said of one


@dataclass(frozen=True)
class Answered:
    """What one arm said to every row, and its figures.

    Attributes:
        figures: by name.
        answers: to the conversations among the rows, in their order.
        cut: how many of them ended for want of room, not by themselves.
        limit: tokens that an answer could have.
    """

    figures: Mapping[str, Figure]
    answers: tuple[str, ...] = ()
    cut: int = 0
    limit: int = 0

    def to_json(self) -> dict[str, Any]:
        """The figures by name."""
        return {name: figure.to_json() for name, figure in self.figures.items()}


def answered(
    base: Base,
    rows: Sequence[Example | Plain],
    chain: Chain | Adapter | None = None,
    *,
    max_new_tokens: int | None = None,
    teller: Callable[[str], None] | None = None,
) -> Answered:
    """All figures of a chain on rows: of conversations the last answer, of texts everything.

    `perplexity` is of the answers' tokens (of texts, all but the first, and the end), its interval
    over rows.
    Conversations are answered greedily and compared with the answer that stands there; see
    `text_figures`. They have `max_new_tokens`, by default what the longest answer takes and at
    least 64; `teller` is told of answers that need more.

    Raises:
        BaseError: no tokenizer, or no chat template.
        RequestError: a question that fills the context.
        DataError: a row that does not fit into the context.
        WrongBase, SlotError: a chain that does not belong on this base.
    """
    figures: dict[str, Figure] = {"perplexity": perplexity(base, rows, chain)}
    asked = [row for row in rows if isinstance(row, Example)]
    if not asked:
        return Answered(figures)
    limit = room_for(base, asked) if max_new_tokens is None else max_new_tokens
    say = teller or (lambda _: None)
    say(text("{count} answers, at most {limit} tokens each", count=len(asked), limit=limit))
    if beyond := too_long(base, asked, limit):
        say(text("{count} of {all} wanted answers are longer than {limit} tokens: they cannot be "
                 "met", count=beyond, all=len(asked), limit=limit))  # fmt: skip
    found = answers_to(base, asked, chain, limit)
    if cut := sum(one.cut for one in found):
        say(text("{count} of {all} answers were cut at {limit} tokens, or at the end of the "
                 "context", count=cut, all=len(asked), limit=limit))  # fmt: skip
    wanted = [row.messages[-1]["content"] for row in asked]
    said = tuple(one.text for one in found)
    return Answered({**text_figures(wanted, said), **figures}, said, cut, limit)


def by_language(
    rows: Sequence[Example | Plain], answers: Sequence[str]
) -> dict[str, dict[str, Figure]]:
    """`text_figures` of each language apart, where there are two or more with ten rows each.

    A mean over languages hides that one of them is badly served. Of `answers` as `answered` gives
    them; which language a row is in is told from all of its text.
    """
    asked = [row for row in rows if isinstance(row, Example)]
    spoken = [language_of(text_of(row)) for row in asked]
    counts = Counter(name for name in spoken if name != "unknown")
    enough = [name for name, count in counts.most_common() if count >= A_LANGUAGE]
    if len(enough) < 2 or len(answers) != len(asked):
        return {}
    found: dict[str, dict[str, Figure]] = {}
    for name in enough:
        places = [place for place, one in enumerate(spoken) if one == name]
        wanted = [asked[place].messages[-1]["content"] for place in places]
        found[name] = text_figures(wanted, [answers[place] for place in places])
    return found


def perplexity(
    base: Base, rows: Sequence[Example | Plain], chain: Chain | Adapter | None = None
) -> Figure:
    """The exponential of the mean loss of all learned tokens, with a bootstrap over rows.

    The blocks of a long text are one row: what they say varies together. Of a single row nothing
    is known of others, and the interval is all that a perplexity can be.

    Raises:
        BaseError, DataError, WrongBase, SlotError: as `answered`.
    """
    tokenizer = base.tokenizer
    if tokenizer is None:
        raise BaseError(text("{base} has no tokenizer", base=base.name))
    parts = [encode(tokenizer, [row], base.longest) for row in rows]
    flat = [part for own in parts for part in own]
    told = iter(log_likelihoods(base, flat, chain, AT_ONCE))
    totals = [
        (-sum(next(told) for _ in own), sum(sum(part.learned[1:]) for part in own)) for own in parts
    ]
    nats = mean_of_totals(totals)
    return Figure(_exp(nats.value), max(1.0, _exp(nats.low)), _exp(nats.high), nats.n)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
