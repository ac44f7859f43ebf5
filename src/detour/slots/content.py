"""What a slot holds: a sum of low-rank terms, and the constructors of the usual kinds.

A term adds `gate · (x @ downᵀ) @ up` to a layer's output; where a variant asks for it, the output
is scaled and shifted besides. Each factor is shared by all rows of a batch, given per row, or
banked (one per adapter, mixed by the gate); any of them may require gradients. `up` is kept as
(rank, out), transposed against an adapter's file, so that the training step forms hᵀ·dy without
transposing. This module knows adapters and tensors, but no layers, no model and no way to apply a
term: that is `arithmetic` and `slot`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detour.adapter.update import Update
from detour.errors import SlotError

Weighted = tuple[Update, float]
Device = torch.device | str | None


class Spread(Enum):
    """Who uses a factor: every row the same, each row its own, or a gated mix of a bank."""

    SHARED = "shared"
    PER_ROW = "per row"
    BANKED = "banked"


@dataclass(frozen=True, eq=False)
class Term:
    """One low-rank change: `gate · (x @ downᵀ) @ up`.

    down is (*lead, rank, in) and up (*lead, rank, out), where lead is () for SHARED, (rows,) for
    PER_ROW and (adapters,) for BANKED. The gate is (rows, adapters) where a factor is banked;
    otherwise None (1), a number, (rows,) or, per component of the rank, (rows, rank).
    Raises SlotError when the shapes or dtypes do not fit together.
    """

    down: Tensor
    up: Tensor
    spread_down: Spread = Spread.SHARED
    spread_up: Spread = Spread.SHARED
    gate: Tensor | float | None = None

    def __post_init__(self) -> None:
        for name, factor, spread in self.factors:
            ndim = 2 if spread is Spread.SHARED else 3
            if factor.ndim != ndim:
                raise SlotError(
                    f"the factor {name!r} ({spread.value}) has the wrong number of dimensions",
                    expected=f"{ndim} dimensions",
                    found=f"shape {tuple(factor.shape)}",
                )
        if self.down.shape[-2] != self.up.shape[-2]:
            raise SlotError(
                "the two factors of a term differ in rank",
                expected="down (..., rank, in) and up (..., rank, out)",
                found=f"down {tuple(self.down.shape)}, up {tuple(self.up.shape)}",
            )
        dtypes = {t.dtype for t in self.tensors}
        if len(dtypes) > 1 or not self.down.dtype.is_floating_point:
            raise SlotError(
                "the tensors of a term need one floating point dtype",
                found=", ".join(sorted(map(str, dtypes))),
            )
        self._check_gate()
        self._agree(Spread.PER_ROW, "rows")
        self._agree(Spread.BANKED, "adapters")

    def _check_gate(self) -> None:
        gate = self.gate
        if self.is_banked:
            fits = isinstance(gate, Tensor) and gate.ndim == 2
            expected = "a gate of (rows, adapters)"
        elif isinstance(gate, Tensor):
            fits = gate.ndim == 1 or (gate.ndim == 2 and gate.shape[1] == self.rank)
            expected = f"a gate of (rows,) or (rows, {self.rank})"
        else:
            return
        if not fits:
            found = f"shape {tuple(gate.shape)}" if isinstance(gate, Tensor) else repr(gate)
            raise SlotError("the gate does not fit its term", expected=expected, found=found)

    def _agree(self, spread: Spread, noun: str) -> None:
        """Every tensor that counts rows (or adapters) counts the same number of them."""
        counts = {f"{n} {tuple(t.shape)}": t.shape[0] for n, t, s in self.factors if s is spread}
        if isinstance(self.gate, Tensor) and (spread is Spread.PER_ROW or self.is_banked):
            axis = 0 if spread is Spread.PER_ROW else 1
            counts[f"gate {tuple(self.gate.shape)}"] = self.gate.shape[axis]
        if len(set(counts.values())) > 1:
            raise SlotError(f"a term's tensors differ in their {noun}", found=", ".join(counts))

    @property
    def factors(self) -> tuple[tuple[str, Tensor, Spread], ...]:
        """Down and up, each with its name and spread."""
        return (("down", self.down, self.spread_down), ("up", self.up, self.spread_up))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Down, up, and the gate where it is a tensor."""
        gate = (self.gate,) if isinstance(self.gate, Tensor) else ()
        return (self.down, self.up, *gate)

    @property
    def rank(self) -> int:
        """The rank of one adapter's, or one row's, factors."""
        return self.down.shape[-2]

    @cached_property
    def is_banked(self) -> bool:
        """Whether the gate mixes a bank, in either factor."""
        return Spread.BANKED in (self.spread_down, self.spread_up)

    @cached_property
    def is_shared(self) -> bool:
        """Both factors are the same for all rows (the gate may still differ)."""
        return self.spread_down is self.spread_up is Spread.SHARED

    @property
    def rows(self) -> int | None:
        """How many rows the term tells apart; None when it treats all rows alike."""
        if isinstance(self.gate, Tensor):
            return self.gate.shape[0]
        for _, factor, spread in self.factors:
            if spread is Spread.PER_ROW:
                return factor.shape[0]
        return None

    def kept(self, places: Int[Tensor, " kept"], gates: dict[int, Tensor]) -> Term:
        """The same for some of its rows, in this order."""
        gate = self.gate
        if isinstance(gate, Tensor):
            if id(gate) not in gates:
                gates[id(gate)] = gate[places]
            gate = gates[id(gate)]
        down, up = (f[places] if s is Spread.PER_ROW else f for _, f, s in self.factors)
        return Term(down, up, self.spread_down, self.spread_up, gate)

    @property
    def learns(self) -> bool:
        """Whether any tensor requires a gradient."""
        return any(t.requires_grad for t in self.tensors)


