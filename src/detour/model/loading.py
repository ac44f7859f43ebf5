"""From a name to a model in memory: the packaged starter, a folder, or the Hugging Face Hub.

Nothing is loaded by halves: missing or misshapen weights are an error, never random numbers, and no
code from a model's folder is run. Knows folders, the Hub and transformers' loaders. Does not know
slots, chats or chains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HTTPError
from safetensors import SafetensorError
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from detour.adapter.fingerprint import Fingerprint, fingerprint_folder
from detour.errors import BaseError
from detour.language.catalogue import text
from detour.model.packaged import MINILM, packaged
from detour.model.quantized import keep_gradients, method_of, packing

_COMMIT = re.compile(r"[0-9a-f]{40}")
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DEVICES = ("cpu", "cuda")
_CAUSAL_ENDINGS = ("ForCausalLM", "LMHeadModel")
_DESCRIBING = ["*.json", "*.jinja", "*.model", "*.txt"]
_WANTED = [*_DESCRIBING, "*.safetensors"]
_TOO_LONG = "sequence-length-is-longer-than-the-specified-maximum"  # a warning of transformers
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")

Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase | None, Fingerprint]


def load_model(
    name: str,
    dtype: str | None,
    device: str | None,
    quantize: str | None = None,
    full: bool = False,
) -> Loaded:
    """Model, tokenizer where there is one, and fingerprint; see `Base.load`.

    The fingerprint is of the files, before any cast or quantisation.

    Raises:
        BaseError: it is not there, not readable, incomplete, or not a causal language model.
        MissingExtra: `quantize` without the packages that it needs.
    """
    where = _device(device)
    folder = find(name)
    config = _config(folder)
    check_causal(config, name, list(getattr(config, "architectures", None) or []))
    fingerprint = fingerprint_folder(folder, name, full)
    if _COMMIT.fullmatch(folder.name):  # as the Hub's cache names its folders
        fingerprint = replace(fingerprint, revision=folder.name)
    numbers = _dtype(dtype, where)
    if quantize is None and not method_of(config):
        model = _weights(folder, config, numbers)
        return model.to(torch.device(where)), _tokenizer(folder), fingerprint  # type: ignore[arg-type]
    packed = packing(quantize, config, numbers, name)
    model = _weights(folder, config, numbers, device_map={"": where}, **packed)
    return model, _tokenizer(folder), fingerprint


def identity_of(name: str) -> Fingerprint:
    """The fingerprint of the model of that name, without loading it.

    Raises:
        BaseError: as `load_model`.
    """
    folder = find(name)
    fingerprint = fingerprint_folder(folder, name)
    if _COMMIT.fullmatch(folder.name):
        return replace(fingerprint, revision=folder.name)
    return fingerprint


def check_causal(config: PreTrainedConfig, name: str, built: list[str]) -> None:
    """Refuse kinds of models that are not supported, by name. `built` are its class names.

    Raises:
        BaseError: an encoder, an encoder-decoder, or a model quantised by another method than
            bitsandbytes.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise _wrong_kind(name, text("an encoder-decoder"), built)
    if built and not any(kind.endswith(_CAUSAL_ENDINGS) for kind in built):
        raise _wrong_kind(name, text("an encoder or a model with another head"), built)
    if method_of(config) not in ("", "bitsandbytes"):
        raise BaseError(
            text("{name} is quantised in a way that is not supported", name=name),
            expected=text("plain weights, or bitsandbytes in 8 or 4 bits"),
            found=method_of(config),
            hint=text("the model's unquantised weights"),
        )


def _wrong_kind(name: str, kind: str, built: list[str]) -> BaseError:
    return BaseError(
        text("{name} is {kind}, which is not supported", name=name, kind=kind),
        expected=text("a causal language model (…ForCausalLM)"),
        found=", ".join(built) or text("no architecture named"),
    )


def _device(device: str | None) -> str:
    wanted = device or "cpu"
    if wanted not in _DEVICES:
        raise BaseError(
            text("unknown device {wanted!r}", wanted=wanted), expected=_one_of(_DEVICES)
        )
    if wanted == "cuda" and not torch.cuda.is_available():
        raise BaseError(
            text("no GPU that this torch can use"),
            expected=text("a CUDA device"),
            hint='device="cpu"',
        )
    return wanted


