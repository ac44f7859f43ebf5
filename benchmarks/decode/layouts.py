"""Which layout of mixed rows is faster: a bank with a gate, or factors of its own for every row.

    python benchmarks/decode/layouts.py

One linear layer, fp32 factors, one token a row as in decoding; the ratio is the bank's time over
that of own factors. `BANK_WIDTHS` in `slots/chained.py` stands where it crosses 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interleaved import compare

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.slots import chained
from detour.slots.arithmetic import Rows, add
from detour.slots.content import Content
from detour.slots.prepare import prepared

REPEATS = 200


def laid_out(chains: list[Chain], widths: int) -> Content:
    """The content of one layer, with another border between the two layouts."""
    before = chained.BANK_WIDTHS
    chained.BANK_WIDTHS = widths
    try:
        return prepared(chained.contents_for_rows(chains)["q"], {})
    finally:
        chained.BANK_WIDTHS = before


def main() -> None:
    torch.set_num_threads(1)
    sys.stdout.write("width  rank  rows  adapters  bank / own\n")
    for width, rank in ((256, 8), (1024, 16)):
        for rows, count in (
            (8, 2),
            (8, 4),
            (8, 8),
            (32, 8),
            (32, 16),
            (32, 32),
            (64, 16),
            (64, 64),
        ):
            torch.manual_seed(0)
            adapters = [
                Adapter({"q": Update(torch.randn(rank, width), torch.randn(width, rank))}, str(n))
                for n in range(count)
            ]
            chains = [Chain.of(adapters[row % count]) for row in range(rows)]
            bank, own = laid_out(chains, 10**9), laid_out(chains, 0)
            x, y, index = (
                torch.randn(rows, 1, width),
                torch.randn(rows, 1, width),
                Rows.of(torch.arange(rows)),
            )

            def run(content: Content) -> None:
                with torch.inference_mode():
                    for _ in range(REPEATS):
                        add(y, x, content, index)  # noqa: B023

            ratio = compare(lambda: run(own), lambda: run(bank), 7)  # noqa: B023
            sys.stdout.write(f"{width:5}  {rank:4}  {rows:4}  {count:8}  {ratio}\n")


if __name__ == "__main__":
    main()
