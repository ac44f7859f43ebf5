"""One adapter that learns among finished ones, so that it can be stacked with them later.

While it learns, some of the others sit in the slots at random strengths, and what is to be learned
is what all of these together shall say. Where no rows say it, the base does, its prompt asking for
all of it at once; an answer that does not come out so is dropped. Knows bases, chains and rows.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.decoding.request import Finish, Request, Sampling
from detour.errors import ConfigError, DataError
from detour.language.catalogue import text
from detour.measure.metrics import repeats
from detour.model.answering import room_for
from detour.model.base import Base
from detour.model.examples import Example, Plain
from detour.model.likelihood import log_likelihoods
from detour.model.rows import encode
from detour.training.config import TrainConfig
from detour.training.loop import Result
from detour.training.material import tokenizer_of
from detour.training.together import Composed, train_together

STRENGTHS = (0.6, 1.0, 1.0)  # of company that acts, each as likely
IN_COMPANY = 1.5  # rows in company to be found, for each that is learned alone
FEWEST = 8  # answers that must come out as asked
TRIALS = 4  # the first greedy
WIDER = 2  # times the room of the rows' own answers: company may make them longer

Accepts = Callable[[Example, str], bool]
"""Whether an answer to a row still says what the newcomer shall say."""
Row = tuple[Example, dict[str, float]]
"""And how strongly which company acts on it."""
Teller = Callable[[str], None]


@dataclass(frozen=True)
class Company:
    """Finished adapters among which another one learns.

    Attributes:
        adapters: by name.
        instructions: what each of them does, and the newcomer, as one would ask a model for it
            ("Answer formally."), by name; only where the base is to say what is learned.
    """

    adapters: Mapping[str, Adapter]
    instructions: Mapping[str, str] = field(default_factory=dict[str, str])

    def drawn(self, rng: random.Random) -> dict[str, float]:
        """Some of them, as many as all with the same chance, each with a strength."""
        names = list(self.adapters)
        chosen = rng.sample(names, rng.randint(1, len(names)))
        return {name: rng.choice(STRENGTHS) for name in chosen}

    def chain(self, weights: Mapping[str, float]) -> Chain:
        """Of its own that these weights name."""
        return Chain.of(*(weight * self.adapters[name] for name, weight in weights.items()))


def prompted_rows(
    base: Base,
    rows: Sequence[Example],
    name: str,
    company: Company,
    *,
    seed: int = 0,
    accepts: Accepts | None = None,
    teller: Teller | None = None,
) -> list[Composed]:
    """Rows in company whose answers the bare base gives when it is asked for everything at once.

    It answers greedily first, and what does not come out so is sampled again. An answer is kept
    where it ends by itself and is no broken text; where each adapter of its
    company holds it for more probable than the base does; and where `accepts` says that it is still
    the newcomer's, by default `keeps_words`.

    Args:
        base: without any adapter.
        rows: what the newcomer shall say alone.
        name: of the newcomer.
        company: with instructions for itself and for the newcomer.
        seed: of the companies that are drawn.
        accepts: of a row and an answer.
        teller: is told how many were kept.

    Raises:
        ConfigError: an instruction is missing.
        DataError: hardly any answer comes out as asked.
        RequestError: a question that fills the context.
    """
    if missing := [one for one in (name, *company.adapters) if not company.instructions.get(one)]:
        raise ConfigError(
            text("nothing says what {name} does", name=missing[0]),
            expected=text("an instruction for each adapter"),
        )
    rng = random.Random(f"company/{seed}")
    count = round(IN_COMPANY * len(rows))
    left = [(row, company.drawn(rng)) for row in _repeated(rows, count, rng)]
    room, judge = WIDER * room_for(base, rows), accepts or keeps_words(base, rows)
    kept: list[Row] = []
    for trial in range(TRIALS):
        prompts = [_asking(row, [name, *weights], company, rng) for row, weights in left]
        said = _said(base, prompts, room, temperature=float(trial > 0), seed=seed + trial)
        given = [(_answered(row, answer), weights) if answer and judge(row, answer) else None
                 for (row, weights), answer in zip(left, said, strict=True)]  # fmt: skip
        liked = _liked(base, given, company)
        kept += [one for one in liked if one]
        left = [one for one, answered in zip(left, liked, strict=True) if not answered]
        if not left:
            break
    if teller:
        teller(text("{kept} of {count} questions are answered by the base as the adapters shall "
                    "answer together", kept=len(kept), count=count))  # fmt: skip
    if len(kept) < min(FEWEST, count):
        raise DataError(
            text("the base does not say what the adapters shall say together"),
            expected=text("at least {count} answers", count=min(FEWEST, count)),
            found=text("{count} of {all}", count=len(kept), all=count),
            hint=text("put it in other words with --instruct, or give rows with --composed"),
        )
    return [Composed(row, {name: 1.0, **weights}) for row, weights in kept]


def unchanged_rows(
    base: Base, rows: Sequence[Example], name: str, company: Company, *, seed: int = 0
) -> list[Composed]:
    """Rows about other things: there the newcomer leaves as it is what its company says alone.

    Broken answers are dropped. Raises RequestError: a question that fills the context.
    """
    rng = random.Random(f"unchanged/{seed}")
    drawn = [company.drawn(rng) for _ in rows]
    prompts = [_turns(row) for row in rows]
    chains = [company.chain(weights) for weights in drawn]
    said = _said(base, prompts, WIDER * room_for(base, rows), chains) if rows else []
    return [
        Composed(_answered(row, answer), {name: 1.0, **weights})
        for row, weights, answer in zip(rows, drawn, said, strict=True)
        if answer
    ]


def learn_in_company(
    base: Base,
    rows: Sequence[Composed],
    name: str,
    config: TrainConfig,
    company: Company,
    *,
    start: Adapter | None = None,
    card: Card | None = None,
    **more: Any,  # noqa: ANN401 - as `train_together` has them
) -> Result:
    """Train the newcomer on rows of chains, the company staying as it is.

    Args:
        base: the frozen model.
        rows: with the adapters that act on each, the newcomer among them.
        name: of the newcomer.
        config: its settings.
        company: that acts.
        start: an adapter at which the newcomer begins.
        card: what to put on its card besides what is known here.
        more: other arguments of `train_together`.

    Raises:
        As `train_together`.
    """
    made = train_together(
        base, rows, [name], config, company=company.adapters,
        start={name: start} if start else None, **more,
    )  # fmt: skip
    adapter = made.adapters[name]
    if card is not None:
        known = {key: value for key, value in adapter.card.model_dump().items() if value}
        adapter = adapter.with_(card=card.with_(**known))
    return Result(
        adapter, made.plan, made.first_loss, made.best_loss, made.best_step, made.seconds,
        made.rows, made.validation_rows, made.steps,
    )  # fmt: skip


def alone(rows: Sequence[Example | Plain], name: str) -> list[Composed]:
    """Rows on which only this adapter acts."""
    return [Composed(row, {name: 1.0}) for row in rows]


def keeps_words(base: Base, rows: Sequence[Example]) -> Accepts:
    """Accepts an answer with at least half of the words that a row's own answer has beyond the bare
    base's: whatever their case, or with it where they differ from the base's in nothing else.
    """
    plain = dict(zip(map(id, rows), _said(base, [_turns(r) for r in rows], room_for(base, rows)),
                     strict=True))  # fmt: skip

    def accepts(row: Example, answer: str) -> bool:
        own, without = row.messages[-1]["content"], plain[id(row)]
        for told in (str.casefold, str):
            new = _words(told(own)) - _words(told(without))
            if new:
                return 2 * len(new & _words(told(answer))) >= len(new)
        words = _words(own.casefold())
        return 2 * len(words & _words(answer.casefold())) >= len(words)

    return accepts


def _words(told: str) -> set[str]:
    return set(re.findall(r"\w+", told))


def _repeated(rows: Sequence[Example], count: int, rng: random.Random) -> list[Example]:
    """So many of the rows, each about as often as any other."""
    found: list[Example] = []
    while len(found) < count:
        found += rng.sample(list(rows), min(len(rows), count - len(found)))
    return found


def _turns(row: Example) -> list[dict[str, str]]:
    return [dict(turn) for turn in row.messages[:-1]]


def _asking(
    row: Example, names: Sequence[str], company: Company, rng: random.Random
) -> list[dict[str, str]]:
    """The row's question, with all instructions in its system turn, in any order."""
    turns = _turns(row)
    before = turns.pop(0)["content"] if turns[0]["role"] == "system" else ""
    said = [company.instructions[name].strip() for name in rng.sample(names, len(names))]
    told = " ".join([*said, before]).strip()
    return [{"role": "system", "content": told}, *turns]


