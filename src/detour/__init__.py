"""Detour steers language models: small adapters, exact chains of them, and proof of what they did.

Names are imported on first use, so that `import detour` (and `detour --help`) stays instant.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from detour.adapter.adapter import Adapter
    from detour.adapter.chain import Chain
    from detour.evaluate.teach import teach
    from detour.hypernetwork.generate import generate
    from detour.model.base import Base
    from detour.training.loop import train

__version__ = "0.2.0"

__all__ = ["Adapter", "Base", "Chain", "__version__", "generate", "teach", "train"]

_HOMES = {
    "Adapter": "detour.adapter.adapter",
    "Base": "detour.model.base",
    "Chain": "detour.adapter.chain",
    "generate": "detour.hypernetwork.generate",
    "teach": "detour.evaluate.teach",
    "train": "detour.training.loop",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'detour' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
