"""How the adapters of a chain lie to each other, from their weights alone.

With ΔWᵢ = gᵢ Bᵢ Aᵢ of one layer (gᵢ the scale times the chain's weight) and its thin SVD Uᵢ Σᵢ Vᵢᵀ:

    inner product   ⟨ΔWᵢ, ΔWⱼ⟩ = Σ (ΣᵢΣⱼᵀ) ⊙ (UᵢᵀUⱼ) ⊙ (VᵢᵀVⱼ)
    cosine          ⟨ΔWᵢ, ΔWⱼ⟩ / ‖ΔWᵢ‖ ‖ΔWⱼ‖
    cancellation    max(0, −2 ⟨ΔWᵢ, ΔWⱼ⟩) / (‖ΔWᵢ‖² + ‖ΔWⱼ‖²): 1 where their sum is nothing
    dominance       ‖ΔWᵢ‖² / (‖ΔWᵢ‖² + ‖ΔWⱼ‖²)
    output overlap  e(i|j) = ‖UⱼᵀUᵢΣᵢ‖² / ‖Σᵢ‖²; above chance (e − c) / (1 − c) with c = rⱼ / out
    input overlap   the same of V, with c = rⱼ / in

all of it out of Gram matrices of the factors, so that nothing of out × in is ever formed: the cost
is O(R² (in + out)) a layer, R the sum of the ranks. Over all layers inner products and energies are
summed, and chance with the energies it is of. Row scales (DoRA) and biases are left out. Such
figures warn; whether adapters get in each other's way is to be measured. Knows chains; knows no
models.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.chain import Chain, Term, layer_index
from detour.adapter.update import Update, check_same_layer
from detour.errors import AdapterWeightsError

DIRECTION = 1e-6  # of the largest singular value, below which there is no direction


@dataclass(frozen=True)
class Energies:
    """What sums of layers need; each n × n of adapters, in fp64.

    Attributes:
        inner: ⟨ΔWᵢ, ΔWⱼ⟩; the squared norms stand on the diagonal.
        output: ‖UⱼᵀUᵢΣᵢ‖² in row i, column j, of layers where both act.
        input: the same of the inputs.
        output_chance: rⱼ / out · ‖ΔWᵢ‖².
        input_chance: rⱼ / in · ‖ΔWᵢ‖².
        shared: ‖ΔWᵢ‖² in layers where j acts too.
    """

    inner: Float[Tensor, "n n"]
    output: Float[Tensor, "n n"]
    input: Float[Tensor, "n n"]
    output_chance: Float[Tensor, "n n"]
    input_chance: Float[Tensor, "n n"]
    shared: Float[Tensor, "n n"]

    @staticmethod
    def sum(parts: Sequence[Energies]) -> Energies:
        """Of several layers; at least one."""
        return Energies(*(torch.stack([vars(part)[name] for part in parts]).sum(0)
                          for name in Energies.__dataclass_fields__))  # fmt: skip

    def figures(self, i: int, j: int) -> Figures:
        """Of two adapters."""
        mine, other = float(self.inner[i, i]), float(self.inner[j, j])
        inner = float(self.inner[i, j])
        both = mine + other
        return Figures(
            cosine=inner / math.sqrt(mine * other) if mine > 0 and other > 0 else 0.0,
            cancellation=max(0.0, -2 * inner / both) if both > 0 else 0.0,
            dominance=mine / both if both > 0 else 0.5,
            input_overlap=max(
                _above_chance(self.input, self.input_chance, self.shared, *at)
                for at in ((i, j), (j, i))
            ),
            output_overlap=max(
                _above_chance(self.output, self.output_chance, self.shared, *at)
                for at in ((i, j), (j, i))
            ),
        )


@dataclass(frozen=True)
class Figures:
    """Of two adapters, a and b, in one layer or in all.

    Attributes:
        cosine: of the two changes; −1 … 1.
        cancellation: what of their energy is gone in the sum; 0 … 1.
        dominance: a's share of their energy; 0 … 1.
        input_overlap: share of the energy of one that reads the other's inputs, above chance; of
            the two directions the larger.
        output_overlap: share of the energy of one that writes into the other's outputs.
    """

    cosine: float
    cancellation: float
    dominance: float
    input_overlap: float
    output_overlap: float


@dataclass(frozen=True)
class Geometry:
    """How the terms of a chain lie to each other.

    Attributes:
        chain: whose terms they are, in their order.
        layers: energies by full layer name.
    """

    chain: Chain
    layers: Mapping[str, Energies]

    @cached_property
    def whole(self) -> Energies:
        """Over all layers."""
        return _summed(self.layers.values(), len(self.chain.terms))

    @cached_property
    def by_depth(self) -> Mapping[int, Energies]:
        """Over the linear layers of every decoder layer that anything acts in, by its number."""
        inside: dict[int, list[Energies]] = {}
        for layer, energies in self.layers.items():
            depth = layer_index(layer)
            if depth is not None:
                inside.setdefault(depth, []).append(energies)
        return {depth: Energies.sum(inside[depth]) for depth in sorted(inside)}

    @property
    def shares(self) -> list[float]:
        """Each term's share of the energy of all: Σ is 1, or all are 0."""
        own = self.whole.inner.diagonal()
        total = float(own.sum())
        return [float(one) / total if total > 0 else 0.0 for one in own]


