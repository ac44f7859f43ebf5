"""Which rows an adapter was trained on, as far as its card tells.

A card holds one digest of all rows that were learned, in their order; a file of which only some
were learned cannot be recognised. Knows cards and records; knows no model.
"""

from __future__ import annotations

from collections.abc import Sequence

from detour.adapter.adapter import Adapter
from detour.data.records import Labelled, Record, Valued, input_of
from detour.model.examples import Example, Plain, digest_of
from detour.training.heads import digest_of_rows
from detour.training.split import held_out


def learned_by(adapter: Adapter, rows: Sequence[Record]) -> list[Record]:
    """Those of the rows that were learned: all, what a training of them keeps, or none.

    What it keeps follows from `validation_share` and `seed`, which are on the card.
    """
    card = adapter.card
    if not card.data_sha256:
        return []
    share, seed = card.config.get("validation_share"), card.config.get("seed")
    candidates = [list(rows)]
    if isinstance(share, int | float) and isinstance(seed, int):
        candidates.append(held_out(rows, input_of, share, seed)[0])
    return next((own for own in candidates if _digest(own) == card.data_sha256), [])


def _digest(rows: Sequence[Record]) -> str:
    """What a training of these rows writes on the card."""
    talks = [row for row in rows if isinstance(row, Example | Plain)]
    if len(talks) == len(rows):
        return digest_of(talks)
    return digest_of_rows([row for row in rows if isinstance(row, Labelled | Valued)])