@dataclass(frozen=True, eq=False)
class Content:
    """What one layer's slot holds: the sum of its terms. No part at all is the base itself.

    `gain` and `shift`, (out) or per row (rows, out), make y + gain ⊙ y + shift of the layer's own
    output y before the terms are added; both are frozen. `lookup` says that the layer is an
    embedding. Raises SlotError when parts differ in features, device or number of rows.
    """

    terms: tuple[Term, ...] = ()
    gain: Tensor | None = None
    shift: Tensor | None = None
    lookup: bool = False

    def __post_init__(self) -> None:
        self._agree("features", lambda t: (t.up.shape[-1], t.down.shape[-1]))
        self._agree("device", lambda t: {tensor.device for tensor in t.tensors})
        self._agree("number of rows", lambda t: t.rows)
        out = {
            t.shape[-1]
            for t in (self.gain, self.shift, *(t.up for t in self.terms))
            if t is not None
        }
        rows = {*(t.rows for t in self.terms), *(len(t) for t in self._by_row)} - {None}
        if len(out) > 1 or len(rows) > 1:
            raise SlotError(
                "gain or shift do not fit the terms of a content",
                found=f"outputs {sorted(out)}, rows {sorted(map(str, rows))}",
            )

    @property
    def _by_row(self) -> list[Tensor]:
        return [t for t in (self.gain, self.shift) if t is not None and t.ndim == 2]

    def _agree(self, noun: str, of: Callable[[Term], object]) -> None:
        seen = [value for value in map(of, self.terms) if value is not None]
        if any(value != seen[0] for value in seen):
            raise SlotError(
                f"the terms of one content differ in their {noun}",
                found=", ".join(map(str, seen)),
            )

    def __add__(self, other: Content) -> Content:
        """The sum: a trainable content in the company of frozen ones, for example."""
        return Content(
            self.terms + other.terms,
            _sum(self.gain, other.gain),
            _sum(self.shift, other.shift),
            self.lookup or other.lookup,
        )

    @property
    def is_empty(self) -> bool:
        """Whether nothing acts: the base itself."""
        return not self.terms and self.gain is None and self.shift is None

    @property
    def out_features(self) -> int | None:
        """Outputs of the layer; None for an empty content."""
        parts = [*(t.up for t in self.terms[:1]), self.gain, self.shift]
        return next((part.shape[-1] for part in parts if part is not None), None)

    @property
    def device(self) -> torch.device | None:
        """Where it lies; None for an empty content."""
        parts = [*(t.up for t in self.terms[:1]), self.gain, self.shift]
        return next((part.device for part in parts if part is not None), None)

    @property
    def shape(self) -> tuple[int, int] | None:
        """(out, in) as of the layer's weight; None when there is no term."""
        if not self.terms:
            return None
        first = self.terms[0]
        return first.up.shape[-1], first.down.shape[-1]

    def kept(self, places: Int[Tensor, " kept"], gates: dict[int, Tensor]) -> Content:
        """The same for some of its rows, in this order; what all rows share stays shared.

        `gates` carries gates from layer to layer, so that layers of one gate go on sharing it.
        """
        if self.rows is None:
            return self

        def rows_of(part: Tensor | None) -> Tensor | None:
            return part if part is None or part.ndim == 1 else part[places]

        terms = tuple(term.kept(places, gates) for term in self.terms)
        return Content(terms, rows_of(self.gain), rows_of(self.shift), self.lookup)

    @cached_property
    def own_rows(self) -> int | None:
        """How many rows it has where each has factors of its own, and nothing else acts."""
        alone = len(self.terms) == 1 and self.gain is None and self.shift is None
        if not alone or self.terms[0].gate is not None:
            return None
        down, up = self.terms[0].spread_down, self.terms[0].spread_up
        return self.rows if down is up is Spread.PER_ROW else None

    @cached_property
    def rows(self) -> int | None:
        """How many rows it tells apart; None when it needs no row index."""
        counts = (*(term.rows for term in self.terms), *(len(part) for part in self._by_row))
        return next((count for count in counts if count is not None), None)


