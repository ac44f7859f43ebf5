"""adapter_config.json: what it means for the arithmetic, and how to write one.

LoRA and its variants that are linear in the change pass. Every key that PEFT may put there is
known to be harmless, read, allowed with one value, or refused by name, and so is every key that
PEFT may invent tomorrow. Knows configuration; knows no tensors.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from detour.adapter.card import Card
from detour.adapter.unbound import Stack, Unbound
from detour.adapter.update import Update
from detour.adapter.weights_file import read_small
from detour.errors import AdapterFormatError, UnsupportedVariant
from detour.language.catalogue import text

CONFIG_FILE = "adapter_config.json"

# read below or by `peft_tensors`, or without any influence on finished weights (velora: backward
# pass only)
_HARMLESS = frozenset(
    {
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "fan_in_fan_out",
        "task_type",
        "revision",
        "base_model_name_or_path",
        "auto_mapping",
        "peft_version",
        "inference_mode",
        "lora_dropout",
        "target_modules",
        "exclude_modules",
        "layers_to_transform",
        "layers_pattern",
        "eva_config",
        "qalora_group_size",
        "velora_config",
        "runtime_config",
        "use_dora",
        "lora_bias",
        "bias",
        "modules_to_save",
        "trainable_token_indices",
        "target_parameters",
    }
)
# an initialisation that also changes the base leaves factors that mean nothing on the plain base
_KEEPS_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
_INERT = (None, False, "", "none", [], {})
_ONLY = {"init_lora_weights": _KEEPS_BASE, "megatron_core": (*_INERT, "megatron.core")}
_HINTS = {
    "init_lora_weights": text("save it again with PEFT's path_initial_model_for_weight_conversion"),
    "ensure_weight_tying": text("train with ensure_weight_tying=False"),
    "peft_type": text("convert it to LoRA with PEFT, or train it again as LoRA"),
}
_LONGEST_PATTERN = 500  # characters
# matching takes time exponential in a name's length once a group is repeated, and to the power of
# how many things are repeated otherwise
_LITERAL = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]")
_REPEATED_GROUP, _REPEATED = re.compile(r"\)(?:[*+]|\{)"), re.compile(r"[*+]|\{\d*,\d*\}")
_MOST_REPEATED = 3
# what a card keeps of a foreign configuration, and what is written where it keeps nothing
_KEPT = {"fan_in_fan_out": False, "task_type": "CAUSAL_LM", "revision": None}


@dataclass(frozen=True)
class PeftConfig:
    """The part of an adapter_config.json that decides about the arithmetic."""

    rank_default: int
    alpha_default: float
    use_rslora: bool
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base_model: str
    use_dora: bool
    lora_bias: bool
    token_indices: Mapping[str, tuple[int, ...]]
    """Retrained ids by the embedding's name or its end; "" is the model's input embedding."""
    target_parameters: tuple[str, ...]
    modules_to_save: tuple[str, ...]
    target_modules: str | tuple[str, ...]
    kept: Mapping[str, Any]
    """Keys that do not touch the factors but are written back on saving."""

    @property
    def variant(self) -> str:
        """The variants that the configuration names, for people."""
        named = {
            "dora": self.use_dora,
            "rslora": self.use_rslora,
            "lora_bias": self.lora_bias,
            "trainable_tokens": bool(self.token_indices),
            "target_parameters": bool(self.target_parameters),
        }
        return "+".join(name for name, given in named.items() if given) or "lora"

    def targets(self, module: str) -> bool:
        """Whether the module itself is adapted, by PEFT's rules for `target_modules`."""
        wanted = self.target_modules
        if isinstance(wanted, str):
            return wanted == "all-linear" or re.fullmatch(wanted, module) is not None
        return any(module == name or module.endswith("." + name) for name in wanted)

    def refuse_patterns(self, module: str) -> None:
        """Raises UnsupportedVariant where a pattern names a stacked parameter of the module.

        PEFT matches it with the parameter's name, which the file does not tell.
        """
        names = [module, *(f"{module}.{n.rpartition('.')[2]}" for n in self.target_parameters)]
        for key, patterns in (
            ("rank_pattern", self.rank_pattern),
            ("alpha_pattern", self.alpha_pattern),
        ):
            if any(pattern_for(patterns, name) in patterns for name in names):
                raise _unsupported(key, dict(patterns), text("none for target_parameters"))

    def rank(self, layer: str) -> int:
        """The rank that the configuration gives this layer."""
        return self.rank_pattern.get(pattern_for(self.rank_pattern, layer), self.rank_default)

    def scale(self, layer: str) -> float:
        """LoRA's alpha / rank, or alpha / √rank with rsLoRA."""
        rank = self.rank(layer)
        key = pattern_for(self.alpha_pattern, layer)
        alpha = self.alpha_pattern.get(key, self.alpha_default)
        return alpha / math.sqrt(rank) if self.use_rslora else alpha / rank


