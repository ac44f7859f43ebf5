"""Which base an adapter was made for, told by hashes rather than by a name.

Two models with different weights have identical headers, so bytes of every tensor are sampled
too, from the source files, before any cast or quantisation. Knows model folders and tensors;
knows nothing of adapters and loads no model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, runtime_checkable

import torch
from torch import Tensor

from detour.errors import AdapterFormatError, BaseError
from detour.language.catalogue import text

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SAMPLE = 4096  # bytes at the start, middle and end of a tensor
_PIECE = 2**24  # bytes read at a time
_HEADER_LIMIT = 100_000_000  # bytes; the limit that the safetensors library sets itself
_VOLATILE_KEYS = frozenset(
    {"transformers_version", "_name_or_path", "name_or_path", "torch_dtype", "dtype"}
)
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "merges.txt",
    "vocab.txt",
    "added_tokens.json",
)
_LATER = ("revision", "full_sha256")  # fields that older adapters do not have
_DTYPE_NAMES = {  # as safetensors headers write them
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@runtime_checkable
class _Hasher(Protocol):
    def update(self, data: Buffer, /) -> None: ...


@dataclass(frozen=True)
class Fingerprint:
    """The identity of a base: hashes of its configuration, weights, tokenizer and chat template."""

    name: str
    config_sha256: str
    weights_sha256: str
    tokenizer_sha256: str | None = None
    template_sha256: str | None = None
    revision: str | None = None
    """The commit on the Hub that it was loaded from; not part of the identity."""
    full_sha256: str | None = None
    """Of every byte of the weights' files, where somebody asked for it; else they are sampled."""

    @property
    def short(self) -> str:
        """Name and the first 8 digits of the weights' hash, for people."""
        return f"{self.name} ({self.weights_sha256[:8]})"

    def same_weights(self, other: Fingerprint) -> bool:
        """Whether both have the same tensors; names, paths and templates may differ.

        By samples, and by every byte where both know that too (other shards are other files then).
        """
        both = self.full_sha256 and other.full_sha256
        whole = self.full_sha256 == other.full_sha256 if both else True
        return whole and self.weights_sha256 == other.weights_sha256

    def to_json(self) -> dict[str, str | None]:
        """A JSON object with one entry per field; what is optional only where it is known."""
        told = asdict(self)
        return {k: v for k, v in told.items() if v is not None or k not in _LATER}

    @staticmethod
    def from_json(value: object) -> Fingerprint:
        """The inverse of `to_json`.

        Raises:
            AdapterFormatError: not an object with exactly these fields.
        """
        if not isinstance(value, Mapping) or not _has_fields(value):
            raise AdapterFormatError(
                text("a base's fingerprint cannot be read"),
                expected=text("an object with name, config_sha256 and weights_sha256"),
                found=repr(value)[:120],
            )
        return Fingerprint(**value)


def _has_fields(value: Mapping[Any, Any]) -> bool:
    needed = ("name", "config_sha256", "weights_sha256")
    optional = ("tokenizer_sha256", "template_sha256", *_LATER)
    return (
        set(value) <= {*needed, *optional}
        and all(isinstance(value.get(key), str) for key in needed)
        and all(isinstance(value.get(key), str | None) for key in optional)
    )


def fingerprint_folder(folder: Path, name: str, full: bool = False) -> Fingerprint:
    """Fingerprint a model folder without loading it; reads 12 KiB per tensor.

    Sharding does not change the result; a cast to another dtype does. `full` hashes every byte of
    the weights' files besides, which takes as long as reading them does.

    Raises:
        BaseError: no config.json, no safetensors weights, or a damaged shard.
    """
    return Fingerprint(
        name=name,
        config_sha256=_sha256(_canonical(_stable(_read_json(folder / "config.json")))),
        weights_sha256=_hash_shards(_shards(folder)),
        tokenizer_sha256=_hash_tokenizer(folder),
        template_sha256=_hash_template(folder),
        full_sha256=_hash_files(_shards(folder)) if full else None,
    )


def fingerprint_tensors(
    tensors: Iterable[tuple[str, Tensor]], config: Mapping[str, Any], name: str
) -> Fingerprint:
    """Fingerprint a model that lives in memory, from its named tensors and configuration.

    The weights' hash equals that of a folder holding the same names, dtypes and values.
    """
    entries: dict[str, bytes] = {}
    for key, tensor in tensors:
        flat = _bytes_of(tensor)
        samples = [bytes(flat[a:b].cpu().numpy()) for a, b in _sample_spans(flat.numel())]
        entries[key] = _entry(key, _dtype_name(tensor), list(tensor.shape), samples)
    return Fingerprint(
        name=name,
        config_sha256=_sha256(_canonical(_stable(config))),
        weights_sha256=_hash_entries(entries),
    )


