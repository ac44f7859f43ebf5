"""What decoding on a CPU is made of: products of frozen layers, and attention of one token.

    python benchmarks/decode/parts.py

Products: all linear layers of the tiny and of the 0.6B shape, one after another, as torch computes
them and as `slots/products.py` does. Attention: the layers of a step, as torch's kernel computes it
for grouped heads, and as `decoding/attention.py` does. One thread, process time.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from interleaved import compare

from detour.decoding.attention import one_token
from detour.slots.products import Products

TINY = ([(256, 256)] * 4 + [(688, 256)] * 2 + [(256, 688)]) * 6
SMALL = [
    *((2048, 1024), (1024, 1024), (1024, 1024), (1024, 2048)),
    *((3072, 1024), (3072, 1024), (1024, 3072)),
] * 28


def products(shapes: list[tuple[int, int]], dtype: torch.dtype, tokens: int) -> str:
    layers = [nn.Linear(wide, out, bias=False).to(dtype) for out, wide in shapes]
    inputs = {wide: torch.randn(tokens, wide).to(dtype) for _, wide in shapes}
    ours = Products()

    def theirs() -> None:
        with torch.inference_mode():
            for layer in layers:
                layer(inputs[layer.in_features])

    def mine() -> None:
        with torch.inference_mode():
            for layer in layers:
                ours.linear(layer, inputs[layer.in_features])

    return str(compare(mine, theirs, 9))


def attention(dtype: torch.dtype, rows: int, tokens: int, layers: int = 28) -> str:
    heads, groups, width, room = 16, 8, 128, 64
    query = torch.randn(rows, heads, 1, width).to(dtype)
    caches = [
        torch.randn(2, rows, groups, tokens + room, width).to(dtype)[:, :, :, :tokens]
        for _ in range(layers)
    ]

    def theirs() -> None:
        with torch.inference_mode():
            for key, value in caches:
                functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)

    def mine() -> None:
        with torch.inference_mode():
            for key, value in caches:
                one_token(query, key, value)

    return str(compare(mine, theirs, 9))


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, shapes, dtype in (("tiny", TINY, torch.float32), ("0.6b", SMALL, torch.bfloat16)):
        for tokens in (1, 8, 32, 1024) if name == "tiny" else (1, 8, 32):
            sys.stdout.write(
                f"products, {name}, {tokens} tokens: {products(shapes, dtype, tokens)}\n"
            )
            sys.stdout.flush()
    for dtype in (torch.float32, torch.bfloat16):
        for rows, tokens in ((1, 256), (8, 64), (8, 256)):
            told = attention(dtype, rows, tokens)
            sys.stdout.write(f"attention, {dtype}, {rows} rows, {tokens} tokens: {told}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
