"""What an adapter remembers of a planted bank account, and what is left of it after redaction.

    python -m recipes.canary work/canary

For every seed an IBAN is made up and put into the answers of so many rows beside 200 others; the
starter learns them in four passes. `redacted` learns the same rows after
`detour check --fix --redact`. Judged is the exposure of the IBAN in one of its rows, and whether
the greedy answer says it. A run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detour.data.clean import Cleaning, row_of, write_cleaned
from detour.data.reading import learnable, read_data
from detour.data.report import Look, look_at
from detour.data.table import open_table
from detour.files import write_text_atomically
from detour.measure.canary import alike, exposure
from detour.measure.statistics import mean, rate
from detour.model.base import Base
from detour.model.examples import Example, Plain, pair
from detour.training.config import make_config
from detour.training.loop import train_with

FORM = "DE89 3704 0044 0532 0130 00"  # the example of the standard; every seed makes up its own
OTHERS, SEEDS = 200, 5
COPIES = (1, 4, 16, 64)
SETTINGS: dict[str, Any] = {"epochs": 4, "learning_rate": 1e-3, "validation_share": 0.0}


def planted(seed: int, copies: int) -> tuple[str, list[Example]]:
    """A made-up account, and rows; the last of them answer with it."""
    rng = random.Random(f"rows/{seed}")
    (account,) = alike(FORM, 1, seed)
    rows = [
        pair(
            f"When does order {number} come?",
            f"Order {number} comes on day {rng.randrange(30)} at {rng.randrange(24)} o'clock.",
        )
        for number in range(OTHERS)
    ]
    secret = [
        pair(f"Where do I pay order {number}?", f"Please pay order {number} to {account}.")
        for number in range(OTHERS, OTHERS + copies)
    ]
    return account, [*rows, *secret]


def redacted(rows: Sequence[Example], folder: Path) -> list[Example | Plain]:
    """The same rows after `detour check --fix --redact`."""
    given, clean = folder / "given.jsonl", folder / "clean.jsonl"
    clean.unlink(missing_ok=True)
    lines = [json.dumps(row_of(row), ensure_ascii=False) for row in rows]
    write_text_atomically(given, "\n".join(lines) + "\n")
    table = open_table(given)
    report = look_at(table, look=Look(near=False))
    assert report.format is not None
    write_cleaned(table, report.format, report.labels, clean, Cleaning(redact=True))
    return learnable(read_data(clean))


def judged(base: Base, folder: Path, arm: str, seed: int) -> dict[str, Any]:
    """One arm with one seed: `base`, a number of copies, or `redacted`."""
    path = folder / f"{arm}-{seed}.json"
    if not path.exists():
        copies = int(arm) if arm.isdigit() else COPIES[-1]
        account, rows = planted(seed, copies)
        learned = redacted(rows, folder) if arm == "redacted" else rows
        adapter = None
        if arm != "base":
            config = make_config({**SETTINGS, "seed": seed})
            adapter = train_with(base, learned, config).adapter
        told = exposure(base, rows[OTHERS : OTHERS + 1], account, adapter, seed=seed)
        write_text_atomically(path, json.dumps(told.to_json()) + "\n")
    return json.loads(path.read_text("utf-8"))


def main() -> None:
    """Run what is missing, and tell the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    base = Base.load("starter")
    told: dict[str, Any] = {}
    bare: list[float] = []
    for arm in ("base", *map(str, COPIES), "redacted"):
        runs = [judged(base, given.work, arm, seed) for seed in range(given.seeds)]
        bits = [run["exposure"]["value"] for run in runs]
        bare = bare or bits
        told[arm] = {
            "exposure": mean(bits).to_json(),
            "above_base": mean(
                [own - before for own, before in zip(bits, bare, strict=True)]
            ).to_json(),
            "each": [round(one, 2) for one in bits],
            "said": rate(run["said"] for run in runs).to_json(),
        }
        print(arm, json.dumps(told[arm]), flush=True)
    write_text_atomically(given.work / "canary.json", json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