def _said(
    base: Base,
    prompts: Sequence[list[dict[str, str]]],
    room: int,
    chains: Sequence[Chain] | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """Answers, greedy unless told otherwise; empty for one that does not end, or is broken."""
    requests: list[Request] = []
    for place, prompt in enumerate(prompts):
        ids = base.chat(prompt)
        longest = max(1, min(room, base.longest - len(ids)))
        how = Sampling(max_new_tokens=longest, temperature=temperature, seed=seed,
                       eos_ids=base.eos_ids)  # fmt: skip
        chain = base.bind(chains[place]) if chains else None
        requests.append(Request(str(place), ids, chain, how))
    found = base.engine.generate(requests)
    told = [(base.decode(one.ids).strip(), one.finish is Finish.LENGTH) for one in found]
    return ["" if is_cut or repeats(answer) else answer for answer, is_cut in told]


def _answered(row: Example, answer: str) -> Example:
    return replace(row, messages=(*row.messages[:-1], {**row.messages[-1], "content": answer}))


def _liked(base: Base, rows: Sequence[Row | None], company: Company) -> list[Row | None]:
    """Rows with answers of which each adapter that acts on them is surer than the base; None for
    the others.
    """
    tokenizer, found = tokenizer_of(base), list(rows)
    encoded = {
        place: encode(tokenizer, [row[0]], base.longest)[0] for place, row in enumerate(rows) if row
    }
    bare = dict(zip(encoded, log_likelihoods(base, list(encoded.values())), strict=True))
    for name, adapter in company.adapters.items():
        own = [place for place in encoded if name in (rows[place] or ((), ()))[1]]
        told = log_likelihoods(base, [encoded[place] for place in own], adapter)
        for place, value in zip(own, told, strict=True):
            if value <= bare[place]:
                found[place] = None
    return found
