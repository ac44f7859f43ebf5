"""The factors of several adapters that learn side by side, and of others that only keep company.

Every row of a batch says by its gate how strongly each of them acts on it, so that one batch holds
rows of many chains. Knows tensors and layer shapes; knows neither data nor optimisers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.slots.content import Content, Spread, Term, down_of, up_of
from detour.training.factors import Factors, Pairs, Size


@dataclass(frozen=True, eq=False)
class Frozen:
    """Adapters of one rank on one layer: down (adapters, rank, in), up (adapters, rank, out)."""

    down: Float[Tensor, "adapters rank in"]
    up: Float[Tensor, "adapters rank out"]
    columns: tuple[int, ...]
    """Of the gate."""


class Stacked(Pairs):
    """Live factors down (adapters, rank, in) and up (adapters, rank, out), and frozen company.

    The gate's first columns are those of the live ones, in the order of `seeds`; then those of the
    company.

    Raises:
        ConfigError: company that scales or shifts outputs (DoRA, biases).
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, int]],
        sizes: Mapping[str, Size],
        seeds: Sequence[int],
        company: Sequence[Adapter],
        device: torch.device,
    ) -> None:
        self.count = len(seeds)
        self.pairs: dict[str, tuple[nn.Parameter, nn.Parameter]] = {}
        self.scales = {layer: size.scale for layer, size in sizes.items()}
        each = [Factors(shapes, sizes, seed, device) for seed in seeds]
        for layer in shapes:
            downs, ups = zip(*(one.pairs[layer] for one in each), strict=True)
            self.pairs[layer] = nn.Parameter(torch.stack(downs)), nn.Parameter(torch.stack(ups))
        self._frozen = frozen(company, self.count, device)

    def begin_with(self, place: int, updates: Mapping[str, Update]) -> None:
        """Let the live adapter at this place start at these updates instead of at the base."""
        with torch.no_grad():
            for layer, update in updates.items():
                down, up = self.pairs[layer]
                down[place, : update.rank] = update.down.to(down)
                up[place, : update.rank] = update.up.mT.to(up) * (update.scale / self.scales[layer])

    def contents(self, gate: Float[Tensor, "rows adapters"]) -> dict[str, Content]:
        """What acts on rows of this gate."""
        found: dict[str, tuple[Term, ...]] = {}
        live = gate[:, : self.count]
        for layer, (down, up) in self.pairs.items():
            own = live * self.scales[layer]
            found[layer] = (Term(down, up, Spread.BANKED, Spread.BANKED, own),)
        for layer, groups in self._frozen.items():
            terms = tuple(
                Term(one.down, one.up, Spread.BANKED, Spread.BANKED, gate[:, list(one.columns)])
                for one in groups
            )
            found[layer] = (*found.get(layer, ()), *terms)
        return {layer: Content(terms) for layer, terms in found.items()}

    def updates(self, taken: Mapping[str, Tensor], place: int) -> dict[str, Update]:
        """One live adapter of a snapshot as values."""
        return {
            layer: Update(
                taken[f"{layer}.down"][place].cpu().clone(),
                taken[f"{layer}.up"][place].cpu().mT.contiguous(),
                self.scales[layer],
            )
            for layer in self.pairs
        }


def frozen(company: Sequence[Adapter], first: int, device: torch.device) -> dict[str, list[Frozen]]:
    """By layer, the company's factors, those of one rank together; columns begin at `first`.

    Raises ConfigError: an adapter that scales or shifts outputs (DoRA, biases), or has token rows.
    """
    members: dict[str, dict[int, list[tuple[int, Update]]]] = {}
    for number, adapter in enumerate(company):
        for layer, update in adapter.updates.items():
            if update.row_scale is not None or update.bias_delta is not None or update.lookup:
                raise ConfigError(
                    text("{adapter} does more than low-rank changes: it cannot be weighted row by "
                         "row", adapter=adapter.name),
                    expected=text("adapters of linear layers without DoRA, biases and token rows"),
                    found=layer,
                )  # fmt: skip
            if update.rank:
                ranks = members.setdefault(layer, {})
                ranks.setdefault(update.rank, []).append((first + number, update))
    return {
        layer: [
            Frozen(
                torch.stack([down_of(update, torch.float32, device) for _, update in own]),
                torch.stack([up_of(update, 1.0, torch.float32, device) for _, update in own]),
                tuple(column for column, _ in own),
            )
            for own in ranks.values()
        ]
        for layer, ranks in members.items()
    }
