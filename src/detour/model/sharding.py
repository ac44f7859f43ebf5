"""A frozen base whose layers are spread over the processes of a team (FSDP).

Each process keeps its part of every decoder layer and gathers a layer when it runs, by torch's
`fully_shard`. What an adapter trains stays whole in every process: it is small, and so is saved as
an ordinary adapter. Knows bases and teams; knows no training.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.prefix import decoder_layers
from detour.model.quantized import method_of
from detour.team import Team


def shard(base: Base, team: Team, device: torch.device) -> None:
    """Spread the base's decoder layers over the team, for good.

    Load the base on the CPU first, so that no device ever holds all of it. Embeddings and head,
    which belong to no layer, are whole in every process. Every process must run the same forwards
    from then on, as they gather the layers together.

    Raises:
        BaseError: one process alone, a packed base, or layers that are not one list.
    """
    if team.size == 1:
        raise BaseError(
            text("one process has nobody to spread a base over"),
            hint=text(
                "start it with {launcher}",
                launcher="accelerate launch --multi_gpu --num_processes 2 -m detour train …",
            ),
        )
    if method_of(base.model.config):
        raise BaseError(
            text("a packed base cannot be spread over processes"),
            hint=text("leave --quantize away"),
        )
    found = decoder_layers(base.model)
    if found is None:
        raise BaseError(text("{base} does not keep its layers in one list", base=base.name))
    mesh = init_device_mesh(device.type, (team.size,))
    for layer in found[1]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)  # not the default of a root
    nn.Module.to(base.model, device)
    base.is_spread = True
    base.slots.products.limit = 0  # gathered weights live for one forward: nothing to lay out
