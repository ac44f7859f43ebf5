"""An adapter: a frozen mapping from layer names to updates, with what is known about it.

A value: every operation returns a new one, and arithmetic on adapters gives chains. Knows names
and tensors; knows no model, and files only through `peft_format`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint, feed_tensor
from detour.adapter.unbound import Unbound
from detour.adapter.update import Update
from detour.errors import DetourError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.chain import Chain


@dataclass(frozen=True, eq=False)
class Adapter:
    """A change of a model.

    Attributes:
        updates: layer name, as in `model.named_modules()`, to that layer's update; read-only. A
            parameter that no layer's slot covers is named `PARAMETER[:]`, an expert of a stack
            `PARAMETER[number]`.
        name: what chains and people call it.
        base: the model it was made for; None where that is not known (adapters of other tools).
        card: what it is for, where it came from.
        test_rows: rows of chat messages that show whether it still works.
        unbound: whole values that stand in for the base's own; `Base.bind` makes updates of them.
    """

    updates: Mapping[str, Update]
    name: str
    base: Fingerprint | None = None
    card: Card = field(default_factory=Card)
    test_rows: tuple[dict[str, Any], ...] = ()
    unbound: Unbound = field(default_factory=Unbound)

    def __post_init__(self) -> None:
        object.__setattr__(self, "updates", MappingProxyType(dict(self.updates)))

    def __reduce__(self) -> tuple[type[Adapter], tuple[object, ...]]:
        parts = (dict(self.updates), self.name, self.base, self.card, self.test_rows, self.unbound)
        return Adapter, parts

    def __repr__(self) -> str:
        return f"Adapter({self.name!r}, rank {self.rank}, {len(self.updates)} layers)"

    @staticmethod
    def load(path: str | Path) -> Adapter:
        """Read a PEFT folder, or a flat file of `detour convert`.

        Raises AdapterError's kinds: see `peft_format.read_adapter` and `flat.read_flat`.
        """
        from detour.adapter.flat import SUFFIX, read_flat
        from detour.adapter.peft_format import read_adapter

        is_flat = str(path).endswith(SUFFIX) and Path(path).is_file()
        return read_flat(Path(path)) if is_flat else read_adapter(Path(path))

    def save(self, path: str | Path, beside: Mapping[str, bytes] | None = None) -> Path:
        """Write a PEFT folder, whole or not at all, with other files `beside` the adapter's own.

        Raises: see `peft_format.write_adapter`.
        """
        from detour.adapter.peft_format import write_adapter

        write_adapter(self, Path(path), beside or {})
        return Path(path)

    @property
    def rank(self) -> int:
        """The highest rank of any layer; 0 for an adapter without low-rank changes."""
        ranks = [update.rank for update in self.updates.values()]
        return max([*ranks, *(stack.rank for stack in self.unbound.stacks)], default=0)

    @property
    def parameters(self) -> int:
        """Numbers that the adapter holds."""
        own = sum(update.parameters for update in self.updates.values())
        return own + self.unbound.parameters

    def check_bound(self, error: type[DetourError]) -> None:
        """Raises `error` where it holds whole values, which only a base can make changes of."""
        if self.unbound:
            names = ", ".join(self.unbound.names[:3])
            raise error(
                text("{adapter} holds whole values and is not bound to a base", adapter=self.name),
                expected=text("changes"),
                found=text("whole values for {names}", names=names),
                hint=text("name their base with --base, or base.bind(adapter) in Python"),
            )

    def norm(self) -> float:
        """Frobenius norm of all low-rank changes together."""
        return math.sqrt(sum(update.norm() ** 2 for update in self.updates.values()))

    def digest(self) -> str:
        """sha256 over layer names and every value; equal before saving and after loading."""
        return self._digest

    @cached_property
    def _digest(self) -> str:
        hasher = hashlib.sha256()
        for layer in sorted(self.updates):
            update = self.updates[layer]
            feed_tensor(hasher, f"{layer}.down", update.down)
            feed_tensor(hasher, f"{layer}.up", update.up)
            # in fp32, the precision it acts in: files keep alpha = scale · rank, an ulp away
            scale = torch.tensor(update.scale + 0.0, dtype=torch.float32)  # -0.0 is 0.0
            feed_tensor(hasher, f"{layer}.scale", scale)
            if update.row_scale is not None:
                feed_tensor(hasher, f"{layer}.row_scale", update.row_scale)
            if update.bias_delta is not None:
                feed_tensor(hasher, f"{layer}.bias_delta", update.bias_delta)
        for name, tensor in self.unbound.named_tensors():
            feed_tensor(hasher, name, tensor)
        return hasher.hexdigest()

    def with_(
        self,
        *,
        name: str | None = None,
        base: Fingerprint | None = None,
        card: Card | None = None,
        test_rows: tuple[dict[str, Any], ...] | None = None,
    ) -> Adapter:
        """A copy with other fields; None keeps what was there."""
        return replace(
            self,
            name=self.name if name is None else name,
            base=self.base if base is None else base,
            card=self.card if card is None else card,
            test_rows=self.test_rows if test_rows is None else test_rows,
        )

    def __mul__(self, weight: float) -> Chain:
        return _chain(self) * weight

    __rmul__ = __mul__

    def __add__(self, other: Adapter | Chain) -> Chain:
        return _chain(self) + other

    def __sub__(self, other: Adapter | Chain) -> Chain:
        return _chain(self) - other

    def __neg__(self) -> Chain:
        return -_chain(self)


def _chain(adapter: Adapter) -> Chain:
    from detour.adapter.chain import Chain

    return Chain.of(adapter)