def _sum(one: Tensor | None, other: Tensor | None) -> Tensor | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def shared(
    updates: Iterable[Weighted],
    dtype: torch.dtype = torch.float32,
    device: Device = None,
    layer: str = "",
) -> Content:
    """One chain for all rows: the weighted updates side by side along the rank, exact.

    An update of weight 0 is left out, so that a chain of weight 0 is the base bit by bit. Raises
    SlotError for updates of different shapes, naming `layer`.
    """
    kept = [(u, w) for u, w in merged(updates) if w != 0]
    check_shapes([u for u, _ in kept], layer)
    if not kept:
        return Content()
    factored = [(u, w) for u, w in kept if u.rank > 0]
    terms = (Term(*side_by_side(factored, dtype, device)),) if factored else ()
    weights = [w for _, w in kept]
    gain = of_outputs([u.row_scale for u, _ in kept], weights, device)
    shift = of_outputs([u.bias_delta for u, _ in kept], weights, device)
    return Content(terms, gain, shift, kept[0][0].lookup)


def of_outputs(
    parts: Sequence[Tensor | None], weights: Sequence[float] | Tensor, device: Device
) -> Tensor | None:
    """Σ weight · part over what is there, in fp32; weights of (rows, parts) give (rows, out)."""
    there = [place for place, part in enumerate(parts) if part is not None]
    if not there:
        return None
    table = torch.stack([parts[place].to(device, torch.float32) for place in there])  # type: ignore[union-attr]
    given = torch.as_tensor(weights, dtype=torch.float32, device=table.device)
    return given[..., there] @ table


def bank(
    updates: Sequence[Update | None], gate: Float[Tensor, "rows adapters"], layer: str = ""
) -> Content:
    """A bank of adapters and each row's weights over them; None has nothing on this layer.

    Adapters of one rank form one term, so that no factor is padded. Factors take the gate's dtype
    and device. Raises as `shared`, and SlotError for a gate of another width.
    """
    present = [u for u in updates if u is not None]
    check_shapes(present, layer)
    if gate.ndim != 2 or gate.shape[1] != len(updates):
        raise SlotError(
            "the gate does not fit the bank",
            expected=f"(rows, {len(updates)})",
            found=f"shape {tuple(gate.shape)}",
        )
    columns: dict[int, list[int]] = {}
    for column, update in enumerate(updates):
        if update is not None and update.rank > 0:
            columns.setdefault(update.rank, []).append(column)
    return Content(
        tuple(_bank_term(updates, gate, those) for those in columns.values()),
        of_outputs([u and u.row_scale for u in updates], gate, gate.device),
        of_outputs([u and u.bias_delta for u in updates], gate, gate.device),
        any(u.lookup for u in present),
    )