def sha256_tensors(tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hash every byte of every tensor, in the order of their names: proof that none changed."""
    hasher = hashlib.sha256()
    for name, tensor in sorted(tensors, key=lambda pair: pair[0]):
        feed_tensor(hasher, name, tensor)
    return hasher.hexdigest()


def feed_tensor(hasher: _Hasher, name: str, tensor: Tensor) -> None:
    """Add name, dtype, shape and every byte of one tensor to a running hash."""
    hasher.update(_canonical([name, _dtype_name(tensor), list(tensor.shape)]))
    hasher.update(_bytes_of(tensor).cpu().numpy().data)


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _dtype_name(tensor: Tensor) -> str:
    return _DTYPE_NAMES.get(tensor.dtype, str(tensor.dtype))


def _sample_spans(size: int) -> list[tuple[int, int]]:
    if size <= 3 * _SAMPLE:
        return [(0, size)]
    middle = size // 2 - _SAMPLE // 2
    return [(0, _SAMPLE), (middle, middle + _SAMPLE), (size - _SAMPLE, size)]


def _entry(name: str, dtype: str, shape: list[int], samples: list[bytes]) -> bytes:
    hasher = hashlib.sha256(_canonical([name, dtype, shape]))
    for sample in samples:
        hasher.update(sample)
    return hasher.digest()


def _hash_entries(entries: Mapping[str, bytes]) -> str:
    return _sha256(b"".join(entries[name] for name in sorted(entries)))


def _hash_shards(shards: list[Path]) -> str:
    entries: dict[str, bytes] = {}
    for shard in shards:
        try:
            with shard.open("rb") as stream:
                entries.update(_shard_entries(stream, shard.stat().st_size))
        except (OSError, ValueError, KeyError, TypeError) as cause:
            raise BaseError(
                text("the weights in {shard} cannot be read", shard=shard.name),
                expected=text("a complete safetensors file"),
                found=str(cause),
                hint=text("download {parent} again", parent=shard.parent),
            ) from cause
    return _hash_entries(entries)


def _hash_files(shards: list[Path]) -> str:
    hasher = hashlib.sha256()
    for shard in shards:
        with shard.open("rb") as stream:
            while piece := stream.read(_PIECE):
                hasher.update(piece)
    return hasher.hexdigest()


def _shard_entries(stream: BinaryIO, size: int) -> dict[str, bytes]:
    length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(size - 8, _HEADER_LIMIT):
        raise ValueError(f"a header of {length} bytes in a file of {size}")
    header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    start = 8 + length
    entries: dict[str, bytes] = {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        if not 0 <= begin <= end <= size - start:
            raise ValueError(f"{name} reaches beyond the end of the file")
        samples = _read_spans(stream, start + begin, _sample_spans(end - begin))
        entries[name] = _entry(name, about["dtype"], about["shape"], samples)
    return entries


def _read_spans(stream: BinaryIO, origin: int, spans: list[tuple[int, int]]) -> list[bytes]:
    samples: list[bytes] = []
    for begin, end in spans:
        stream.seek(origin + begin)
        samples.append(stream.read(end - begin))
    return samples


def _shards(folder: Path) -> list[Path]:
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.exists():
        return [whole]
    if index.exists():
        names = {Path(str(name)).name for name in _read_json(index).get("weight_map", {}).values()}
        shards = [folder / name for name in sorted(names)]
    else:
        shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise BaseError(
            text("{folder} holds no weights that can be read", folder=folder),
            expected=text("model.safetensors, or shards with model.safetensors.index.json"),
            found=", ".join(sorted(file.name for file in folder.glob("*"))[:8])
            or text("an empty folder"),
            hint=text("pickled weights (.bin, .pt) are refused; convert them to safetensors first"),
        )
    return shards


def _hash_tokenizer(folder: Path) -> str | None:
    present = [folder / name for name in _TOKENIZER_FILES if (folder / name).is_file()]
    if not present:
        return None
    return _sha256(_canonical([[file.name, _sha256(file.read_bytes())] for file in present]))


def _hash_template(folder: Path) -> str | None:
    jinja = folder / "chat_template.jinja"
    if jinja.is_file():
        return _sha256(_canonical(jinja.read_text(encoding="utf-8")))
    for name in ("tokenizer_config.json", "chat_template.json"):
        if (folder / name).is_file():
            template = _read_json(folder / name).get("chat_template")
            if template:
                return _sha256(_canonical(template))
    return None


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise BaseError(
            text("{path} cannot be read", path=path),
            expected=text("a JSON object"),
            found=str(cause),
        ) from cause
    if not isinstance(value, dict):
        raise BaseError(
            text("{path} cannot be read", path=path),
            expected=text("a JSON object"),
            found=repr(value)[:80],
        )
    return value


def _stable(value: object) -> object:
    """The configuration without what changes when a model is merely saved again."""
    if isinstance(value, Mapping):
        return {key: _stable(item) for key, item in value.items() if key not in _VOLATILE_KEYS}
    if isinstance(value, list | tuple):
        return [_stable(item) for item in value]
    return value


def _canonical(value: object) -> bytes:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return text.encode("utf-8")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
