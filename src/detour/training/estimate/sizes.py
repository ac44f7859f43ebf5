"""The numbers of an architecture that memory and time depend on.

Knows blueprints and settings; knows neither bytes nor machines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from detour.model.blueprint import Blueprint
from detour.training.config import TrainConfig
from detour.training.cost import Slotted, backward_share, head_of, layer_sizes, met_layers
from detour.training.kinds import size_of

_BLOCK = re.compile(r"^(.*?\.\d+)\.")  # "model.layers.0" of "model.layers.0.mlp.up_proj"


@dataclass(frozen=True)
class Sizes:
    """Of a model and the adapter that it would get.

    Attributes:
        parameters: of the whole model; tied ones count once.
        packable: of them in linear layers below the head, which bitsandbytes packs.
        adapter: parameters of the adapter.
        learned: share of the layers at or above the lowest adapted one.
        blocks: decoder layers.
        block: parameters of the largest of them.
        width: of the hidden states.
        kept: numbers that a token leaves in all layers for the backward.
        kept_most: of them in one block, at most.
        vocabulary: rows of the head.
        plain_head: no adapter acts on the head, and its logits are not capped.
    """

    parameters: int
    packable: int
    adapter: int
    learned: float
    blocks: int
    block: int
    width: int
    kept: float
    kept_most: float
    vocabulary: int
    plain_head: bool = True


def adapted_layers(base: Slotted, config: TrainConfig) -> dict[str, int]:
    """The layers that these settings adapt, and how many parameters each gets.

    Raises:
        SlotError: a target that names no layer.
    """
    layers, shapes = base.slots.named(config.targets), base.slots.shapes
    return {layer: size_of(config, layer).rank * sum(shapes[layer]) for layer in layers}


def sizes_of(blueprint: Blueprint, config: TrainConfig) -> Sizes:
    """Counted, not looked up: the modules are those of the model itself.

    A token leaves the input and the output of every linear layer that it meets. For a layer of
    width h with an MLP of 4 h that is 16 h numbers, which are the 34 h bytes of Korthikanti et al.
    (2022, arXiv:2205.05198, table 2 with the scores of attention recomputed) without the masks of
    dropout, which is not applied here.

    Raises:
        SlotError: a target that names no layer.
    """
    adapted = adapted_layers(blueprint, config)
    head, head_size = head_of(blueprint)
    shapes = blueprint.slots.shapes
    linear = blueprint.slots.linear_names()
    kept: dict[str, float] = {}
    for name, (out, wide), times in met_layers(blueprint):
        block = _block_of(name)
        kept[block] = kept.get(block, 0.0) + (out + wide) * times
    blocks: dict[str, int] = {}
    for name, parameter in blueprint.model.named_parameters():
        if _BLOCK.match(name):
            blocks[_block_of(name)] = blocks.get(_block_of(name), 0) + parameter.numel()
    width = blueprint.width
    return Sizes(
        parameters=blueprint.parameters,
        packable=sum(shapes[name][0] * shapes[name][1] for name in linear),
        adapter=sum(adapted.values()),
        learned=backward_share(layer_sizes(blueprint), [n for n in adapted if n != head]),
        blocks=len(blocks),
        block=max(blocks.values(), default=0),
        width=width,
        kept=sum(kept.values()),
        kept_most=max(kept.values(), default=0.0),
        vocabulary=head_size // width if head else 0,
        plain_head=head not in adapted and not _is_capped(blueprint),
    )


def _is_capped(blueprint: Blueprint) -> bool:
    config = blueprint.model.config.get_text_config()
    return bool(getattr(config, "final_logit_softcapping", None))


def _block_of(name: str) -> str:
    match = _BLOCK.match(name)
    return match[1] if match else ""
