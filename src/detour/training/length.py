"""Texts that are longer than what a head can read of them.

Knows headed bases and records; trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from detour.data.records import Labelled, Valued
from detour.errors import DataError
from detour.language.catalogue import text
from detour.model.headed import HeadedBase

MOST = 0.01  # share of the rows that may be cut, and then it is said
SHOWN = 5


def check_length(
    base: HeadedBase,
    rows: Sequence[Labelled | Valued],
    teller: Callable[[str], None] | None = None,
) -> None:
    """Tell how many rows are cut to the base's context.

    Raises:
        DataError: more than 1 % of them.
    """
    lengths = base.lengths([row.text for row in rows])
    cut = [row for row, own in zip(rows, lengths, strict=True) if own > base.longest]
    if not cut:
        return
    told = text(
        "{count} rows ({share:.1%}) are longer than {limit} tokens and are cut",
        count=len(cut), share=len(cut) / len(rows), limit=base.longest,
    )  # fmt: skip
    if len(cut) > MOST * len(rows):
        raise DataError(
            told,
            expected=text("rows that fit into the base's context, but for 1 % of them at most"),
            found=", ".join(row.source for row in cut[:SHOWN]),
            hint=text("shorten them, or take a base with a longer context"),
        )
    if teller:
        teller(told)