def _dtype(dtype: str | None, device: str) -> torch.dtype:
    if dtype is None:
        return torch.float32 if device == "cpu" else torch.bfloat16
    if dtype not in _DTYPES:
        raise BaseError(
            text("unknown dtype {dtype!r}", dtype=dtype), expected=_one_of(tuple(_DTYPES))
        )
    return _DTYPES[dtype]


def _one_of(pair: tuple[str, ...]) -> str:
    return text("{one} or {other}", one=pair[0], other=pair[1])


def find(name: str, weights: bool = True) -> Path:
    """The folder of a base: the packaged starter or encoder, a folder, or one that is fetched from
    the Hub.

    Without `weights` nothing large is fetched: configuration and tokenizer only.

    Raises:
        BaseError: there is none of that name. MissingExtra: the packaged encoder is not installed.
    """
    if name == "starter":
        return _starter()
    if name == MINILM:
        return Path(packaged())
    folder = Path(name)
    if _is_folder(folder):
        return folder
    identity, _, revision = name.partition("@")
    if identity.count("/") != 1 or name.startswith((".", "/", "~")):
        raise BaseError(
            text("no base called {name!r}", name=name),
            expected=text('"starter", a model folder, or "org/name[@revision]" from the Hub'),
            found=text("no such folder"),
            hint=text("check the path"),
        )
    return _download(name, identity, revision or None, _WANTED if weights else _DESCRIBING)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long for the disk
        return False


def _starter() -> Path:
    folder = Path(str(files("detour.starter"))) / "weights"
    if not (folder / "config.json").is_file():
        raise BaseError(
            text("the packaged starter model is not here"),
            expected=str(folder),
            hint=text(
                "make it with `make starter` (recipes/starter), or install a release of "
                "detour-lora, which brings it"
            ),
        )
    return folder