def geometry(chain: Chain) -> Geometry:
    """All energies of a chain's terms.

    Raises:
        AdapterWeightsError: two adapters disagree about a layer's shape; names it.
    """
    names = {layer for term in chain.terms for layer in term.adapter.updates}
    return Geometry(chain, {layer: _energies(layer, chain.terms) for layer in sorted(names)})


def _energies(layer: str, terms: Sequence[Term]) -> Energies:
    there = [(place, term.adapter.updates[layer], term.weight_at(layer))
             for place, term in enumerate(terms) if layer in term.adapter.updates]  # fmt: skip
    acting = [(place, update, weight) for place, update, weight in there if weight != 0]
    try:
        if there:
            check_same_layer([(update, 1.0) for _, update, _ in there])
    except AdapterWeightsError as cause:
        raise cause.at(layer) from cause
    count = len(terms)
    if not acting:
        return Energies(*(torch.zeros(count, count, dtype=torch.float64) for _ in range(6)))
    spans = _Spans.of([(update, weight) for _, update, weight in acting])
    update = acting[0][1]
    own = torch.zeros(len(acting), count, dtype=torch.float64)
    own[range(len(acting)), [place for place, _, _ in acting]] = 1.0
    to_terms = spans.owner @ own  # (directions, terms): which term a direction belongs to
    energy = spans.sizes.square()

    def between(values: Tensor) -> Tensor:
        return to_terms.T @ values @ to_terms

    inner = between(spans.outputs * spans.inputs * spans.sizes[:, None] * spans.sizes)
    present = (to_terms.sum(0) > 0).double()
    shared = (to_terms.T @ energy)[:, None] * present
    ranks = to_terms.sum(0)
    return Energies(
        inner,
        between(spans.outputs.square() * energy[:, None]),
        between(spans.inputs.square() * energy[:, None]),
        shared * ranks / update.out_features,
        shared * ranks / update.in_features,
        shared,
    )


@dataclass(frozen=True)
class _Spans:
    """The singular directions of some updates of one layer, side by side.

    Attributes:
        sizes: singular values, with scale and weight; negative where the weight is.
        outputs: UᵀU of all directions.
        inputs: VᵀV.
        owner: which update each direction is of, one-hot.
    """

    sizes: Float[Tensor, " directions"]
    outputs: Float[Tensor, "directions directions"]
    inputs: Float[Tensor, "directions directions"]
    owner: Float[Tensor, "directions updates"]

    @staticmethod
    def of(parts: Sequence[tuple[Update, float]]) -> _Spans:
        ups = torch.cat([update.up.double().T for update, _ in parts])  # (R, out)
        downs = torch.cat([update.down.double().flatten(1) for update, _ in parts])  # (R, in)
        gram_up, gram_down = ups @ ups.T, downs @ downs.T
        to_u: list[Tensor] = []
        to_v: list[Tensor] = []
        sizes: list[Tensor] = []
        start = 0
        for update, weight in parts:
            own = slice(start, start + update.rank)
            start += update.rank
            u, s, v = _singular(gram_up[own, own], gram_down[own, own])
            to_u.append(u)
            to_v.append(v)
            sizes.append(s * update.scale * weight)
        left, right = torch.block_diag(*to_u), torch.block_diag(*to_v)  # (R, directions)
        owner = torch.zeros(sum(map(len, sizes)), len(parts), dtype=torch.float64)
        place = 0
        for number, own_sizes in enumerate(sizes):
            owner[place : place + len(own_sizes), number] = 1.0
            place += len(own_sizes)
        return _Spans(torch.cat(sizes), left.T @ gram_up @ left, right.T @ gram_down @ right, owner)


def _singular(
    up: Float[Tensor, "r r"], down: Float[Tensor, "r r"]
) -> tuple[Float[Tensor, "r k"], Float[Tensor, " k"], Float[Tensor, "r k"]]:
    """From BᵀB and AAᵀ the transformations T, S with U = B T and V = Aᵀ S, and the singular values
    of B A; only directions above `DIRECTION` of the largest.
    """
    root_up, inverse_up = _roots(up)
    root_down, inverse_down = _roots(down)
    left, sizes, right = torch.linalg.svd(root_up @ root_down)
    kept = sizes > DIRECTION * sizes.max().clamp_min(torch.finfo(torch.float64).tiny)
    return inverse_up @ left[:, kept], sizes[kept], inverse_down @ right.mT[:, kept]


def _roots(gram: Float[Tensor, "r r"]) -> tuple[Float[Tensor, "r r"], Float[Tensor, "r r"]]:
    """The symmetric square root of a Gram matrix, and its pseudo-inverse."""
    values, vectors = torch.linalg.eigh(gram)
    values = values.clamp_min(0).sqrt()
    there = values > DIRECTION * values.max()
    inverse = torch.where(there, 1 / values.where(there, torch.ones_like(values)), 0.0)
    values = values.where(there, torch.zeros_like(values))
    return (vectors * values) @ vectors.T, (vectors * inverse) @ vectors.T


def _summed(parts: Iterable[Energies], count: int) -> Energies:
    found = list(parts)
    if not found:
        return Energies(*(torch.zeros(count, count, dtype=torch.float64) for _ in range(6)))
    return Energies.sum(found)


def _above_chance(energy: Tensor, chance: Tensor, shared: Tensor, i: int, j: int) -> float:
    """(e − c) / (1 − c) of i's energy in j's directions; 0 where they meet in no layer."""
    whole, by_chance = float(shared[i, j]), float(chance[i, j])
    if whole <= 0 or by_chance >= whole:
        return 0.0
    return (float(energy[i, j]) - by_chance) / (whole - by_chance)
