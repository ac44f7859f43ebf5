"""Which layout of mixed rows is fastest: a gated bank, factors of its own for every row, segments.

    python benchmarks/decode/layouts.py [--tokens 32]

As many linear layers as the model has, one after another, so that factors come from where they
come from in a model: the caches or the memory. fp32 factors, one token a row as in decoding. A
segment is the rows of one adapter, picked out, changed and put back. `bank_widths` in
`slots/chained.py` says where own factors begin to be faster than the bank.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interleaved import compare

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.slots import chained
from detour.slots.arithmetic import Rows, add, low_rank
from detour.slots.content import Content
from detour.slots.prepare import prepared

MODELS = ((256, 8, 42), (1024, 16, 196))  # width, rank, linear layers
BATCHES = (
    *((4, 2), (4, 4), (8, 2), (8, 4), (8, 8), (16, 4), (16, 8)),
    *((32, 8), (32, 16), (32, 32), (64, 16), (64, 64), (128, 8), (128, 16)),
)


def laid_out(chains: list[Chain], widths: int) -> list[Content]:
    """The contents of all layers, with another border between the two layouts."""
    before = chained.bank_widths
    chained.bank_widths = lambda _rows: widths
    try:
        contents = chained.contents_for_rows(chains)
    finally:
        chained.bank_widths = before
    return [prepared(content, {}) for content in contents.values()]


def in_segments(y: Tensor, x: Tensor, adapters: list[Adapter], layer: str, owner: Tensor) -> None:
    """The same, adapter by adapter."""
    for number, adapter in enumerate(adapters):
        update = adapter.updates[layer]
        mine = (owner == number).nonzero()[:, 0]
        y[mine] = low_rank(y[mine], x[mine], update.down, update.up.mT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1)
    tokens = parser.parse_args().tokens
    torch.set_num_threads(1)
    sys.stdout.write("width  rank  rows  adapters  bank / own; segments / own\n")
    for width, rank, layers in MODELS:
        for rows, count in BATCHES:
            torch.manual_seed(0)
            names = [str(layer) for layer in range(layers)]
            adapters = [
                Adapter(
                    {n: Update(torch.randn(rank, width), torch.randn(width, rank)) for n in names},
                    str(number),
                )
                for number in range(count)
            ]
            owner = torch.arange(rows) % count
            chains = [Chain.of(adapters[n]) for n in owner.tolist()]
            bank, own = laid_out(chains, 10**9), laid_out(chains, 1)
            x, y = torch.randn(rows, tokens, width), torch.randn(rows, tokens, width)
            index = Rows.of(torch.arange(rows))

            def run(contents: list[Content]) -> None:
                with torch.inference_mode():
                    for content in contents:
                        add(y, x, content, index)  # noqa: B023

            def segments() -> None:
                with torch.inference_mode():
                    for name in names:  # noqa: B023
                        in_segments(y, x, adapters, name, owner)  # noqa: B023

            ratio = compare(lambda: run(own), lambda: run(bank), 7)  # noqa: B023
            parts = compare(lambda: run(own), segments, 3)  # noqa: B023
            sys.stdout.write(f"{width:5}  {rank:4}  {rows:4}  {count:8}  {ratio}; {parts}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
