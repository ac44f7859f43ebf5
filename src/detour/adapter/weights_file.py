"""An adapter's safetensors, whole or in shards, checked by their headers before anything is read.

Knows files and tensors; knows nothing of layers. Pickles are refused by name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import Tensor

from detour.errors import AdapterFormatError, AdapterTooLarge, AdapterWeightsError
from detour.language.catalogue import text

WEIGHTS_FILE = "adapter_model.safetensors"
INDEX_FILE = WEIGHTS_FILE + ".index.json"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
_SIDE_LIMIT = 16 * 2**20  # bytes of a configuration, a card, an index
_HEADER_LIMIT = 16 * 2**20  # bytes; some 100,000 tensors
_BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8,
    "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What an adapter may hold at most; whoever takes adapters from strangers sets them lower.

    Attributes:
        rank: of any layer; of stacked experts, that of all of them together.
        bytes: of all its weights together.
        tensors: how many there may be.
        shards: files that the weights may be spread over.
    """

    rank: int = 16_384
    bytes: int = 16 * 2**30
    tensors: int = 100_000
    shards: int = 64


def read_weights(folder: Path, limits: Limits) -> dict[str, Tensor]:
    """Every tensor of the folder's weights, on the CPU and in the file's dtype.

    Raises:
        AdapterFormatError: no safetensors.
        AdapterTooLarge: above a limit; told by the headers, before any tensor is read.
        AdapterWeightsError: damaged files, headers that lie, no tensors.
    """
    paths = _files(folder, limits)
    headers = {path: read_header(path) for path in paths}
    _check_limits(folder, headers, limits)
    tensors: dict[str, Tensor] = {}
    for path in paths:
        found = _load(path)
        if both := sorted(found.keys() & tensors.keys()):
            raise AdapterWeightsError(
                text("two shards of {folder} hold the same tensor", folder=folder), found=both[0]
            )
        tensors.update(found)
    if not tensors:
        raise AdapterWeightsError(
            text("{path} holds no tensors", path=paths[0]), expected=text("at least one layer")
        )
    return tensors


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Name to {"dtype", "shape", "data_offsets"}, known to describe the file.

    Raises:
        AdapterFormatError: the file cannot be opened.
        AdapterWeightsError: a header that is cut off, no JSON, or does not fit the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
                raise ValueError(f"a header of {length} bytes in a file of {size}")
            header = json.loads(stream.read(length))
        _check_header(header, size - 8 - length)
    except OSError as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=path), found=cause.strerror or str(cause)
        ) from cause
    except (ValueError, RecursionError) as cause:
        raise _damaged(path, cause) from cause
    header.pop("__metadata__", None)
    return header


def _check_header(header: object, size: int) -> None:
    if not isinstance(header, dict):
        raise ValueError("the header is no JSON object")  # noqa: TRY004 - told as damage
    for name, about in cast("dict[str, Any]", header).items():
        if name == "__metadata__":
            continue
        if not isinstance(about, Mapping) or not {"dtype", "shape", "data_offsets"} <= set(about):
            raise ValueError(f"{name} is not described")
        shape, offsets, dtype = about["shape"], about["data_offsets"], about["dtype"]
        if not _are_counts(shape) or not _are_counts(offsets) or len(offsets) != 2:
            raise ValueError(f"{name} has the shape {shape!r} and the place {offsets!r}")
        if not isinstance(dtype, str) or dtype not in _BITS:
            raise ValueError(f"{name} has the unknown dtype {dtype!r}")
        wanted = math.prod(shape) * _BITS[dtype] // 8
        if not offsets[0] <= offsets[1] <= size or offsets[1] - offsets[0] != wanted:
            raise ValueError(f"{name} lies at {offsets} of {size} bytes and needs {wanted}")


def _are_counts(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)


def _check_limits(
    folder: Path, headers: Mapping[Path, Mapping[str, Mapping[str, Any]]], limits: Limits
) -> None:
    entries = {name: about for header in headers.values() for name, about in header.items()}
    ranks = [
        min(about["shape"][:2])
        for name, about in entries.items()
        if "lora_" in name and len(about["shape"]) >= 2
    ]
    found = {
        "rank": max(ranks, default=0),
        "bytes": sum(path.stat().st_size for path in headers),
        "tensors": len(entries),
    }
    for kind, count in found.items():
        refuse_above(getattr(limits, kind), count, kind, folder)


def read_small(path: Path) -> str:
    """The text of a file that stands beside the weights.

    Raises:
        AdapterTooLarge: larger than such a file ever is; nothing is read.
        OSError, ValueError: not readable, not UTF-8.
    """
    size = path.stat().st_size
    if size > _SIDE_LIMIT:
        raise AdapterTooLarge(
            text("{path} is too large", path=path),
            expected=text("at most {limit:,}", limit=_SIDE_LIMIT),
            found=f"{size:,}",
        )
    return path.read_text(encoding="utf-8")


def refuse_above(limit: int, count: int, kind: str, folder: Path) -> None:
    """Raises AdapterTooLarge where `count` is above `limit`."""
    if count > limit:
        raise AdapterTooLarge(
            text("the adapter {folder} is above the limit of {kind}", folder=folder, kind=kind),
            expected=text("at most {limit:,}", limit=limit),
            found=f"{count:,}",
            hint=text("raise Limits({kind}=…) if you trust it", kind=kind),
        )


def _files(folder: Path, limits: Limits) -> list[Path]:
    whole, index = folder / WEIGHTS_FILE, folder / INDEX_FILE
    if whole.exists() or not index.is_file():
        if not whole.exists():
            raise _no_weights(folder)
        return [whole]
    names = _shard_names(index)
    refuse_above(limits.shards, len(names), "shards", folder)
    for name in names:
        if not (folder / name).is_file():
            raise AdapterWeightsError(
                text("{folder} lacks a shard of its weights", folder=folder),
                expected=name,
                found=", ".join(sorted(p.name for p in folder.glob("*.safetensors"))),
                hint=text("copy the whole folder again"),
            )
    return [folder / name for name in names]


def _shard_names(index: Path) -> list[str]:
    try:
        names = json.loads(read_small(index))["weight_map"].values()
        plain = sorted({str(name) for name in names})
        if not plain or any(Path(name).name != name or "\0" in name for name in plain):
            raise ValueError(f"the shards {plain[:3]}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=index),
            expected=text('"weight_map" from tensors to files of the same folder'),
            found=f"{type(cause).__name__}: {cause}"[:200],
        ) from cause
    return plain


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path.read_bytes())
    except OSError as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=path), found=cause.strerror or str(cause)
        ) from cause
    except (SafetensorError, ValueError, KeyError) as cause:
        raise _damaged(path, cause) from cause


def _damaged(path: Path, cause: Exception) -> AdapterWeightsError:
    return AdapterWeightsError(
        text("{path} is damaged", path=path),
        expected=text("a complete safetensors file whose header tells the truth"),
        found=str(cause)[:200],
        hint=text("copy or download it again"),
    )


def _no_weights(folder: Path) -> AdapterFormatError:
    pickles = [name for name in PICKLES if (folder / name).exists()]
    convert = text("load it once with PEFT on a machine you trust and save_pretrained it again")
    return AdapterFormatError(
        text("{folder} holds no {weights_file}", folder=folder, weights_file=WEIGHTS_FILE),
        expected=text("weights as safetensors"),
        found=text("{file}, a pickle that can run code when read", file=pickles[0])
        if pickles
        else text("no weights"),
        hint=text("{convert}, which writes safetensors", convert=convert)
        if pickles
        else text("copy the whole folder again"),
    )
