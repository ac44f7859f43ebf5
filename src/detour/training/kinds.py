"""Which factors a training has, and how large they are layer by layer: LoRA and its relatives.

Knows settings and slots; what the relatives do is their own modules' business.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from detour.adapter.peft_config import pattern_for
from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.slots.install import SlotSet
from detour.training.config import TrainConfig
from detour.training.dora import Decomposed
from detour.training.factors import Factors, Size
from detour.training.pissa import Principal


def size_of(config: TrainConfig, layer: str) -> Size:
    """Rank and scale of one layer, by the patterns of PEFT's rule.

    The scale is alpha / rank (Hu et al. 2021, arXiv:2106.09685), with rsLoRA alpha / √rank
    (Kalajdzievski 2023, arXiv:2312.03732).
    """
    ranks, alphas = config.rank_pattern, config.alpha_pattern
    rank = ranks.get(pattern_for(ranks, layer), config.rank)
    alpha = alphas.get(pattern_for(alphas, layer), config.alpha)
    return Size(rank, alpha / (math.sqrt(rank) if config.rslora else rank))


def factors_of(
    slots: SlotSet, layers: Sequence[str], config: TrainConfig, device: torch.device
) -> Factors:
    """The factors that these settings ask for, at their start.

    Raises:
        ConfigError: a pattern that fits no layer, or a rank that a layer is too small for.
    """
    _check_patterns(config, layers)
    sizes = {layer: size_of(config, layer) for layer in layers}
    if config.dora:
        return Decomposed(slots, list(layers), sizes, config.seed, device)
    if config.init == "pissa":
        _check_ranks(slots, sizes)
        return Principal(slots, list(layers), sizes, config.seed, device)
    shapes = {layer: slots.shapes[layer] for layer in layers}
    return Factors(shapes, sizes, config.seed, device)


def _check_patterns(config: TrainConfig, layers: Sequence[str]) -> None:
    for setting in ("rank_pattern", "alpha_pattern"):
        for key in getattr(config, setting):
            if not any(pattern_for({key: None}, layer) == key for layer in layers):
                raise ConfigError(
                    text("{setting} names {key}, which is no layer that is adapted",
                         setting=setting, key=key),
                    expected=text("the end of a layer's name, such as {example}",
                                  example=layers[0]),
                )  # fmt: skip


def _check_ranks(slots: SlotSet, sizes: dict[str, Size]) -> None:
    """A weight has no more directions than its narrower side."""
    for layer, size in sizes.items():
        most = min(slots.shapes[layer])
        if size.rank > most:
            raise ConfigError(
                text("{layer} has too few directions for this rank", layer=layer),
                expected=text("a rank of at most {most}", most=most),
                found=str(size.rank),
            )