def _download(name: str, identity: str, revision: str | None, wanted: list[str]) -> Path:
    try:
        return Path(snapshot_download(identity, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError, HTTPError) as cause:
        lines = str(cause).strip().splitlines()
        raise BaseError(
            text("{name} could not be fetched from the Hugging Face Hub", name=name),
            expected=text("an id that exists, a connection, and HF_TOKEN for gated models"),
            found=text(
                "{kind}: {message}",
                kind=type(cause).__name__,
                message=lines[0] if lines else text("no message"),
            ),
            hint=text("download it where there is a connection and give its folder"),
        ) from cause


def _config(folder: Path) -> PreTrainedConfig:
    path = folder / "config.json"
    if not path.is_file():
        raise BaseError(
            text("{folder} is not a model folder", folder=folder),
            expected=text("config.json in it"),
            found=", ".join(sorted(file.name for file in folder.iterdir())[:8]) or text("no files"),
        )
    try:
        json.loads(path.read_text(encoding="utf-8"))
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise BaseError(
            text("{path} cannot be read", path=path),
            expected=text("the configuration of a model that transformers knows"),
            found=_first_line(cause),
        ) from cause


def _weights(
    folder: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    **more: Any,  # noqa: ANN401 - what transformers wants besides for packed weights
) -> PreTrainedModel:
    model, report = _loaded(AutoModelForCausalLM, folder, config, dtype, **more)
    _check_complete(folder, report)
    keep_gradients(model)
    return model


def _loaded(
    loader: Any,  # noqa: ANN401 - one of transformers' classes that find the model's class
    folder: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    **more: Any,  # noqa: ANN401
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """The model, and transformers' report of what its files hold."""
    try:
        with quietly():
            loaded = loader.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **more,
            )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as cause:
        raise BaseError(
            text("the weights in {folder} cannot be loaded", folder=folder),
            expected=text(
                "complete safetensors of a {model_type} model", model_type=config.model_type
            ),
            found=_first_line(cause),
            hint=text("download or copy the folder again"),
        ) from cause
    return cast("tuple[PreTrainedModel, dict[str, Any]]", loaded)


def _check_complete(folder: Path, report: dict[str, Any]) -> None:
    faults = {
        "missing_keys": text("missing"),
        "mismatched_keys": text("of another shape"),
        "unexpected_keys": text("unknown to the model"),
    }
    for fault, told in faults.items():
        if names := sorted(str(name) for name in report.get(fault) or ()):
            raise BaseError(
                text("the weights in {folder} do not fit its config.json", folder=folder),
                expected=text("every tensor of the model, and no other"),
                found=text(
                    "{count} {fault}: {names}",
                    count=len(names),
                    fault=told,
                    names=", ".join(names[:4]),
                ),
            )


def _tokenizer(folder: Path) -> PreTrainedTokenizerBase | None:
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        # rows that are too long are counted and told, or cut into blocks; never run as they are
        tokenizer.deprecation_warnings[_TOO_LONG] = True
        return tokenizer
    except (OSError, ValueError, KeyError, TypeError, ImportError) as cause:
        raise BaseError(
            text("the tokenizer in {folder} cannot be read", folder=folder),
            found=_first_line(cause),
        ) from cause


def _first_line(cause: BaseException) -> str:
    lines = str(cause).strip().splitlines()
    message = lines[0][:200] if lines else text("no message")
    return text("{kind}: {message}", kind=type(cause).__name__, message=message)


@contextmanager
def quietly() -> Generator[None]:
    """No progress bar and no loading report on the screen; what is missing is raised instead."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def load_headed(
    name: str,
    outputs: int,
    dtype: str | None,
    device: str | None,
    seed: int,
    folder: Path,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Fingerprint, tuple[str, ...]]:
    """A classification model of that base; the parameters that its files do not hold are drawn by
    `seed` and named.

    Raises:
        BaseError: as `load_model`; an architecture that transformers knows no such model of;
            weights that lack more than a head and a pooler.
    """
    where = _device(device)
    place = folder or find(name)
    config = _config(place)
    tokenizer = _tokenizer(place)
    if tokenizer is None:
        raise BaseError(text("{base} has no tokenizer", base=name), hint=text("training needs one"))
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise BaseError(
            text("transformers has no classification model of {model_type}",
                 model_type=config.model_type),
            hint=text("an encoder such as BERT, or a decoder such as Llama"),
        )  # fmt: skip
    fingerprint = fingerprint_folder(folder, name)
    config.num_labels = outputs
    if getattr(config, "pad_token_id", None) is None:  # RoBERTa counts positions by its own
        known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
        config.pad_token_id = next((t for t in known if isinstance(t, int)), 0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, report = _loaded(
            AutoModelForSequenceClassification, folder, config, _dtype(dtype, where),
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    missing = [str(n) for n in report["missing_keys"]]
    other = [str(n[0] if isinstance(n, tuple) else n) for n in report["mismatched_keys"]]
    inside = f"{model.base_model_prefix}."
    lacking = [n for n in (*missing, *other) if n.startswith(inside) and "pooler" not in n]
    _check_complete(folder, {"missing_keys": lacking})
    heads = [n for n, _ in model.named_parameters() if not n.startswith(inside)]
    new = tuple(sorted({*missing, *other, *heads}))  # a head that is there is trained whole too
    return model.to(torch.device(where)), tokenizer, fingerprint, new  # type: ignore[arg-type]


def load_tokenizer(name: str) -> tuple[PreTrainedTokenizerBase | None, int | None]:
    """A base's tokenizer and the tokens of its context, without its weights.

    Raises:
        BaseError: there is no such base, or its tokenizer cannot be read.
    """
    folder = find(name, weights=False)
    config = _config(folder).get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    return _tokenizer(folder), positions if isinstance(positions, int) else None


def load_config(name: str) -> PreTrainedConfig:
    """A causal base's configuration, without its weights.

    Raises:
        BaseError: there is no such base, it cannot be read, or it is of another kind.
    """
    config = _config(find(name, weights=False))
    check_causal(config, name, list(getattr(config, "architectures", None) or []))
    return config
