"""An adapter as one flat file that is mapped into memory rather than read: a cache.

One safetensors file with one tensor of bytes; its metadata say which stretch of it is which layer's
factor, and of what type. Values, names and scales are those of the adapter, so its digest is the
same; it is compared on request only, since that reads every byte. Only changes can be held that
way: whole values (DoRA's magnitudes, saved modules) have to be bound to their base first. Knows
files and adapters; knows no model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.peft_format import SUFFIX
from detour.adapter.peft_tensors import LONGEST_NAME
from detour.adapter.update import Update
from detour.adapter.weights_file import read_header
from detour.errors import (
    AdapterFormatError,
    AdapterWeightsError,
    ConfigError,
    UnsupportedVariant,
)
from detour.files import write_bytes_atomically
from detour.language.catalogue import text

_FORMAT = 2
_KEY = "detour.flat"
_PARTS = ("down", "up", "row_scale", "bias_delta")
_STEP = 8  # bytes; every tensor begins at a multiple
_TYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
}  # fmt: skip


def write_flat(adapter: Adapter, path: Path) -> None:
    """Write the file, whole or not at all.

    Raises:
        UnsupportedVariant: the adapter holds whole values that are not bound to a base.
        AdapterFormatError: it changes nothing.
        StorageError: the disk is full or read-only.
    """
    adapter.check_bound(UnsupportedVariant)
    if not adapter.updates:
        raise AdapterFormatError(
            text("the adapter {adapter} changes nothing and cannot be saved", adapter=adapter.name),
            expected=text("at least one layer"),
            found=text("none"),
        )
    about = {
        "format": _FORMAT,
        "name": adapter.name,
        "base": adapter.base.to_json() if adapter.base else None,
        "card": adapter.card.to_readme(),
        "test_rows": list(adapter.test_rows),
        "digest": adapter.digest(),
        "layers": {name: _described(update) for name, update in adapter.updates.items()},
    }
    values = torch.cat([_bytes_of(piece) for _, piece in _pieces(adapter)])
    told = json.dumps(about, ensure_ascii=False)
    write_bytes_atomically(path, save_tensors({"values": values}, metadata={_KEY: told}))


def read_flat(path: Path, verify: bool = False) -> Adapter:
    """The adapter; its tensors are views of the mapped file, which must not be changed in place.

    `verify` compares the digest too.

    Raises:
        AdapterFormatError: not such a file.
        AdapterWeightsError: damaged.
    """
    read_header(path)
    try:
        with safe_open(path, framework="pt") as file:
            about = _about(path, dict(file.metadata() or {}))
            values = file.get_tensor("values")
            if values.ndim != 1 or values.dtype != torch.uint8:
                raise _no_flat_file(path, f"{values.dtype} {tuple(values.shape)}")
    except (OSError, SafetensorError) as cause:
        raise AdapterWeightsError(
            text("{path} is damaged", path=path),
            expected=text("a complete safetensors file whose header tells the truth"),
            found=str(cause)[:200],
            hint=text("make it again with detour convert"),
        ) from cause
    try:
        updates = dict(_updates(about["layers"], values))
        base = about["base"] and Fingerprint.from_json(about["base"])
        card = Card.from_readme(about["card"])
        rows = tuple(about["test_rows"])
        if not all(isinstance(row, dict) for row in rows):
            raise TypeError(f"test_rows {rows[:1]!r}")
        adapter = Adapter(updates, path.name.removesuffix(SUFFIX), base or None, card, rows)
        stated = about["digest"]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as cause:
        raise _no_flat_file(path, f"{type(cause).__name__}: {cause}") from cause
    if verify and stated != adapter.digest():
        raise AdapterWeightsError(
            text("{path} is damaged", path=path),
            expected=f"digest {stated}",
            found=f"digest {adapter.digest()}",
            hint=text("make it again with detour convert"),
        )
    return adapter


def _about(path: Path, metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        about = json.loads(metadata[_KEY])
        if about["format"] != _FORMAT:
            raise ValueError(f"format {about['format']!r}")
    except (KeyError, TypeError, ValueError, RecursionError) as cause:
        raise _no_flat_file(path, f"{type(cause).__name__}: {cause}") from cause
    return about


def _no_flat_file(path: Path, found: str) -> AdapterFormatError:
    return AdapterFormatError(
        text("{path} is not a flat adapter", path=path),
        expected=text("a file that detour convert made, format {number}", number=_FORMAT),
        found=found[:200],
        hint=text("make it again with detour convert"),
    )


def _pieces(adapter: Adapter) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in the order of the file, laid as slots want it: a matrix down as (in, rank),
    up as (rank, out).
    """
    for name, update in adapter.updates.items():
        for part in _PARTS:
            tensor: Tensor | None = getattr(update, part)
            if tensor is not None:
                yield f"{name}.{part}", tensor.mT if tensor.ndim == 2 else tensor


def _bytes_of(tensor: Tensor) -> Tensor:
    """Its bytes, filled up so that the next tensor begins where any type may."""
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return torch.nn.functional.pad(flat, (0, -flat.numel() % _STEP))


def _described(update: Update) -> dict[str, Any]:
    parts = {part: getattr(update, part) for part in _PARTS}
    return {
        "down": list(update.down.shape),
        "out": update.out_features,
        "scale": update.scale,
        "lookup": update.lookup,
        "types": {part: _names_of_types()[t.dtype] for part, t in parts.items() if t is not None},
    }


def _names_of_types() -> dict[torch.dtype, str]:
    return {dtype: name for name, dtype in _TYPES.items()}


def _updates(layers: Mapping[str, Any], values: Tensor) -> Iterator[tuple[str, Update]]:
    begin = 0

    def take(kind: str, *shape: int) -> Tensor:
        nonlocal begin
        size = math.prod(shape) * _TYPES[kind].itemsize
        if min(shape) < 0 or begin + size > values.numel():
            raise ValueError(f"{shape} at byte {begin} of {values.numel()}")
        found = values[begin : begin + size].view(_TYPES[kind]).view(shape)
        begin += size + -size % _STEP
        return found

    for name, about in layers.items():
        if len(name) > LONGEST_NAME:
            raise ValueError(name[:LONGEST_NAME])
        types, out = about["types"], about["out"]
        shape = about["down"]
        down = take(types["down"], *(shape[::-1] if len(shape) == 2 else shape))
        down = down.mT if len(shape) == 2 else down
        up = take(types["up"], len(down), out).mT
        extra = {part: take(types[part], out) for part in _PARTS[2:] if part in types}
        yield name, Update(down, up, about["scale"], lookup=about["lookup"], **extra)
    if begin != values.numel():
        raise ValueError(f"{values.numel() - begin} bytes too many")


def check_free(target: Path) -> None:
    """Whether a flat file could be written there.

    Raises:
        ConfigError: a folder is in its place.
    """
    if target.is_dir():
        raise ConfigError(
            text("{folder} is there already and is not an adapter", folder=target),
            expected=text("a new file"),
            found=text("a folder"),
            hint=text("choose another name"),
        )
