"""Changes of parameters that no layer's slot covers: norms, and the stacked weights of experts.

While they are held, the module finds a changed copy under the parameter's name; afterwards the
parameter itself is there again, at its old place. Such a change is one for all rows of a batch:
rows that differ would each need a weight of their own. Knows torch modules and contents.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detour.errors import UnsupportedVariant
from detour.language.catalogue import text
from detour.slots.content import Content

_KEY = re.compile(r"(.+)\[(\d+|:)\]")


@dataclass(frozen=True)
class Place:
    """Where a change lands: a module's parameter, or one expert of its stack."""

    module: nn.Module
    name: str
    expert: int | None

    @property
    def value(self) -> Tensor:
        """The parameter, or the expert's part of it."""
        whole: Tensor = getattr(self.module, self.name)
        return whole if self.expert is None else whole[self.expert]

    @property
    def shape(self) -> tuple[int, int]:
        """(out, in); a vector is (out, 1)."""
        value = self.value
        if value.ndim == 1:
            return value.shape[0], 1
        first, second = value.shape
        return (second, first) if self.is_transposed else (first, second)

    @property
    def is_transposed(self) -> bool:
        """Whether a stack keeps its experts as (in, out): transformers' flag of such modules."""
        return self.expert is not None and bool(getattr(self.module, "is_transposed", False))


def find(model: nn.Module, key: str) -> Place | None:
    """The parameter of a key: `model.norm.weight[:]` whole, `model….experts.down_proj[3]` in part.

    One that is exchanged at the moment is found as it stands there.
    """
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    path, _, last = match[1].rpartition(".")
    expert = None if match[2] == ":" else int(match[2])
    try:
        module = model.get_submodule(path)
    except AttributeError:
        return None
    value = _parameters_of(module).get(last)
    value = module.__dict__.get(last) if value is None else value
    if not isinstance(value, Tensor) or not value.is_floating_point():  # packed: no numbers
        return None
    if value.ndim not in ((1, 2) if expert is None else (3,)):
        return None
    if expert is not None and expert >= value.shape[0]:
        return None
    return Place(module, last, expert)


class Exchanged:
    """Parameters that are exchanged for changed copies while something is held."""

    def __init__(self) -> None:
        self._kept: list[tuple[nn.Module, dict[str, nn.Parameter | None]]] = []
        self._count = 0

    @property
    def count(self) -> int:
        """How many keys landed in parameters."""
        return self._count

    def original(self, module: nn.Module, name: str) -> Tensor | None:
        """The parameter that a copy stands in for at the moment; None where none does."""
        for kept, before in self._kept:
            if kept is module and before.get(name) is not None:
                return before[name]
        return None

    def put(self, changes: Mapping[str, tuple[Place, Content]]) -> None:
        """Let every module find its changed copy. Memory: one copy of each changed parameter.

        Raises UnsupportedVariant for contents that tell rows apart, naming the parameter.
        """
        self._count = len(changes)
        copies: dict[tuple[int, str], tuple[nn.Module, Tensor]] = {}
        for key, (place, content) in changes.items():
            delta = _dense(key, content)
            spot = (id(place.module), place.name)
            if spot not in copies:
                copies[spot] = (
                    place.module,
                    place.module.get_parameter(place.name).detach().clone(),
                )
            copy = copies[spot][1]
            part = copy if place.expert is None else copy[place.expert]
            delta = delta.mT if place.is_transposed else delta
            exact = part.to(torch.promote_types(part.dtype, torch.float32))
            part.copy_(exact + delta.reshape(part.shape))
        for (_, name), (module, copy) in copies.items():
            parameters = _parameters_of(module)
            self._kept.append((module, dict(parameters)))
            del parameters[name]
            module.__dict__[name] = copy

    def take_back(self) -> None:
        """The inverse of `put`: every parameter at its old place, in the old order."""
        for module, before in reversed(self._kept):
            parameters = _parameters_of(module)
            for name in before.keys() - parameters.keys():
                del module.__dict__[name]
            parameters.clear()
            parameters.update(before)
        self._kept.clear()
        self._count = 0


def _parameters_of(module: nn.Module) -> dict[str, nn.Parameter | None]:
    """The module's own table: the only place where a parameter can leave and come back in order."""
    return module._parameters  # pyright: ignore[reportPrivateUsage]


def _dense(key: str, content: Content) -> Float[Tensor, "out in"]:
    if content.rows is not None:
        raise UnsupportedVariant(
            text("{key} cannot differ from row to row of one batch", key=key),
            expected=text("one chain for all rows"),
            found=text("{rows} rows with chains of their own", rows=content.rows),
            hint=text("run these rows one after another"),
        )
    parts = [term.up.mT @ term.down * _number(term.gate) for term in content.terms]
    return torch.stack(parts).sum(0)


def _number(gate: Tensor | float | None) -> float:
    assert not isinstance(gate, Tensor)
    return 1.0 if gate is None else gate
