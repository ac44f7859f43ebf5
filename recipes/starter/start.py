"""The starter's weights before training: heads that look back, and heads that find what followed.

A small model reads few tokens, and the circuit that copies from a prompt (an induction head,
Olsson et al. 2022, arXiv:2209.11895) forms late and by chance. Here it is laid out at the start, as
weights that training may change like all others:

- in the first layer, head `d` looks `d` tokens back (biases on the fast rotary pairs; Su et al.
  2021, arXiv:2104.09864) and writes what it sees into a subspace of its own;
- in the second, head `h` looks for the place where the last `h + 1` tokens stood before, and sees
  what came next: its query reads the tokens themselves, its key what the first layer wrote; only
  slow rotary pairs take part, so that distance does not matter; many tokens have to agree where
  several sentences tell the same of different things;
- the heads left over, and all of the other layers, begin with queries equal to their keys, so that
  equal tokens attend to each other (mimetic initialisation, Trockman & Kolter 2023,
  arXiv:2305.09828).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import LlamaForCausalLM

KEYS = 0.05  # standard deviation of the keys, and so of the queries that equal them
QUIET = 0.5  # what the other heads and the layers' MLPs write, against the usual start
LOOKING = 6.0  # bias of the heads that look back: .94 of their attention on one token
AIMLESS = 0.1  # what is left of their keys and queries
WRITTEN = 0.06  # size of what they write; a token's own components are .02
MATCH = 3.0  # length of the rows of queries and keys that match
FOUND = 0.02  # size of what is written about the token that was found
FAST, SLOW = 0.02, 2e-3  # rotary frequencies, in radians a token: at least, at most
FAST_PAIRS = 5
Spaces = list[Float[Tensor, "size width"]]


@torch.no_grad()
def prepare(model: LlamaForCausalLM, seed: int) -> None:
    """Change the fresh weights of a model with `attention_bias`, in place.

    Raises:
        ValueError: the model has fewer than two layers or three heads, its heads do not fill its
            width, or its projections have no biases.
    """
    layers = list(model.model.layers)
    width, heads = model.config.hidden_size, model.config.num_attention_heads
    if len(layers) < 2 or heads < 3 or layers[0].self_attn.q_proj.bias is None:
        raise ValueError("a structured start needs two layers, three heads and attention_bias")
    if heads * layers[0].self_attn.head_dim != width:
        raise ValueError("a structured start needs heads that fill the width")
    draw = torch.Generator().manual_seed(seed)
    for layer in layers:
        attention = layer.self_attn
        attention.k_proj.weight.normal_(std=KEYS, generator=draw)
        attention.q_proj.weight.copy_(attention.k_proj.weight)
        attention.o_proj.weight.mul_(QUIET)
        layer.mlp.down_proj.weight.mul_(QUIET)
    # a space for the token itself, one for each of those before it, and one for what was found
    spaces = list(_orthonormal(width, width, draw).split(layers[0].self_attn.head_dim))
    _look_back(model, spaces[:-1])
    _find(model, spaces[:-1], spaces[-1], draw)


def _look_back(model: LlamaForCausalLM, spaces: Spaces) -> None:
    """Head `d - 1` of the first layer copies the token `d` back from `spaces[0]` to `spaces[d]`."""
    attention = model.model.layers[0].self_attn
    size = attention.head_dim
    turns = _frequencies(model)
    fast = [pair for pair, turn in enumerate(turns) if turn > FAST][:FAST_PAIRS]
    for distance in range(1, len(spaces)):
        first = (distance - 1) * size
        head = slice(first, first + size)
        attention.q_proj.weight[head] *= AIMLESS
        attention.k_proj.weight[head] *= AIMLESS
        for pair in fast:
            turned = turns[pair] * distance
            attention.q_proj.bias[first + pair] = LOOKING * math.cos(turned)
            attention.q_proj.bias[first + pair + size // 2] = -LOOKING * math.sin(turned)
            attention.k_proj.bias[first + pair] = LOOKING
        attention.v_proj.weight[head] = spaces[0]
        attention.o_proj.weight[:, head] = WRITTEN * spaces[distance].T


def _find(
    model: LlamaForCausalLM,
    spaces: Spaces,
    found: Float[Tensor, "size width"],
    draw: torch.Generator,
) -> None:
    """Head `h` of the second layer: a query's last `h + 1` tokens, before the key's token.

    The first one, which finds most often, tells of the token in the space where all later layers
    read tokens; the others in a space that nothing else is written to.
    """
    attention = model.model.layers[1].self_attn
    size = attention.head_dim
    slow = [pair for pair, turn in enumerate(_frequencies(model)) if turn < SLOW]
    used = torch.tensor([*slow, *(pair + size // 2 for pair in slow)])
    for head in range(len(spaces) - 1):
        rows = head * size + used
        attention.q_proj.weight[head * size : (head + 1) * size] = 0
        attention.k_proj.weight[head * size : (head + 1) * size] = 0
        for back in range(head + 1):
            mixed = MATCH * _orthonormal(size, len(used), draw)
            attention.q_proj.weight[rows] += mixed @ spaces[back]
            attention.k_proj.weight[rows] += mixed @ spaces[back + 1]
        seen = found if head else spaces[0]
        attention.v_proj.weight[head * size : (head + 1) * size] = seen
        attention.o_proj.weight[:, head * size : (head + 1) * size] = FOUND * seen.T


def _frequencies(model: LlamaForCausalLM) -> list[float]:
    """Radians a token of every rotary pair, the fastest first."""
    turns: list[float] = model.model.rotary_emb.inv_freq.tolist()
    return turns


def _orthonormal(size: int, count: int, draw: torch.Generator) -> Float[Tensor, "count size"]:
    """That many random orthonormal rows."""
    return torch.linalg.qr(torch.randn(size, count, generator=draw))[0].T