def _bank_term(updates: Sequence[Update | None], gate: Tensor, columns: list[int]) -> Term:
    members = [u for u in (updates[c] for c in columns) if u is not None]
    down = torch.stack([down_of(u, gate.dtype, gate.device) for u in members])
    up = torch.stack([up_of(u, 1.0, gate.dtype, gate.device) for u in members])
    own = gate if len(columns) == gate.shape[1] else gate[:, columns]
    return Term(down, up, Spread.BANKED, Spread.BANKED, own)


def trainable(
    down: Float[Tensor, "rank in"], up: Float[Tensor, "rank out"], scale: float = 1.0
) -> Content:
    """Two factors being trained, used by all rows."""
    return Content((Term(down, up, gate=float(scale)),))


def per_row(
    down: Float[Tensor, "rows rank in"], up: Float[Tensor, "rows rank out"], scale: float = 1.0
) -> Content:
    """Each row its own factors, as a hypernetwork generates them."""
    return Content((Term(down, up, Spread.PER_ROW, Spread.PER_ROW, float(scale)),))


def pissa(
    down: Float[Tensor, "rank in"],
    up: Float[Tensor, "rank out"],
    scale: float = 1.0,
    start: tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]] | None = None,
) -> Content:
    """Trainable factors minus their frozen start (PiSSA, arXiv 2404.02948), so that step 0 is the
    base and the base's weight stays untouched. Without `start`, the factors as they are now.
    """
    start_down, start_up = start or (down.detach().clone(), up.detach().clone())
    frozen = Term(start_down.detach(), start_up.detach(), gate=-float(scale))
    return trainable(down, up, scale) + Content((frozen,))


def merged(updates: Iterable[Weighted]) -> list[Weighted]:
    """The same update twice is one update of the summed weight, so `a - a` is exactly nothing."""
    sums: dict[int, Weighted] = {}
    for update, weight in updates:
        sums[id(update)] = (update, sums.get(id(update), (update, 0.0))[1] + weight)
    return list(sums.values())


def check_shapes(updates: Sequence[Update], layer: str) -> None:
    """Raise SlotError for updates of different shapes, naming the layer."""
    place = f"layer {layer!r}" if layer else "one layer"
    shapes = dict.fromkeys((u.out_features, u.in_features) for u in updates)
    if len(shapes) > 1:
        raise SlotError(
            f"the updates of {place} have different shapes",
            expected="one (out, in)",
            found=", ".join(map(str, shapes)),
            hint="chain adapters that were made for the same base",
        )


def down_of(update: Update, dtype: torch.dtype, device: Device) -> Float[Tensor, "rank in"]:
    """The update's `down` as slots want it; a convolution's kernel laid flat."""
    return update.down.flatten(1).to(device, dtype)


def up_of(
    update: Update, weight: float, dtype: torch.dtype, device: Device
) -> Float[Tensor, "rank out"]:
    """Scale and weight are folded in before rounding to dtype; the update's own memory where there
    is nothing to fold in, round or turn.
    """
    factor = update.scale * weight
    up = update.up.to(device, torch.promote_types(update.up.dtype, torch.float32)).mT
    if factor != 1:
        up = torch.mul(up, factor, out=torch.empty(up.shape, dtype=up.dtype, device=up.device))
    return up.to(dtype).contiguous()


def side_by_side(
    updates: Sequence[Weighted], dtype: torch.dtype, device: Device
) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "rank out"]]:
    """The factors of weighted updates along the rank; one alone is not copied to be joined.

    Joined downs lie with `in` as the outer dimension, as decoding reads them fastest (`prepare`).
    """
    downs = [down_of(u, dtype, device) for u, _ in updates]
    ups = [up_of(u, w, dtype, device) for u, w in updates]
    if len(updates) == 1:
        return downs[0], ups[0]
    return torch.cat([down.mT for down in downs], dim=1).mT, torch.cat(ups)
