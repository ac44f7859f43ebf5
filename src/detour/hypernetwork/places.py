"""Where generated updates go: a base's layers, grouped into modules that share a head.

`model.layers.3.self_attn.q_proj` is the layer 3 of the module `model.layers.#.self_attn.q_proj`.
Layers of one module whose shapes differ form groups of their own. Knows names and shapes only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

USUAL = (
    ("q_proj", "v_proj"), ("query", "value"), ("q", "v"), ("qkv_proj",), ("query_key_value",),
    ("c_attn",), ("Wqkv",), ("qkv",),
)  # fmt: skip
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True)
class Group:
    """Layers of one module and one shape.

    Attributes:
        module: the layers' common name, with # for the number.
        layers: their full names, in the model's order.
        depths: which depth of the model each one has, counted from 0 without gaps.
        out, width: outputs and inputs of every one of them.
    """

    module: str
    layers: tuple[str, ...]
    depths: tuple[int, ...]
    out: int
    width: int


@dataclass(frozen=True)
class Places:
    """All groups of a base, and how many depths they lie on."""

    groups: tuple[Group, ...]
    depths: int

    @property
    def count(self) -> int:
        """How many layers there are."""
        return sum(len(group.layers) for group in self.groups)

    def to_json(self) -> list[dict[str, object]]:
        """What a saved hypernetwork says of its base's layers."""
        return [
            {"layer": layer, "out": group.out, "in": group.width}
            for group in self.groups
            for layer in group.layers
        ]


def places_of(shapes: Mapping[str, tuple[int, int]]) -> Places:
    """Group layers by their name without its number and by their shape (out, in)."""
    numbers = {name: _numbers(name) for name in shapes}
    depths = {number: place for place, number in enumerate(sorted(set(numbers.values())))}
    groups: dict[tuple[str, int, int], list[str]] = {}
    for name, (out, width) in shapes.items():
        groups.setdefault((_NUMBER.sub("#", name), out, width), []).append(name)
    return Places(
        tuple(
            Group(module, tuple(names), tuple(depths[numbers[n]] for n in names), out, width)
            for (module, out, width), names in groups.items()
        ),
        len(depths),
    )


def usual_targets(names: Iterable[str]) -> tuple[str, ...]:
    """Queries and values, as published; where a base fuses them, the layer that holds them.

    Empty where none of the known names is there.
    """
    last = {name.rsplit(".", 1)[-1] for name in names}
    return next((targets for targets in USUAL if set(targets) <= last), ())


def _numbers(name: str) -> tuple[int, ...]:
    """The first number in a name is its depth; experts and the like count after it."""
    return tuple(int(number) for number in _NUMBER.findall(name))
