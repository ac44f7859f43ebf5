"""A chain: weighted adapters that act together, `0.8 * formal + pun - pirate`.

Sums and products keep the parts apart; `flatten` makes one adapter of them exactly, `compress`
the best one of a given rank. Weight 0 is the base and order does not matter. Knows adapters and
names; knows no model.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain_file import expanded
from detour.adapter.chain_text import (
    LayerWeight,
    TermText,
    check_layers,
    check_weight,
    parse,
    render,
)
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.update import Update
from detour.errors import AdapterWeightsError, ChainError, MixedBases
from detour.language.catalogue import text

if TYPE_CHECKING:
    from detour.adapter.library import Library

__all__ = ["Chain", "LayerWeight", "Term", "layer_index"]


def layer_index(layer: str) -> int | None:
    """The first whole number in a dotted layer name: 3 for `model.layers.3.mlp.up_proj`."""
    return next((int(part) for part in layer.split(".") if part.isdecimal()), None)


@dataclass(frozen=True)
class Term:
    """One adapter with its weight.

    Attributes:
        adapter: the adapter.
        weight: how strongly it acts; 0 is not at all, below 0 is the opposite.
        layers: ranges of decoder layers where another weight takes the place of `weight`.

    Raises:
        ChainError: a weight is not finite or two ranges overlap.
    """

    adapter: Adapter
    weight: float = 1.0
    layers: tuple[LayerWeight, ...] = ()

    def __post_init__(self) -> None:
        check_weight(self.weight)
        check_layers(self.layers)

    def weight_at(self, layer: str) -> float:
        """The weight in the layer of this full name; the term's own where it has no number."""
        index = layer_index(layer)
        if index is None:
            return self.weight
        return next((item.weight for item in self.layers if index in item), self.weight)

    def __mul__(self, weight: float) -> Term:
        layers = tuple(
            LayerWeight(item.first, item.last, item.weight * weight) for item in self.layers
        )
        return Term(self.adapter, self.weight * weight, layers)


