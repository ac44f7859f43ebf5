"""A finished chain as one adapter that learns a little more: its parts give up their independence.

The training begins at the chain itself, so that nothing has to be learned again; a few steps take
away what its parts do to each other. Knows chains and rows; how rows are learned is `loop`'s.
"""

from __future__ import annotations

from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.model.base import Base
from detour.training.config import TrainConfig
from detour.training.loop import Data, Result, train_with

STEPS = 40


def consolidate(
    base: Base,
    chain: Chain,
    data: Data,
    config: TrainConfig,
    **more: Any,  # noqa: ANN401 - as `train_with` has them
) -> tuple[Result, float]:
    """Train the chain as one adapter on rows that say what the whole of it shall say.

    Args:
        base: that the chain belongs to.
        chain: of two adapters or more.
        data: rows to learn, as `train` takes them.
        config: settings. A rank that is set is that of the adapter, and the chain is compressed to
            it first; else it has the sum of the parts' ranks, and begins exactly at the chain.
        more: other arguments of `train_with`.

    Returns:
        How it went, and the relative Frobenius distance of its beginning to the chain.

    Raises:
        As `train_with`; ConfigError: a part that is more than low-rank changes of linear layers.
    """
    start, error = _begun(base.bind(chain), config)
    if config.steps is None and config.epochs is None:
        config = config.model_copy(update={"steps": STEPS})
    return train_with(base, data, config, start=start, **more), error


def _begun(chain: Chain, config: TrainConfig) -> tuple[Adapter, float]:
    if "rank" in config.model_fields_set:
        return chain.compress(config.rank, "chain")
    return chain.flatten("chain"), 0.0
