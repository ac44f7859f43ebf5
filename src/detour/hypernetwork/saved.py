"""A hypernetwork as a folder: config.json and model.safetensors.

Weights are stored in bfloat16, which halves them; a network is rounded before it is judged, so that
what is judged is what is stored. Knows files and tensors; loads no base and no text encoder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor

from detour.adapter.fingerprint import Fingerprint
from detour.errors import AdapterFormatError, HypernetworkError
from detour.files import check_writable, replace_folder_atomically
from detour.hypernetwork.confidence import SIGNALS, Confidence
from detour.hypernetwork.config import NetworkConfig
from detour.hypernetwork.encoder import Tagger
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.known import Known
from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.places import places_of
from detour.language.catalogue import text

FORMAT = "detour.hypernetwork"
VERSION = 1
CONFIG, WEIGHTS = "config.json", "model.safetensors"


def rounded(network: torch.nn.Module) -> None:
    """Round the weights as they are stored."""
    with torch.no_grad():
        for tensor in (*network.parameters(), *network.buffers()):
            tensor.copy_(tensor.bfloat16())


def save_generator(generator: Generator, folder: Path, figures: Mapping[str, Any]) -> str:
    """Write the folder, whole or not at all; returns the sha256 of its weights.

    Raises:
        StorageError: the disk is full or the folder cannot be written.
    """
    network, tagger = generator.network, generator.tagger
    tensors = {f"network.{n}": t.bfloat16() for n, t in network.state_dict().items()}
    if tagger is not None:
        tensors |= {f"tagger.{n}": t.bfloat16() for n, t in tagger.state_dict().items()}
    tensors["known.vectors"] = generator.known.vectors.half()
    raw = save_tensors({n: t.contiguous().cpu() for n, t in tensors.items()}, {"format": "pt"})
    digest = sha256(raw).hexdigest()
    confidence = generator.confidence
    told = {
        "format": FORMAT,
        "version": VERSION,
        "network": network.config.model_dump(mode="json"),
        "layers": network.places.to_json(),
        "primitives": list(network.primitives),
        "embedder": {
            "name": network.config.embedder,
            "sha256": generator.embedder_sha256,
            "width": network.embedding,
        },
        "base": generator.base.to_json(),
        "confidence": None
        if confidence is None
        else {"weights": list(confidence.weights), "bias": confidence.bias},
        "known": [list(pair) for pair in zip(generator.known.texts, generator.known.primitives)],  # noqa: B905
        "usual": sorted(generator.known.usual),
        "weights_sha256": digest,
        "figures": dict(figures),
    }

    def fill(place: Path) -> None:
        (place / WEIGHTS).write_bytes(raw)
        written = json.dumps(told, ensure_ascii=False, indent=1)
        (place / CONFIG).write_text(written, encoding="utf-8")

    replace_folder_atomically(folder, fill)
    generator.digest = digest
    return digest


def check_output(folder: Path, replace: bool = False) -> None:
    """Raise now what writing a hypernetwork there would destroy, or could not write.

    Raises:
        HypernetworkError: something else lies there, or, without `replace`, a hypernetwork.
        StorageError: the folder cannot be written.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        try:
            _config(folder / CONFIG)
        except (HypernetworkError, OSError) as cause:
            raise HypernetworkError(
                text("{folder} exists and is no hypernetwork", folder=folder),
                expected=text("a new folder, an empty one, or a hypernetwork to replace"),
                hint=text("choose another name"),
            ) from cause
        if not replace:
            raise HypernetworkError(
                text("{folder} holds a hypernetwork already", folder=folder),
                expected=text("a new folder or an empty one"),
                hint=text("choose another name, or --replace"),
            )
    check_writable(folder)


def load_generator(folder: Path) -> Generator:
    """Read what `save_generator` wrote.

    Raises:
        HypernetworkError: not there, of another format, or damaged. Nothing random stands in.
    """
    told = _config(folder / CONFIG)
    path = folder / WEIGHTS
    try:
        raw = path.read_bytes()
        with safe_open(path, "pt") as stream:
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as cause:
        raise _damaged(path, str(cause)) from cause
    digest = sha256(raw).hexdigest()
    if digest != told.get("weights_sha256"):
        raise _damaged(path, f"sha256 {digest[:16]}")
    try:
        return _build(folder.name, told, tensors, digest)
    except (
        KeyError, TypeError, ValueError, RuntimeError, ValidationError, AdapterFormatError
    ) as cause:  # fmt: skip
        raise _damaged(folder / CONFIG, str(cause).split("\n", maxsplit=1)[0]) from cause


def _build(
    name: str, told: Mapping[str, Any], tensors: Mapping[str, Tensor], digest: str
) -> Generator:
    shapes = {layer["layer"]: (layer["out"], layer["in"]) for layer in told["layers"]}
    network = Hypernetwork(
        NetworkConfig.model_validate(told["network"]),
        places_of(shapes),
        told["embedder"]["width"],
        told["primitives"],
    )
    network.load_state_dict(_under("network.", tensors))
    tagger = None
    if any(key.startswith("tagger.") for key in tensors):
        tagger = Tagger(told["embedder"]["width"])
        tagger.load_state_dict(_under("tagger.", tensors))
        tagger.eval()
    known = Known(
        tuple(pair[0] for pair in told["known"]),
        tuple(pair[1] for pair in told["known"]),
        tensors["known.vectors"],
        frozenset(told.get("usual", ())),
    )
    fitted = told["confidence"]
    if fitted is not None and len(fitted["weights"]) != len(SIGNALS):
        raise ValueError(f"confidence of {len(fitted['weights'])} signals")
    confidence = None if fitted is None else Confidence(tuple(fitted["weights"]), fitted["bias"])
    base = Fingerprint.from_json(told["base"])
    return Generator(
        network, tagger, known, confidence, base, told["embedder"]["sha256"], name, digest
    )


def _config(path: Path) -> dict[str, Any]:
    try:
        told: Any = json.loads(path.read_text("utf-8"))
    except FileNotFoundError as cause:
        raise HypernetworkError(
            text("{folder} holds no hypernetwork", folder=path.parent),
            expected=f"{CONFIG}, {WEIGHTS}",
            hint=text("train one: detour hypernet train TASKS --base BASE"),
        ) from cause
    except (OSError, ValueError) as cause:
        raise _damaged(path, str(cause)) from cause
    if not isinstance(told, dict):
        raise _damaged(path, type(told).__name__)
    told = cast("dict[str, Any]", told)
    if told.get("format") != FORMAT or told.get("version") != VERSION:
        raise HypernetworkError(
            text("{path} is no hypernetwork of this version", path=path),
            expected=f"{FORMAT} {VERSION}",
            found=f"{told.get('format')} {told.get('version')}",
        )
    return told


def _damaged(path: Path, found: str) -> HypernetworkError:
    return HypernetworkError(
        text("{path} is damaged", path=path),
        found=found,
        hint=text("fetch or train the hypernetwork anew"),
    )


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): t.float() for n, t in tensors.items() if n.startswith(prefix)}


def packaged() -> Path:
    """Where the starter's own hypernetwork lies."""
    return Path(str(files("detour.starter") / "hypernetwork"))
