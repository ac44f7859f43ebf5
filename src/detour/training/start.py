"""Training that begins at an adapter that is there: a generated one, or one of yesterday.

What is left open of rank, scale and layers is the adapter's own. Knows adapters and settings; knows
no data.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from detour.adapter.adapter import Adapter
from detour.adapter.update import Update
from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.training.config import TrainConfig
from detour.training.kinds import size_of


def of_base(start: Adapter, base: Base) -> Adapter:
    """The adapter with this base's names, known to belong to it and fit to go on with.

    Raises:
        WrongBase, SlotError, AdapterWeightsError: as `Base.bind`.
        ConfigError: it changes more than low-rank factors can go on with.
    """
    (term,) = base.bind(start).terms
    for layer, update in term.adapter.updates.items():
        more = update.row_scale is not None or update.bias_delta is not None
        if more or update.lookup or update.down.ndim != 2 or not update.is_low_rank:
            raise ConfigError(
                text("{adapter} cannot be gone on with", adapter=start.name),
                expected=text("plain low-rank changes of linear layers"),
                found=text("another kind of change in {layer}", layer=layer),
                hint=text("train without --start and put the two into a chain"),
            )
    return term.adapter


def settled(config: TrainConfig, start: Adapter) -> TrainConfig:
    """`config` with the adapter's rank, scale and layers where nobody set them.

    Raises:
        ConfigError: a rank below the adapter's, which would lose some of it.
    """
    given = config.model_fields_set
    if config.dora or config.init != "random":
        raise ConfigError(
            text("{adapter} cannot be gone on with", adapter=start.name),
            expected=text("plain low-rank factors"),
            found="dora" if config.dora else f"init: {config.init}",
            hint=text("train without --start and put the two into a chain"),
        )
    rank = config.rank if "rank" in given else start.rank
    if rank < start.rank:
        raise ConfigError(
            text("{adapter} does not fit into this rank", adapter=start.name),
            expected=text("a rank of at least {rank}", rank=start.rank),
            found=str(rank),
            hint=text("leave --rank away: it is the adapter's then"),
        )
    scale = max((abs(update.scale) for update in start.updates.values()), default=1.0)
    chosen: dict[str, object] = {"rank": rank}
    if "alpha" not in given:
        chosen["alpha"] = scale * (math.sqrt(rank) if config.rslora else rank)
    if "targets" not in given:
        chosen["targets"] = tuple(sorted(start.updates))
    return config.model_copy(update=chosen)


def updates_of(start: Adapter, base: Base, config: TrainConfig) -> Mapping[str, Update]:
    """The updates of an adapter that `of_base` gave, all of them among the targets.

    Raises:
        ConfigError: it acts on layers that the settings leave out.
    """
    kept = set(base.slots.named(config.targets))
    if missing := [layer for layer in start.updates if layer not in kept]:
        raise ConfigError(
            text("{adapter} acts on layers that the targets leave out", adapter=start.name),
            expected=text("targets that include {layer}", layer=missing[0]),
            found=str(config.targets),
            hint=text("leave --targets away: they are the adapter's then"),
        )
    for layer, update in start.updates.items():
        if update.rank > (own := size_of(config, layer).rank):
            raise ConfigError(
                text("{adapter} does not fit into this rank", adapter=start.name),
                expected=text("a rank of at least {rank}", rank=update.rank),
                found=f"rank_pattern: {own} ({layer})",
            )
    return start.updates
