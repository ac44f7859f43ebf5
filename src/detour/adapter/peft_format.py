"""PEFT's adapter folder, read and written exactly.

    adapter_config.json          rank, alpha, target modules
    adapter_model.safetensors    the tensors, see `peft_tensors`; or shards and their index
    README.md                    the card
    detour.json                  ours: fingerprint of the base, digest of the weights
    test.jsonl                   ours: rows that show whether the adapter still works

Only safetensors, nothing ignored. Knows files; knows no model.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save as save_tensors

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.fingerprint import Fingerprint
from detour.adapter.peft_config import (
    CONFIG_FILE,
    PeftConfig,
    config_for,
    parse_config,
    read_config,
    read_json,
)
from detour.adapter.peft_tensors import from_tensors, to_tensors
from detour.adapter.weights_file import (
    INDEX_FILE,
    PICKLES,
    WEIGHTS_FILE,
    Limits,
    read_small,
    read_weights,
)
from detour.errors import AdapterFormatError, AdapterWeightsError, ConfigError
from detour.files import check_writable, replace_folder_atomically
from detour.language.catalogue import text

SUFFIX = ".flat"  # of flat files, see `flat.py`
CARD_FILE = "README.md"
DETOUR_FILE = "detour.json"
TEST_FILE = "test.jsonl"
_FORMAT = 1
_OURS = frozenset({CONFIG_FILE, WEIGHTS_FILE, INDEX_FILE, CARD_FILE, DETOUR_FILE, TEST_FILE})
_SHARDS = "adapter_model-*.safetensors"


def read_adapter(folder: Path, limits: Limits | None = None) -> Adapter:
    """Read an adapter folder that PEFT or Detour wrote.

    Returns:
        The adapter, named like its folder; factors in the dtype of the file, on the CPU.

    Raises:
        AdapterFormatError: files missing, pickled, or not readable as an adapter.
        AdapterTooLarge: above the limits.
        AdapterWeightsError: damaged tensors; a rank that the configuration does not state.
        UnsupportedVariant: a variant that cannot be held in a slot, by name.
    """
    config = read_config(folder)
    updates, unbound = from_tensors(read_weights(folder, limits or Limits()), config)
    about = read_json(folder / DETOUR_FILE) if (folder / DETOUR_FILE).exists() else {}
    adapter = Adapter(
        updates=updates,
        name=folder.resolve().name,
        base=_base(about),
        card=_read_card(folder, config),
        test_rows=_read_test_rows(folder, about),
        unbound=unbound,
    )
    _check_digest(adapter, about)
    return adapter


def write_adapter(
    adapter: Adapter, folder: Path, beside: Mapping[str, bytes] | None = None
) -> None:
    """Write an adapter folder that PEFT loads; whole or not at all.

    Files of other names in an adapter folder that is replaced are carried over, unless they are
    among those `beside` the adapter.

    Raises:
        AdapterFormatError: the adapter changes nothing.
        UnsupportedVariant: changes that the format cannot hold without the base.
        ConfigError: `folder` exists and is something else than an adapter.
        StorageError: the disk is full or read-only; what was there is still there.
    """
    if not adapter.updates and not adapter.unbound:
        raise AdapterFormatError(
            text("the adapter {adapter} changes nothing and cannot be saved", adapter=adapter.name),
            expected=text("at least one layer"),
            found=text("none"),
        )
    folder = folder.absolute()
    _check_replaceable(folder)
    contents = {**(beside or {}), **_contents(adapter)}

    def fill(temporary: Path) -> None:
        _carry_over(folder, temporary)
        for name, data in contents.items():
            (temporary / name).write_bytes(data)

    replace_folder_atomically(folder, fill)


# reading


def _read_card(folder: Path, config: PeftConfig) -> Card:
    path = folder / CARD_FILE
    try:
        card = Card.from_readme(read_small(path)) if path.exists() else Card()
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
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError(data[:80])
    except (OSError, ValueError, RecursionError) as cause:
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


def check_vacant(folder: Path) -> None:
    """Raises ConfigError: an adapter lies in `folder` already."""
    if (folder / CONFIG_FILE).exists():
        raise ConfigError(
            text("{folder} holds an adapter already", folder=folder),
            expected=text("a new or empty folder"),
            hint=text("choose another name, or --replace"),
        )


def _check_replaceable(folder: Path) -> None:
    if folder.name.endswith(SUFFIX):
        raise ConfigError(
            text(
                "{folder} would be a folder, and its ending is that of a flat file", folder=folder
            ),
            expected=text("a name without {ending}", ending=SUFFIX),
            hint=text("detour convert writes flat files"),
        )
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
        if item.name in _OURS or item.name in PICKLES or item.match(_SHARDS):
            continue
        if item.is_dir() and not item.is_symlink():
            shutil.copytree(item, new / item.name, symlinks=True)
        else:
            shutil.copy2(item, new / item.name, follow_symlinks=False)


def _contents(adapter: Adapter) -> dict[str, bytes]:
    base_model = adapter.base.name if adapter.base else adapter.card.base_model
    config = config_for(adapter.updates, adapter.card, base_model, adapter.unbound)
    tensors = to_tensors(adapter.updates, adapter.unbound)
    # of what will be read again: a bias that PEFT wants divided by the scale may round
    updates, unbound = from_tensors(tensors, parse_config(config))
    rows = _lines(adapter.test_rows)
    about = {
        "format": _FORMAT,
        "detour_version": version("detour-lora"),
        "base": adapter.base.to_json() if adapter.base else None,
        "digest": Adapter(updates, adapter.name, unbound=unbound).digest(),
        "test_rows_sha256": hashlib.sha256(rows).hexdigest() if rows else None,
    }
    contents = {
        CONFIG_FILE: _json(config),
        WEIGHTS_FILE: save_tensors(tensors, metadata={"format": "pt"}),
        CARD_FILE: adapter.card.with_(base_model=base_model).to_readme().encode("utf-8"),
        DETOUR_FILE: _json(about),
    }
    return {**contents, TEST_FILE: rows} if rows else contents


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8")


def _lines(rows: Iterable[object]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")
