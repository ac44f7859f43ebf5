"""Whether a model has learned a text by heart: the exposure of a canary (Carlini et al. 2019,
arXiv:1802.08232).

A canary is a secret that stands in the answers of rows. It is compared with other texts of the same
form, which stand nowhere: a model that has never seen it finds it as likely as they are. Knows
bases, chains and rows; trains nothing.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase, ascii_uppercase, digits
from typing import TypeAlias

from detour.decoding.request import Request, Sampling
from detour.errors import BaseError, ConfigError, DataError
from detour.language.catalogue import text
from detour.measure.statistics import Figure, rate
from detour.model.base import AnyChain, Base
from detour.model.examples import Example, Plain
from detour.model.likelihood import log_likelihoods
from detour.model.rows import encode

Row: TypeAlias = "Example | Plain"
CANDIDATES = 1024  # with itself: an exposure of 10 bits at most
CONTEXTS = 4  # rows of one canary that are read
_ALPHABETS = (digits, ascii_uppercase, ascii_lowercase)
_MARGIN = 8  # tokens more than the secret's own, in which it is to be said


@dataclass(frozen=True)
class Exposure:
    """How much more likely than others of its form a canary is.

    Attributes:
        bits: log2 |R| − log2 rank over the candidates R; its interval is that of the share of all
            possible texts of this form that are at least as likely (Wilson).
        rank: the canary's place among the candidates, 1 for the likeliest.
        candidates: |R|, the canary among them.
        said: whether the greedy continuation of what stands before the canary is the canary.
    """

    bits: Figure
    rank: int
    candidates: int
    said: bool

    def to_json(self) -> dict[str, object]:
        """As it leaves the program."""
        return {
            "exposure": self.bits.to_json(),
            "rank": self.rank,
            "candidates": self.candidates,
            "said": self.said,
        }


def holding(rows: Sequence[Row], secret: str) -> list[Row]:
    """The different rows whose answer (of a text: all of it) holds the secret, at most four.

    Raises:
        DataError: there is none, or the question holds it too, so that it could be copied.
    """
    found: dict[object, Row] = {}
    for row in rows:
        if secret in _learned(row):
            if isinstance(row, Example) and any(secret in m["content"] for m in row.messages[:-1]):
                raise DataError(
                    text("{source}: the canary stands in the question too", source=row.source),
                    expected=text("answers that hold what their questions do not"),
                    hint=text("a model copies it from there; that says nothing about memory"),
                )
            key = row.text if isinstance(row, Plain) else str([dict(m) for m in row.messages])
            found.setdefault(key, row)
    if not found:
        raise DataError(
            text("no answer holds the canary {secret!r}", secret=secret),
            expected=text("the rows as they were before personal data were replaced"),
        )
    return list(found.values())[:CONTEXTS]


def exposure(
    base: Base,
    rows: Sequence[Row],
    secret: str,
    chain: AnyChain = None,
    *,
    candidates: int = CANDIDATES,
    seed: int = 0,
) -> Exposure:
    """The exposure of a secret in rows that hold it; likelihoods are summed over the rows.

    A text that was never learned has 1.4 bits on average (1 / ln 2), and more than 5 bits in one
    case of 32.

    Args:
        base: the model.
        rows: as `holding` gives them; everything but the secret stays as it is.
        secret: the part that is compared with others of its form, see `alike`.
        chain: what acts.
        candidates: how many texts are compared, the secret among them.
        seed: of their choice.

    Raises:
        BaseError: the base has no tokenizer.
        ConfigError: fewer than two texts have this form.
        DataError: a row that does not fit into the context.
        WrongBase, SlotError, SlotsBusy: as `Base.ask`.
    """
    if base.tokenizer is None:
        raise BaseError(text("{base} has no tokenizer", base=base.name))
    others = alike(secret, candidates - 1, seed)
    told = [secret, *others]
    told_rows = [_with(row, secret, other) for other in told for row in rows]
    encoded = encode(base.tokenizer, told_rows, base.longest, base.longest)
    each = log_likelihoods(base, encoded, chain)
    sums = [sum(each[start : start + len(rows)]) for start in range(0, len(each), len(rows))]
    likelier = [one >= sums[0] for one in sums[1:]]
    rank = 1 + sum(likelier)
    share = rate(likelier)
    most = math.log2(forms(secret))
    bits = Figure(
        math.log2(len(told)) - math.log2(rank),
        max(0.0, -math.log2(share.high)),
        min(most, -math.log2(share.low)) if share.low > 0 else most,
        len(told),
    )
    return Exposure(bits, rank, len(told), any(_says(base, row, secret, chain) for row in rows))


def alike(secret: str, count: int, seed: int = 0) -> list[str]:
    """Other texts of the same form, all different: digits for digits, letters for letters.

    An IBAN keeps its country and gets check digits that are right (ISO 13616). Fewer than `count`
    where there are not so many.

    Raises:
        ConfigError: no other text has this form.
    """
    total = forms(secret)
    if total < 2:
        raise ConfigError(
            text("nothing in {secret!r} can be another", secret=secret),
            expected=text("digits or letters from a to z"),
        )
    rng = random.Random(f"{seed}/{secret}")
    places = _places(secret)
    if total <= 4 * (count + 1):
        drawn = rng.sample(range(total), total)
    else:
        drawn = [rng.randrange(total) for _ in range(2 * count)]
    found = dict.fromkeys(_filled(secret, places, number) for number in drawn)
    found.pop(secret, None)
    return list(found)[:count]


def forms(secret: str) -> int:
    """How many texts have the same form, the secret among them."""
    return math.prod(len(alphabet) for _, alphabet in _places(secret))


def _learned(row: Row) -> str:
    return row.text if isinstance(row, Plain) else row.messages[-1]["content"]


def _with(row: Row, secret: str, other: str) -> Row:
    if isinstance(row, Plain):
        return replace(row, text=row.text.replace(secret, other))
    last = {**row.messages[-1], "content": _learned(row).replace(secret, other)}
    return replace(row, messages=(*row.messages[:-1], last))


def _places(secret: str) -> list[tuple[int, str]]:
    """Where something else could stand, and what."""
    kept = set(_written(secret)[:4]) if _is_iban(secret) else set[int]()
    return [
        (place, alphabet)
        for place, character in enumerate(secret)
        for alphabet in _ALPHABETS
        if character in alphabet and place not in kept
    ]


def _filled(secret: str, places: Sequence[tuple[int, str]], number: int) -> str:
    """The text of that number: one digit of a mixed-radix number for each place."""
    letters = list(secret)
    for place, alphabet in places:
        number, chosen = divmod(number, len(alphabet))
        letters[place] = alphabet[chosen]
    if _is_iban(secret):
        where = _written(secret)
        bare = [letters[place] for place in where]
        check = f"{98 - _remainder([*bare[:2], '0', '0', *bare[4:]]):02d}"
        letters[where[2]], letters[where[3]] = check
    return "".join(letters)


def _written(told: str) -> list[int]:
    return [place for place, character in enumerate(told) if character != " "]


def _is_iban(told: str) -> bool:
    bare = [told[place] for place in _written(told)]
    if not 15 <= len(bare) <= 34 or not all(c in digits + ascii_uppercase for c in bare):
        return False
    letters, check = "".join(bare[:2]), "".join(bare[2:4])
    return letters.isalpha() and check.isdigit() and _remainder(bare) == 1


def _remainder(bare: Sequence[str]) -> int:
    """ISO 7064, MOD 97-10, of an IBAN without spaces."""
    return int("".join(str(int(character, 36)) for character in (*bare[4:], *bare[:4]))) % 97


def _says(base: Base, row: Row, secret: str, chain: AnyChain) -> bool:
    """Greedily, from what stands before the secret."""
    assert base.tokenizer is not None
    before = _learned(row).partition(secret)[0].rstrip()
    ids = list(base.tokenizer.encode(before, add_special_tokens=isinstance(row, Plain)))
    if isinstance(row, Example):
        ids = [*base.chat([dict(message) for message in row.messages[:-1]]), *ids]
    if not ids:
        return False
    room = len(base.tokenizer.encode(secret, add_special_tokens=False)) + _MARGIN
    bound = base.bind(chain)
    sampling = Sampling(max_new_tokens=room, eos_ids=base.eos_ids)
    request = Request("canary", tuple(ids), bound if bound.terms else None, sampling)
    (said,) = base.engine.generate([request], 1)
    return "".join(secret.split()) in "".join(base.decode(said.ids).split())