def pattern_for(patterns: Mapping[str, Any], layer: str) -> str:
    """PEFT's own rule (utils/other.py, get_pattern_key): the first regex that ends the name."""
    matching = (key for key in patterns if re.match(rf"(.*\.)?({key})$", layer))
    return next(matching, layer)


def read_config(folder: Path) -> PeftConfig:
    """Read and check adapter_config.json.

    Raises:
        AdapterFormatError: missing, no JSON, or values of the wrong kind.
        UnsupportedVariant: a variant that cannot be held in a slot.
    """
    return parse_config(read_json(folder / CONFIG_FILE))


def parse_config(raw: Mapping[str, Any]) -> PeftConfig:
    """The same of a configuration in memory. Raises as `read_config`."""
    _refuse_variants(raw)
    _check_kinds(raw)
    return PeftConfig(
        rank_default=raw["r"],
        alpha_default=float(raw["lora_alpha"]),
        use_rslora=bool(raw.get("use_rslora")),
        rank_pattern=_patterns(raw, "rank_pattern"),
        alpha_pattern=_patterns(raw, "alpha_pattern"),
        base_model=raw.get("base_model_name_or_path") or "",
        use_dora=bool(raw.get("use_dora")),
        lora_bias=bool(raw.get("lora_bias")),
        token_indices=_token_indices(raw),
        target_parameters=tuple(raw.get("target_parameters") or ()),
        modules_to_save=tuple(raw.get("modules_to_save") or ()),
        target_modules=_target_modules(raw),
        kept={key: raw[key] for key, usual in _KEPT.items() if raw.get(key, usual) != usual},
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of an adapter.

    Raises:
        AdapterFormatError: missing, not readable or no object.
    """
    try:
        value = json.loads(read_small(path))
    except FileNotFoundError as cause:
        raise AdapterFormatError(
            text("{parent} is not an adapter", parent=path.parent),
            expected=text("a folder with {path}", path=path.name),
            found=text("no such file") if path.parent.is_dir() else text("no such folder"),
            hint=text("give the folder that PEFT's or Detour's save wrote"),
        ) from cause
    except (OSError, ValueError, RecursionError) as cause:
        raise AdapterFormatError(
            text("{path} cannot be read", path=path),
            expected=text("a JSON object"),
            found=str(cause),
        ) from cause
    if not isinstance(value, dict):
        raise AdapterFormatError(
            text("{path} cannot be read", path=path),
            expected=text("a JSON object"),
            found=repr(value)[:80],
        )
    return value


def _refuse_variants(raw: Mapping[str, Any]) -> None:
    if raw.get("peft_type") != "LORA":
        raise _unsupported("peft_type", raw.get("peft_type"), '"LORA"')
    for key, value in raw.items():
        if key not in _HARMLESS and not _is_one_of(value, _ONLY.get(key, _INERT)):
            raise _unsupported(key, value, text("LoRA without {key}", key=key))
    if raw.get("use_dora") and raw.get("lora_bias"):
        raise _unsupported("lora_bias", True, text("DoRA without trained biases of its factors"))


def _is_one_of(value: object, allowed: tuple[object, ...]) -> bool:
    # 0 == False and 1 == True in Python; a number is never meant here
    return any(value == one and type(value) is type(one) for one in allowed)


def _unsupported(key: str, value: object, expected: str) -> UnsupportedVariant:
    return UnsupportedVariant(
        text("the adapter's configuration sets {key}, which is not applied", key=key),
        expected=expected,
        found=f"{key} = {json.dumps(value, default=str)[:200]}",
        hint=_HINTS.get(key, text("train it without {key}", key=key)),
    )


def _check_kinds(raw: Mapping[str, Any]) -> None:
    checks = {
        "r": _is_rank(raw.get("r")),
        "lora_alpha": _is_number(raw.get("lora_alpha")),
        "use_rslora": isinstance(raw.get("use_rslora"), bool | None),
        "base_model_name_or_path": isinstance(raw.get("base_model_name_or_path"), str | None),
        "use_dora": isinstance(raw.get("use_dora"), bool | None),
        "lora_bias": isinstance(raw.get("lora_bias"), bool | None),
        "bias": raw.get("bias") in (None, "none", "all", "lora_only"),
        "modules_to_save": _are_names(raw.get("modules_to_save")),
        "target_parameters": _are_names(raw.get("target_parameters")),
    }
    for key, good in checks.items():
        if not good:
            raise _wrong_kind(key, raw.get(key))


def _are_names(value: object) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(v, str) for v in value))


def _token_indices(raw: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    value = raw.get("trainable_token_indices") or {}
    by_name = {"": value} if isinstance(value, list) else value
    good = isinstance(by_name, dict) and all(
        isinstance(ids, list) and all(_is_id(one) for one in ids) and len(set(ids)) == len(ids)
        for ids in by_name.values()
    )
    if not good:
        raise _wrong_kind("trainable_token_indices", value)
    return {name: tuple(ids) for name, ids in by_name.items()}


def _is_id(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _patterns(raw: Mapping[str, Any], key: str) -> dict[str, Any]:
    patterns = raw.get(key) or {}
    is_good = _is_rank if key == "rank_pattern" else _is_number
    if not isinstance(patterns, dict) or not all(is_good(value) for value in patterns.values()):
        raise _wrong_kind(key, patterns)
    for pattern in patterns:
        _check_expression(key, pattern)
    return patterns


def _check_expression(key: str, pattern: str) -> None:
    """A regular expression that compiles, repeats no group, and little else."""
    bare = _LITERAL.sub("x", pattern)
    is_slow = _REPEATED_GROUP.search(bare) or len(_REPEATED.findall(bare)) > _MOST_REPEATED
    if len(pattern) > _LONGEST_PATTERN or is_slow:
        raise _wrong_kind(key, pattern)
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError) as cause:
        raise _wrong_kind(key, pattern) from cause


def _target_modules(raw: Mapping[str, Any]) -> str | tuple[str, ...]:
    value = raw.get("target_modules") or ()
    if isinstance(value, str):
        if raw.get("target_parameters"):  # else nothing is matched with it
            _check_expression("target_modules", value)
        return value
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) for name in value):
        raise _wrong_kind("target_modules", value)
    return tuple(value)


def _is_rank(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _is_number(value: object) -> bool:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return abs(value) <= sys.float_info.max  # neither NaN nor infinite, nor a number too long


def _wrong_kind(key: str, value: object) -> AdapterFormatError:
    expected = {
        "r": text("a whole number of at least {lowest}", lowest=1),
        "lora_alpha": text("a finite number"),
        "use_rslora": text("true or false"),
        "base_model_name_or_path": text("a text"),
        "rank_pattern": text("regular expressions with whole numbers of at least 1"),
        "alpha_pattern": text("regular expressions with finite numbers"),
        "use_dora": text("true or false"),
        "lora_bias": text("true or false"),
        "bias": '"none", "all" / "lora_only"',
        "modules_to_save": text("a list of names"),
        "target_modules": text("a list of names"),
        "target_parameters": text("a list of names"),
        "trainable_token_indices": text("ids, each once, as a list or by the embedding's name"),
    }
    return AdapterFormatError(
        text("{config_file} has a wrong {key}", config_file=CONFIG_FILE, key=key),
        expected=expected[key],
        found=repr(value)[:120],
    )


def config_for(
    updates: Mapping[str, Update],
    card: Card,
    base_model: str,
    unbound: Unbound | None = None,
) -> dict[str, Any]:
    """The adapter_config.json under which PEFT applies exactly these updates and whole values."""
    whole = unbound or Unbound()
    factored = {layer: update for layer, update in updates.items() if update.rank > 0}
    ranks = {layer: update.rank for layer, update in factored.items()}
    alphas = {layer: _alpha(update.scale, update.rank) for layer, update in factored.items()}
    rank, alpha = _usual(ranks, 8), _usual(alphas, 8)
    for stack in whole.stacks:  # all of one rank: patterns for them are refused when they are read
        rank, alpha = stack.rank, _alpha(stack.scale, stack.rank)
    kept = card.config.get("peft") or {}
    saved = {name.rpartition(".")[0] for name in whole.weights}
    return {
        "peft_type": "LORA",
        "base_model_name_or_path": base_model or None,
        **{key: kept.get(key, usual) for key, usual in _KEPT.items()},
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": _exceptions(ranks, rank),
        "alpha_pattern": _exceptions(alphas, alpha),
        "target_modules": sorted(factored),
        "target_parameters": list(whole.stacked_names) or None,
        "lora_dropout": 0.0,
        "bias": _bias(whole, factored),
        "lora_bias": any(update.bias_delta is not None for update in updates.values()),
        "use_rslora": False,
        "use_dora": bool(whole.magnitudes),
        "init_lora_weights": True,
        "modules_to_save": _saved(saved - factored.keys(), kept) or None,
        "trainable_token_indices": {n: list(t.ids) for n, t in whole.tokens.items()} or None,
    }


def _saved(names: set[str], kept: Mapping[str, Any]) -> list[str]:
    """The modules that are saved whole; of a classifier's parts, the whole classifier.

    PEFT adds `classifier` and `score` to those of every classification model by itself.
    """
    if kept.get("task_type") != "SEQ_CLS":
        return sorted(names)
    heads = ("classifier", "score")
    return sorted({next((h for h in heads if f"{n}.".startswith(f"{h}.")), n) for n in names})


def stack_key(stack: Stack) -> str:
    """The name under which PEFT keeps the factors of a stacked parameter."""
    return stack.module + ".base_layer" * stack.depth


def _bias(unbound: Unbound, factored: Mapping[str, Update]) -> str:
    if not unbound.biases:
        return "none"
    return "lora_only" if unbound.biases.keys() <= factored.keys() else "all"


def _alpha(scale: float, rank: int) -> float | int:
    """An alpha with float32(alpha / rank) == float32(scale), so that the digest survives a file."""
    alpha = scale * rank
    candidates = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    best = min(candidates, key=lambda value: _distance(value / rank, scale))
    return int(best) if best.is_integer() and abs(best) < 2**53 else best


def _distance(scale: float, wanted: float) -> tuple[bool, float]:
    return bool(np.float32(scale) != np.float32(wanted)), abs(scale - wanted)


def _usual(values: Mapping[str, Any], otherwise: int) -> Any:  # noqa: ANN401 - rank or alpha
    return Counter(values.values()).most_common(1)[0][0] if values else otherwise


def _exceptions(values: Mapping[str, Any], usual: float) -> dict[str, Any]:
    # anchored: PEFT would otherwise also match every longer name that ends like this one
    return {f"^{re.escape(name)}": value for name, value in values.items() if value != usual}
