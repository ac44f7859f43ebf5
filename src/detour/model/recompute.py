"""Decoder layers that keep only what enters them, and run once more in the backward.

Gradient checkpointing, a layer at a time (Chen et al. 2016, arXiv:1604.06174): what a layer leaves
for the backward exists for one layer at a time, for one more forward of each. Done here and not by
transformers, whose own switch wants a model in training mode and knows nothing of an attention that
is exchanged for the length of a forward. Knows models whose layers lie in one list; knows no
adapters.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from detour.model.prefix import decoder_layers, is_passed_by

Around = Callable[[], AbstractContextManager[None]]


def can_recompute(model: PreTrainedModel) -> bool:
    """Whether its decoder layers lie in one list."""
    return decoder_layers(model) is not None


@contextmanager
def recomputing(model: PreTrainedModel, around: Around = nullcontext) -> Generator[None]:
    """Let the forwards inside keep only what enters each decoder layer.

    `around` is what the forward runs within and the layers' second run, in the backward, must find
    again. Until then nothing that acts on a layer may change.

    Raises:
        ValueError: the layers do not lie in one list.
    """
    found = decoder_layers(model)
    if found is None:
        raise ValueError("the decoder layers do not lie in one list")
    layers = [layer for layer in found[1] if not is_passed_by(layer)]
    own = [layer.__dict__.get("forward") for layer in layers]
    for layer in layers:
        layer.forward = partial(_again, layer.forward, around)
    try:
        yield
    finally:
        for layer, forward in zip(layers, own, strict=True):
            if forward is None:
                del layer.forward
            else:
                layer.forward = forward


def is_recomputed(model: PreTrainedModel) -> bool:
    """Whether the forward that runs now keeps only what enters the layers."""
    found = decoder_layers(model)
    forwards = [layer.__dict__.get("forward") for layer in found[1]] if found else []
    return any(isinstance(one, partial) and one.func is _again for one in forwards)


def _again(
    forward: Callable[..., Any],
    around: Around,
    *arguments: Any,  # noqa: ANN401 - whatever the model hands to its layers
    **named: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    return checkpoint(
        forward,
        *arguments,
        use_reentrant=False,
        preserve_rng_state=False,  # nothing is drawn in a frozen layer
        context_fn=lambda: (nullcontext(), around()),
        **named,
    )
