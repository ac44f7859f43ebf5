"""Holding out a validation part, so that the best checkpoint is chosen on rows never learned.

Rows with the same prompt (NFC, case and whitespace aside), or nearly the same, stay on one side.
Knows rows only.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from detour.data.duplicates import Near
from detour.errors import MissingExtra
from detour.language.catalogue import text
from detour.measure.metrics import normalised
from detour.model.examples import Example, Plain

AnyRow = TypeVar("AnyRow", bound=Example | Plain)
Row = TypeVar("Row")
Teller = Callable[[str], None]
FEWEST = 10  # below this many distinct prompts every row is needed for training
MOST_NEAR = 20_000  # prompts among which near ones are looked for: ten seconds
TEMPLATE = 8  # prompts nearly the same from which on they are not paraphrases, but one template


def split(
    examples: Sequence[AnyRow], share: float, seed: int, teller: Teller | None = None
) -> tuple[list[AnyRow], list[AnyRow]]:
    """`(training, validation)`, by the prompt."""
    return held_out(examples, lambda example: example.prompt, share, seed, teller)


def held_out(
    rows: Sequence[Row],
    input_of: Callable[[Row], str],
    share: float,
    seed: int,
    teller: Teller | None = None,
) -> tuple[list[Row], list[Row]]:
    """`(training, validation)`: rows of one input, or of nearly the same, stay together.

    With fewer than ten distinct inputs nothing is held out. `teller` hears what could not be
    looked for or not be kept apart.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(normalised(input_of(row)), []).append(row)
    if share <= 0 or len(groups) < FEWEST:
        return list(rows), []
    leader = _leaders(sorted(groups), teller)
    keys = sorted(set(leader.values()))
    if len(keys) < FEWEST:
        return list(rows), []
    random.Random(seed).shuffle(keys)
    most = max(1, min(round(share * len(groups)), len(groups) - 1))
    held = _filled(keys, leader, most)
    kept = [row for row in rows if normalised(input_of(row)) not in held]
    return kept, [row for row in rows if normalised(input_of(row)) in held]


def _filled(keys: Sequence[str], leader: Mapping[str, str], most: int) -> set[str]:
    """So many inputs, group by group in this order; more only where no group is small enough."""
    members: dict[str, list[str]] = {}
    for told, one in leader.items():
        members.setdefault(one, []).append(told)
    held: set[str] = set()
    for key in keys:
        if len(held) + len(members[key]) <= most:
            held.update(members[key])
    return held or set(members[keys[0]])


def drawn(
    rows: Sequence[Row], count: int, seed: int, kind_of: Callable[[Row], str] | None = None
) -> list[Row]:
    """At most so many rows, in their order, drawn by the seed: of each kind its share."""
    if len(rows) <= count:
        return list(rows)
    places = list(range(len(rows)))
    random.Random(f"{seed}/drawn").shuffle(places)
    if kind_of:
        places.sort(key=lambda place: kind_of(rows[place]))
    chosen = (places[int((number + 0.5) * len(rows) / count)] for number in range(count))
    return [rows[place] for place in sorted(chosen)]


def _leaders(inputs: Sequence[str], teller: Teller | None) -> dict[str, str]:
    """For each input the one that stands for all that are nearly the same."""
    alone = {told: told for told in inputs}
    if len(inputs) > MOST_NEAR:
        _tell(
            teller,
            text("among more than {count} prompts, nearly equal ones are not looked for: some may "
                 "stand on both sides of the validation", count=MOST_NEAR),
        )  # fmt: skip
        return alone
    try:
        near = Near()
    except MissingExtra as missing:
        _tell(
            teller,
            text("nearly equal prompts are not looked for: some may stand on both sides of the "
                 "validation; {hint}", hint=missing.hint),
        )  # fmt: skip
        return alone
    leader: dict[str, str] = {}
    for told in inputs:
        like = near.like(told)
        near.add(told)  # whether or not: what resembles a paraphrase is one too
        leader[told] = told if like is None else leader[inputs[like]]
    sizes = Counter(leader.values())
    templates = {told for told, size in sizes.items() if size > TEMPLATE}
    if templates:
        _tell(
            teller,
            text("{count} prompts are as alike as rows of one template: such stand on both sides "
                 "of the validation", count=sum(sizes[told] for told in templates)),
        )  # fmt: skip
    return {told: told if one in templates else one for told, one in leader.items()}


def _tell(teller: Teller | None, told: str) -> None:
    if teller:
        teller(told)
