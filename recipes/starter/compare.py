"""Two runs of the recipe beside each other, bar by bar.

    python -m recipes.starter.compare FIRST/card.json SECOND/card.json

A bar agrees when the two 95 % intervals overlap. It is also told whether the second value lies
within the first interval: two measurements of equal models miss that by chance now and then. Knows
cards; loads no model.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Pair:
    """One bar in one language, as two runs measured it."""

    bar: str
    language: str
    first: dict[str, float]
    second: dict[str, float]

    @property
    def overlaps(self) -> bool:
        """Whether the two intervals have a value in common."""
        one, two = self.first, self.second
        return one["low"] <= two["high"] and two["low"] <= one["high"]

    @property
    def is_within(self) -> bool:
        """Whether the second value lies in the first interval."""
        return self.first["low"] <= self.second["value"] <= self.first["high"]

    def told(self) -> str:
        """One line: both values, the first interval, and what is off."""
        one, two = self.first, self.second
        remark = "" if self.is_within else "  overlaps" if self.overlaps else "  APART"
        interval = f"[{one['low']:.3f}, {one['high']:.3f}]"
        values = f"{one['value']:.4g} {interval}, {two['value']:.4g}"
        return f"{self.bar} ({self.language}): {values}{remark}"


def pairs(first: dict[str, Any], second: dict[str, Any]) -> list[Pair]:
    """Every bar that both cards have, in the first one's order.

    Raises:
        SystemExit: the two do not tell of the same bars and data.
    """
    is_same_data = first["data_sha256"] == second["data_sha256"]
    if not is_same_data or first["bars"].keys() != second["bars"].keys():
        raise SystemExit("the two cards are of other data or other bars: nothing to compare")
    return [
        Pair(bar, language, figure, second["bars"][bar][language])
        for bar, each in first["bars"].items()
        for language, figure in each.items()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where all intervals overlap, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    given = parser.parse_args(arguments)
    cards = [json.loads(path.read_text(encoding="utf-8")) for path in (given.first, given.second)]
    found = pairs(*cards)
    for pair in found:
        sys.stdout.write(pair.told() + "\n")
    within = sum(pair.is_within for pair in found)
    apart = [pair for pair in found if not pair.overlaps]
    told = f"{within} of {len(found)} within the first interval, {len(apart)} apart"
    sys.stdout.write(told + "\n")
    return 1 if apart else 0


if __name__ == "__main__":
    raise SystemExit(main())
