"""Which run a state is of: what must be equal for a training to go on from it.

Knows settings, bases and digests; knows no files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from detour.state_file import Identity
from detour.training.config import TrainConfig
from detour.training.cost import AnyBase

NO_MATTER = frozenset({"micro_batch_size", "checkpointing", "tests"})
"""Settings that change no result: after too little memory a run goes on in smaller parts."""


def identity_of(config: TrainConfig, base: AnyBase, data: Iterable[str], **more: str) -> Identity:
    """Settings, base, digests of the rows, and what else a training depends on, by name."""
    settings = config.model_dump(mode="json", exclude=set(NO_MATTER))
    return {
        "base": json.dumps(base.fingerprint.to_json()),
        "data": " ".join(data),
        **more,
        **{name: json.dumps(value) for name, value in settings.items()},
    }
