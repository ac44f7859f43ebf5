"""The difference of two models as an adapter: what a full fine-tuning did, at a rank.

Every linear layer's W' − W is cut to its largest singular directions (Eckart-Young); biases of such
layers are kept as they are. What else differs (norms, embeddings, other layers) is left out and
told. Knows bases and adapters; trains nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from detour.adapter.adapter import Adapter
from detour.adapter.merge.chain import nearest
from detour.adapter.update import Update
from detour.errors import BaseError, ConfigError
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.quantized import method_of
from detour.slots.kinds import Kind

SAME = 1e-7  # relative change below which a weight counts as the same


@dataclass(frozen=True)
class Extracted:
    """An adapter made of a difference.

    Attributes:
        adapter: for the first model.
        error: √(Σ ‖ΔW − ΔW'‖² / Σ ‖ΔW‖²) over the adapted layers' weights.
        left_out: other parameters that differ, with their relative change ‖W' − W‖ / ‖W‖.
    """

    adapter: Adapter
    error: float
    left_out: Mapping[str, float]


@torch.no_grad()
def extract(
    base: Base,
    tuned: Base,
    rank: int,
    targets: str | Sequence[str] = "all-linear",
    name: str = "extracted",
) -> Extracted:
    """What must be added to `base` to come near to `tuned`.

    Raises:
        BaseError: packed weights, or models of different shapes.
        ConfigError: a rank below 1, or two models that do not differ in these layers.
        SlotError: a target that names no layer.
    """
    if rank < 1:
        raise ConfigError(
            text("{name} is out of range", name="rank"),
            expected=text("a whole number of at least {lowest}", lowest=1), found=str(rank),
        )  # fmt: skip
    before, after = (_weights(one) for one in (base, tuned))
    _check_alike(before, after)
    updates: dict[str, Update] = {}
    seen: set[str] = set()
    lost = total = 0.0
    linear = [n for n in base.slots.named(targets) if base.slots.kinds[n] is Kind.LINEAR]
    for layer in linear:
        seen |= {f"{layer}.weight", f"{layer}.bias"}
        change = _change(base, layer, before, after)
        bias = _bias_change(layer, before, after)
        if change is None and bias is None:
            continue
        if change is None:
            change = torch.zeros(base.slots.shapes[layer])
        down, up = nearest(change, min(rank, *change.shape))
        updates[layer] = Update(down=down, up=up, bias_delta=bias)
        lost += float((change - up @ down).square().sum())
        total += float(change.square().sum())
    if not updates:
        raise ConfigError(
            text("the two models do not differ in these layers"),
            expected=text("a model that was fine-tuned from {base}", base=base.name),
            hint=text("other --targets"),
        )
    left_out = {n: by for n in before if n not in seen and (by := _moved(before[n], after[n]))}
    adapter = Adapter(updates, name, base.fingerprint)
    return Extracted(adapter, math.sqrt(lost / total) if total > 0 else 0.0, left_out)


def _weights(base: Base) -> dict[str, Tensor]:
    if method_of(base.model.config):
        raise BaseError(
            text("{name} is packed: differences are taken of plain weights", name=base.name),
            found=method_of(base.model.config),
            hint=text("leave --quantize away"),
        )
    return {name: parameter.detach() for name, parameter in base.model.named_parameters()}


def _check_alike(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
    shapes = [{name: tuple(t.shape) for name, t in one.items()} for one in (before, after)]
    if shapes[0] == shapes[1]:
        return
    names = sorted({name for name, _ in shapes[0].items() ^ shapes[1].items()})
    raise BaseError(
        text("the two models do not have the same parameters"),
        expected=text("a model that was fine-tuned from the other, with the same shapes"),
        found=text("{count} that differ, such as {name}", count=len(names), name=names[0]),
    )


def _change(
    base: Base, layer: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Float[Tensor, "out in"] | None:
    """W' − W as (out, in), in fp32; None where nothing changed."""
    old, new = (_exact(one[f"{layer}.weight"]) for one in (before, after))
    if not _moved(old, new):
        return None
    difference = new - old
    return difference.mT if isinstance(base.slots.module(layer), Conv1D) else difference


def _bias_change(
    layer: str, before: Mapping[str, Tensor], after: Mapping[str, Tensor]
) -> Float[Tensor, " out"] | None:
    name = f"{layer}.bias"
    if name not in before or not _moved(before[name], after[name]):
        return None
    return _exact(after[name]) - _exact(before[name])


def _moved(old: Tensor, new: Tensor) -> float:
    """‖new − old‖ / ‖old‖; 0 where that is rounding."""
    difference = float((_exact(new) - _exact(old)).norm())
    size = float(_exact(old).norm())
    by = difference / size if size > 0 else difference
    return by if by > SAME else 0.0


def _exact(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)).cpu()