@dataclass(frozen=True)
class Chain:
    """Terms that act together; no terms at all is the base.

    Raises:
        MixedBases: two adapters were made for different bases.
    """

    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        known = [term.adapter for term in self.terms if term.adapter.base is not None]
        for adapter in known[1:]:
            _check_same_base(known[0], adapter)

    @staticmethod
    def of(*values: Adapter | Chain | None) -> Chain:
        """The sum of adapters and chains; None adds nothing."""
        parts = [
            (Term(value),) if isinstance(value, Adapter) else value.terms
            for value in values
            if value is not None
        ]
        return Chain(tuple(term for part in parts for term in part))

    @staticmethod
    def parse(text: str, library: Library | None = None) -> Chain:
        """Read `NAME[@REVISION][:WEIGHT][{layers.0-2=0.3}]`, joined by `+`.

        A name that ends in .yaml is a file that holds a chain, see `chain_file`.

        Args:
            text: the chain; see `chain_text`.
            library: where names are looked up; `Library.default()` unless given.

        Raises:
            ChainError: the text makes no sense.
            AdapterError: an adapter is not there or cannot be read.
        """
        from detour.adapter.library import Library

        shelf = library or Library.default()
        written = parse(text)
        if not shelf.names_only:
            written = tuple(expanded(written))
        # one object per name: who compares adapters sees that `a+b+a` holds two, not three
        loaded = {
            (term.name, term.revision): shelf.load(term.name, term.revision) for term in written
        }
        # called as written, so that the chain's text reads the same again
        named = {
            (name, revision): adapter.with_(name=f"{name}@{revision}" if revision else name)
            for (name, revision), adapter in loaded.items()
        }
        return Chain(tuple(Term(named[t.name, t.revision], t.weight, t.layers) for t in written))

    @property
    def text(self) -> str:
        """The text form; `parse` gives the chain back where the library knows the names."""
        return render(
            TermText(term.adapter.name, None, term.weight, term.layers) for term in self.terms
        )

    @property
    def base(self) -> Fingerprint | None:
        """The base that the adapters were made for, where one of them knows it."""
        return next((term.adapter.base for term in self.terms if term.adapter.base), None)

    def updates(self) -> dict[str, list[tuple[Update, float]]]:
        """Every layer's updates with their weights; what has weight 0 is left out."""
        found: dict[str, list[tuple[Update, float]]] = {}
        for term in self.terms:
            for layer, update in term.adapter.updates.items():
                weight = term.weight_at(layer)
                if weight != 0:
                    found.setdefault(layer, []).append((update, weight))
        return found

    def flatten(self, name: str = "") -> Adapter:
        """One adapter that does exactly what the chain does, of rank Σ rank.

        Raises:
            ChainError: an adapter holds whole values and is not bound to its base yet.
            AdapterWeightsError: the adapters disagree about a layer's shape.
        """
        self.check_bound()
        return self._adapter(
            {layer: _sum(layer, parts) for layer, parts in self.updates().items()}, name
        )

    def compress(self, rank: int, name: str = "") -> tuple[Adapter, float]:
        """The nearest adapter of at most `rank` in every layer, and its total relative error.

        Returns:
            The adapter and ε = √(Σ ‖ΔW − ΔW'‖² / Σ ‖ΔW‖²) over all layers.

        Raises:
            ConfigError: `rank` is below 1.
            ChainError, AdapterWeightsError: as `flatten`.
        """
        self.check_bound()
        smaller: dict[str, Update] = {}
        lost, total = 0.0, 0.0
        for layer, parts in self.updates().items():
            whole = _sum(layer, parts)
            smaller[layer], error = whole.compressed(rank)
            energy = whole.norm() ** 2
            total += energy
            lost += error**2 * energy
        return self._adapter(smaller, name), math.sqrt(lost / total) if total > 0 else 0.0

    def check_bound(self) -> None:
        """Raises ChainError: an adapter holds whole values and is not bound to its base yet."""
        for term in self.terms:
            term.adapter.check_bound(ChainError)

    def _adapter(self, updates: Mapping[str, Update], name: str) -> Adapter:
        fictional = any(term.adapter.card.fictional for term in self.terms)
        card = Card(description=f"The chain {self.text} as one adapter.", fictional=fictional)
        return Adapter(updates, name or self.text, self.base, card)

    def digest(self) -> str:
        """sha256 over the adapters' digests and weights, whatever their order and names."""
        terms = sorted(
            json.dumps(
                [
                    term.adapter.digest(),
                    term.weight + 0.0,  # -0.0 is 0.0
                    sorted((item.first, item.last, item.weight + 0.0) for item in term.layers),
                ]
            )
            for term in self.terms
        )
        return hashlib.sha256("\n".join(terms).encode()).hexdigest()

    def __add__(self, other: Adapter | Chain) -> Chain:
        return Chain(self.terms + Chain.of(other).terms)

    def __mul__(self, weight: float) -> Chain:
        return Chain(tuple(term * weight for term in self.terms))

    __rmul__ = __mul__

    def __neg__(self) -> Chain:
        return self * -1.0

    def __sub__(self, other: Adapter | Chain) -> Chain:
        return self + -Chain.of(other)


def _sum(layer: str, parts: list[tuple[Update, float]]) -> Update:
    try:
        return Update.sum(parts)
    except AdapterWeightsError as cause:
        raise cause.at(layer) from cause


def _check_same_base(first: Adapter, other: Adapter) -> None:
    if first.base and other.base and not first.base.same_weights(other.base):
        raise MixedBases(
            text("two adapters of one chain were made for different bases"),
            expected=text("{adapter} made for {base}", adapter=other.name, base=first.base.short),
            found=text("{adapter} made for {base}", adapter=other.name, base=other.base.short),
            hint=text("train both on the same base"),
        )
