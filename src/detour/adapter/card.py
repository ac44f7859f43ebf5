"""The card of an adapter: what it is for, what it was made from, and who may use it.

Written as README.md with YAML front matter, as model hubs read it. Front matter and text of a
foreign card are kept as they are. Knows text; knows no tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Card:
    """What is known about an adapter."""

    description: str = ""
    fictional: bool = False
    licence: str = ""
    base_model: str = ""
    data_sha256: str = ""
    seeds: tuple[int, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    metrics: Mapping[str, Any] = field(default_factory=dict[str, Any])
    created: str = ""
    intended_use: str = ""
    forbidden_use: str = ""
