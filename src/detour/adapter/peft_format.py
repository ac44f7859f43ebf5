"""PEFT's adapter folder, read and written exactly.

    adapter_config.json          rank, alpha, target modules
    adapter_model.safetensors    base_model.model.<layer>.lora_A.weight and …lora_B.weight
    README.md                    the card
    detour.json                  ours: fingerprint of the base, digest of the weights
    test.jsonl                   ours: rows that show whether the adapter still works

Only safetensors, only plain LoRA, nothing ignored. Knows files; knows no model.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.peft_config import CONFIG_FILE, PeftConfig, config_for, read_config, read_json
from detour.adapter.update import Update
from detour.errors import (
    AdapterFormatError,
    AdapterWeightsError,
    ConfigError,
    UnsupportedVariant,
)
from detour.files import check_writable, replace_folder_atomically
from detour.language.catalogue import text

WEIGHTS_FILE = "adapter_model.safetensors"
CARD_FILE = "README.md"
DETOUR_FILE = "detour.json"
TEST_FILE = "test.jsonl"
_FORMAT = 1
_OURS = frozenset({CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, DETOUR_FILE, TEST_FILE})
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth", "pytorch_model.bin")
_FACTOR = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_VARIANT_TENSORS = {
    "lora_magnitude_vector": "use_dora",
    "lora_embedding_": text("an adapted embedding (lora_embedding_A)"),
    ".lora_B.bias": "lora_bias",
    ".lora_B.default.bias": "lora_bias",
    "trainable_tokens": "trainable_token_indices",
    "modules_to_save": "modules_to_save",
}


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter folder that PEFT or Detour wrote.

    Returns:
        The adapter, named like its folder; factors in the dtype of the file, on the CPU.

    Raises:
        AdapterFormatError: files missing, pickled, or not readable as an adapter.
        AdapterWeightsError: damaged tensors; a rank that the configuration does not state.
        UnsupportedVariant: anything but plain LoRA, by name.
    """
    config = read_config(folder)
    factors = _factors(_read_tensors(folder))
    updates = {layer: _update(layer, pair, config) for layer, pair in factors.items()}
    about = read_json(folder / DETOUR_FILE) if (folder / DETOUR_FILE).exists() else {}
    adapter = Adapter(
        updates=updates,
        name=folder.resolve().name,
        base=_base(about),
        card=_read_card(folder, config),
        test_rows=_read_test_rows(folder, about),
    )
    _check_digest(adapter, about)
    return adapter


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter folder that PEFT loads; whole or not at all.

    Files of other names in an adapter folder that is replaced are carried over.

    Raises:
        AdapterFormatError: the adapter changes nothing.
        UnsupportedVariant: a row scale or a bias, which the format's plain LoRA cannot hold.
        ConfigError: `folder` exists and is something else than an adapter.
        StorageError: the disk is full or read-only; what was there is still there.
    """
    if not adapter.updates:
        raise AdapterFormatError(
            text("the adapter {adapter} changes nothing and cannot be saved", adapter=adapter.name),
            expected=text("at least one layer"),
            found=text("none"),
        )
    folder = folder.absolute()
    _check_replaceable(folder)
    contents = _contents(adapter)

    def fill(temporary: Path) -> None:
        _carry_over(folder, temporary)
        for name, data in contents.items():
            (temporary / name).write_bytes(data)

    replace_folder_atomically(folder, fill)


# reading


def _read_tensors(folder: Path) -> dict[str, Tensor]:
    path = folder / WEIGHTS_FILE
    try:
        tensors = load_tensors(path.read_bytes())
    except FileNotFoundError as cause:
        raise _no_weights(folder) from cause
    except OSError as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=path), found=str(cause)
        ) from cause
    except (SafetensorError, ValueError, KeyError) as cause:
        raise AdapterWeightsError(
            text("{path} is damaged", path=path),
            expected=text("a complete safetensors file whose header tells the truth"),
            found=str(cause),
            hint=text("copy or download it again"),
        ) from cause
    if not tensors:
        raise AdapterWeightsError(
            text("{path} holds no tensors", path=path), expected=text("at least one layer")
        )
    return tensors


def _no_weights(folder: Path) -> AdapterFormatError:
    pickles = [name for name in _PICKLES if (folder / name).exists()]
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


def _factors(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Layer to its two factors, {"A": down, "B": up}."""
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _FACTOR.fullmatch(key)
        if not match:
            raise _foreign_tensor(key)
        sides = factors.setdefault(match[1], {})
        if match[2] in sides:
            raise AdapterFormatError(
                text("{layer} has two lora_{side}", layer=match[1], side=match[2]), found=key
            )
        sides[match[2]] = tensor
    for layer, sides in factors.items():
        _check_pair(layer, sides)
    return dict(sorted(factors.items(), key=lambda item: _as_counted(item[0])))


