"""The hypernetwork: encoded descriptions and the places of a base to the factors of all updates.

Description, depth and module are embedded, mixed by a trunk, and read by a head (Text-to-LoRA,
Charakorn et al. 2025, arXiv 2506.06105, figure 2). All layers, modules and descriptions go through
in one pass. Where a description has several phrases, each yields factors of its own and they stand
side by side along the rank, so that the updates add up. Knows vectors, names and shapes; knows no
text, no base and no loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detour.hypernetwork.config import NetworkConfig
from detour.hypernetwork.encoder import Described, Encoder
from detour.hypernetwork.heads import head_of
from detour.hypernetwork.places import Places
from detour.slots.content import Content, per_row


@dataclass(frozen=True, eq=False)
class Generated:
    """The factors of every layer for some tasks; ΔW = scale · upᵀ @ down."""

    factors: Mapping[str, tuple[Tensor, Tensor]]
    """Layer to (down (tasks, rank, in), up (tasks, rank, out))."""
    scale: float

    def contents(self) -> dict[str, Content]:
        """What slots hold so that each row gets its own."""
        return {n: per_row(down, up, self.scale) for n, (down, up) in self.factors.items()}


class Trunk(nn.Module):
    """Two halves: `mix` before what is wanted is known, `finish` after it."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.mixer = _two_layers(width, hidden, width, dropout)
        self.first = nn.Sequential(nn.LayerNorm(width), _two_layers(width, hidden, width, dropout))
        self.second = nn.Sequential(nn.LayerNorm(width), _two_layers(width, hidden, width, dropout))
        self.third = nn.Sequential(nn.LayerNorm(width), _two_layers(width, hidden, hidden, dropout))

    def mix(self, x: Float[Tensor, "*lead width"]) -> Float[Tensor, "*lead width"]:
        """Mixer and first block."""
        x = self.mixer(x)
        return x + self.first(x)

    def finish(
        self, x: Float[Tensor, "*lead width"], wanted: Tensor | None
    ) -> Float[Tensor, "*more hidden"]:
        """Second and third block, after an embedding of what is wanted was added."""
        x = x if wanted is None else x + wanted
        return self.third(x + self.second(x))


def _two_layers(width: int, hidden: int, out: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(width, hidden), nn.SiLU(), nn.Dropout(dropout),
        nn.Linear(hidden, out), nn.SiLU(), nn.Dropout(dropout),
    )  # fmt: skip


class Hypernetwork(nn.Module):
    """From descriptions to updates for one base's places.

    `embedding` is the width of the text encoder's vectors; `primitives` are the names that a
    description's parts can be told apart by, if any.
    """

    def __init__(
        self,
        config: NetworkConfig,
        places: Places,
        embedding: int,
        primitives: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.config = config
        self.places = places
        self.embedding = embedding
        width = config.task_width + 2 * config.place_width
        self.primitives = tuple(primitives)
        self.encoder = Encoder(config, embedding)
        self.naming = nn.Linear(config.task_width, len(primitives)) if primitives else None
        self.depth = nn.Embedding(places.depths, config.place_width)
        self.module = nn.Embedding(len(places.groups), config.place_width)
        self.depth_norm = nn.LayerNorm(config.place_width)
        self.module_norm = nn.LayerNorm(config.place_width)
        self.trunk = Trunk(width, config.hidden, config.dropout)
        self.heads = nn.ModuleList(
            head_of(config.head, group, config.rank, config.hidden, width)
            for group in places.groups
        )

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.depth.weight.device

    def forward(self, described: Described) -> Generated:
        """The factors for each description."""
        return self.generate(*self.encoder(described))

    def generate(
        self, encoded: Float[Tensor, "tasks parts task_width"], there: Bool[Tensor, "tasks parts"]
    ) -> Generated:
        """The factors for encoded descriptions."""
        tasks, parts = there.shape
        mixed = self.trunk.mix(self._placed(encoded.flatten(0, 1)))
        factors: dict[str, tuple[Tensor, Tensor]] = {}
        start = 0
        padded = not bool(there.all())
        for group, head in zip(self.places.groups, self.heads, strict=True):
            end = start + len(group.layers)
            down, up = head(self.trunk.finish, mixed[:, start:end])
            if padded:
                up = up * there.flatten()[:, None, None, None]
            pairs = zip(_of_layers(down, tasks, parts), _of_layers(up, tasks, parts), strict=True)
            factors.update(zip(group.layers, pairs, strict=True))
            start = end
        return Generated(factors, self.config.scale)

    def _placed(self, encoded: Float[Tensor, "rows task"]) -> Float[Tensor, "rows places width"]:
        """Every description beside every place's depth and module."""
        device = encoded.device
        depths = [depth for group in self.places.groups for depth in group.depths]
        modules = [number for number, group in enumerate(self.places.groups) for _ in group.layers]
        placed = torch.cat(
            [
                self.depth_norm(self.depth(torch.tensor(depths, device=device))),
                self.module_norm(self.module(torch.tensor(modules, device=device))),
            ],
            dim=-1,
        )  # (places, 2 · place_width)
        rows, count = len(encoded), len(depths)
        return torch.cat(
            [
                encoded[:, None].expand(rows, count, -1),
                placed.expand(rows, *placed.shape),
            ],
            dim=-1,
        )

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Parameters whose gradients are clipped together: encoder, trunk, each head."""
        heads = {f"head {g.module}": h for g, h in zip(self.places.groups, self.heads, strict=True)}
        of = {id(p): name for name, head in heads.items() for p in head.parameters()}
        of |= {id(p): "encoder" for p in self.encoder.parameters()}
        if self.naming is not None:
            of |= {id(p): "encoder" for p in self.naming.parameters()}
        found: dict[str, list[nn.Parameter]] = {}
        for parameter in self.parameters():
            found.setdefault(of.get(id(parameter), "trunk"), []).append(parameter)
        return found


def _of_layers(
    factors: Float[Tensor, "rows layers rank features"], tasks: int, parts: int
) -> tuple[Float[Tensor, "tasks wide features"], ...]:
    """Each layer's factors, a description's parts side by side along the rank.

    All at once: the gradient of a layer that is picked alone is as large as all of them.
    """
    told = factors.unflatten(0, (tasks, parts)).movedim(2, 0)  # (layers, tasks, parts, rank, …)
    return told.flatten(2, 3).unbind()