def _as_counted(layer: str) -> list[tuple[int, str]]:
    """A key that sorts layers.2 before layers.10; files keep their tensors in no fixed order."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in layer.split(".")]


def _foreign_tensor(key: str) -> AdapterFormatError | UnsupportedVariant:
    for part, variant in _VARIANT_TENSORS.items():
        if part in key:
            return UnsupportedVariant(
                text(
                    "the adapter holds tensors of {variant}, which is not applied", variant=variant
                ),
                expected=text("plain LoRA: only lora_A and lora_B weights"),
                found=key,
                hint=text("train it as plain LoRA"),
            )
    if key.startswith("base_model.model.") and "lora_" not in key:
        return UnsupportedVariant(
            text(
                "the adapter holds a whole weight of the model "
                "(modules_to_save or saved embeddings)"
            ),
            expected=text("plain LoRA: only lora_A and lora_B weights"),
            found=key,
            hint=text("save it with save_embedding_layers=False and without modules_to_save"),
        )
    return AdapterFormatError(
        text("the adapter holds a tensor of unknown meaning"),
        expected="base_model.model.<layer>.lora_A.weight or …lora_B.weight",
        found=key,
    )


def _check_pair(layer: str, sides: Mapping[str, Tensor]) -> None:
    if len(sides) == 1:
        there = next(iter(sides))
        missing = "B" if there == "A" else "A"
        raise AdapterWeightsError(
            text(
                "{layer} has lora_{there} without lora_{missing}",
                layer=layer,
                there=there,
                missing=missing,
            ),
            expected=text("both factors"),
            found=f"only lora_{there}.weight",
            hint=text("copy or download it again"),
        )


def _update(layer: str, pair: Mapping[str, Tensor], config: PeftConfig) -> Update:
    down, up = pair["A"], pair["B"]
    if up.ndim == down.ndim > 2 and up[0, 0].numel() == 1:  # convolutions: (out, rank, 1, 1)
        up = up.flatten(1)
    rank = config.rank(layer)
    if down.ndim < 2 or up.ndim != 2 or (down.shape[0], up.shape[1]) != (rank, rank):
        raise AdapterWeightsError(
            text(
                "the factors of {layer} do not have the rank that {config_file} states",
                layer=layer,
                config_file=CONFIG_FILE,
            ),
            expected=f"lora_A ({rank}, in) and lora_B (out, {rank})",
            found=f"lora_A {tuple(down.shape)} and lora_B {tuple(pair['B'].shape)}",
            hint=text("the configuration belongs to other weights; copy both from one save"),
        )
    try:
        return Update(down, up, config.scale(layer))
    except AdapterWeightsError as cause:
        raise AdapterWeightsError(
            text("{place}: {fault}", place=layer, fault=cause.message),
            expected=cause.expected,
            found=cause.found,
            hint=cause.hint,
        ) from cause


def _read_card(folder: Path, config: PeftConfig) -> Card:
    path = folder / CARD_FILE
    try:
        card = Card.from_readme(path.read_text(encoding="utf-8")) if path.exists() else Card()
    except (OSError, UnicodeDecodeError) as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=path), expected=text("UTF-8 text"), found=str(cause)
        ) from cause
    if config.kept and "peft" not in card.config:
        card = card.with_(config={**card.config, "peft": dict(config.kept)})
    return card if card.base_model else card.with_(base_model=config.base_model)


def _base(about: Mapping[str, Any]) -> Fingerprint | None:
    if about and about.get("format") != _FORMAT:
        raise AdapterFormatError(
            text("{detour_file} has an unknown format", detour_file=DETOUR_FILE),
            expected=text("format {number}", number=_FORMAT),
            found=repr(about.get("format"))[:80],
            hint=text("update Detour"),
        )
    return None if about.get("base") is None else Fingerprint.from_json(about["base"])


def _check_digest(adapter: Adapter, about: Mapping[str, Any]) -> None:
    if about and about.get("digest") != adapter.digest():
        raise AdapterWeightsError(
            text(
                "the weights of {adapter} are not those that {detour_file} was written for",
                adapter=adapter.name,
                detour_file=DETOUR_FILE,
            ),
            expected=f"digest {about.get('digest')}",
            found=f"digest {adapter.digest()}",
            hint=text(
                "copy the folder again; or delete {detour_file} if the change was meant",
                detour_file=DETOUR_FILE,
            ),
        )


def _read_test_rows(folder: Path, about: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    stated = about.get("test_rows_sha256")
    if stated is None:
        return ()
    path = folder / TEST_FILE
    try:
        data = path.read_bytes()
        rows = tuple(json.loads(line) for line in data.splitlines())
    except (OSError, ValueError) as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=path),
            expected=text("one JSON object per line"),
            found=str(cause),
        ) from cause
    if hashlib.sha256(data).hexdigest() != stated:
        raise AdapterFormatError(
            text(
                "{path} is not the file that {detour_file} was written for",
                path=path,
                detour_file=DETOUR_FILE,
            ),
            expected=f"sha256 {stated}",
            found=f"sha256 {hashlib.sha256(data).hexdigest()}",
            hint=text("copy the folder again"),
        )
    return rows


# writing


def check_target(folder: Path) -> None:
    """Whether an adapter could be written there, asked before hours of training.

    Raises:
        ConfigError: `folder` exists and is something else than an adapter.
        StorageError: nothing can be written there.
    """
    _check_replaceable(folder)
    check_writable(folder)


def _check_replaceable(folder: Path) -> None:
    is_other = folder.exists() and not (folder.is_dir() and (folder / CONFIG_FILE).exists())
    if is_other and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            text("{folder} is there already and is not an adapter", folder=folder),
            expected=text("a new or empty folder, or an adapter to replace"),
            found=text("a folder with other files") if folder.is_dir() else text("a file"),
            hint=text("choose another name"),
        )


def _carry_over(old: Path, new: Path) -> None:
    for item in old.iterdir() if old.is_dir() else ():
        if item.name in _OURS or item.name in _PICKLES:
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)


def _contents(adapter: Adapter) -> dict[str, bytes]:
    base_model = adapter.base.name if adapter.base else adapter.card.base_model
    config = config_for(adapter.updates, adapter.card, base_model)
    rows = _lines(adapter.test_rows)
    about = {
        "format": _FORMAT,
        "detour_version": version("detour-lora"),
        "base": adapter.base.to_json() if adapter.base else None,
        "digest": adapter.digest(),
        "test_rows_sha256": hashlib.sha256(rows).hexdigest() if rows else None,
    }
    contents = {
        CONFIG_FILE: _json(config),
        WEIGHTS_FILE: save_tensors(_tensors(adapter), metadata={"format": "pt"}),
        CARD_FILE: adapter.card.with_(base_model=base_model).to_readme().encode("utf-8"),
        DETOUR_FILE: _json(about),
    }
    return {**contents, TEST_FILE: rows} if rows else contents


def _tensors(adapter: Adapter) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = {}
    for layer, update in adapter.updates.items():
        if not update.is_low_rank:
            raise UnsupportedVariant(
                text(
                    "{layer} of {adapter} has a row scale or a bias, which cannot be saved",
                    layer=layer,
                    adapter=adapter.name,
                ),
                expected=text("plain LoRA: two factors and a scale"),
                found="row_scale" if update.row_scale is not None else "bias_delta",
            )
        up = update.up.reshape(*update.up.shape, *[1] * (update.down.ndim - 2))
        # cloned: safetensors refuses tensors that share memory
        tensors[f"base_model.model.{layer}.lora_A.weight"] = update.down.cpu().clone().contiguous()
        tensors[f"base_model.model.{layer}.lora_B.weight"] = up.cpu().clone().contiguous()
    return tensors


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _lines(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")
