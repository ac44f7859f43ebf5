"""What PEFT calls the tensors of an adapter, and what each of them means.

    base_model.model.<layer>.lora_A.weight, .lora_B.weight     the two factors
    ….lora_B.bias                                              lora_bias
    ….lora_embedding_A, .lora_embedding_B                      the factors of an embedding
    ….lora_magnitude_vector                                    DoRA
    ….token_adapter.trainable_tokens_delta                     token rows (whole, despite the name)
    <module>.lora_A.weight, .base_layer.lora_A.weight, …       stacked parameters, outermost first
    <module>.bias, <module>.base_layer.bias                    bias="all" | "lora_only"
    <module>.<parameter>                                       modules_to_save, saved embeddings

An older PEFT put the adapter's name into the keys (`.lora_A.default.weight`). Nothing is ignored.
Knows tensors and names; knows no files and no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from detour.adapter.peft_config import CONFIG_FILE, PeftConfig, stack_key
from detour.adapter.unbound import Stack, TokenRows, Unbound
from detour.adapter.update import Update
from detour.errors import AdapterFormatError, AdapterWeightsError, UnsupportedVariant
from detour.language.catalogue import text

LONGEST_NAME = 300  # characters: a longer one names no tensor, and Python reads its numbers not
_PREFIX = "base_model.model."
_ENDINGS = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_B.bias": "bias of B",
    "lora_embedding_A": "embedding A",
    "lora_embedding_B": "embedding B",
    "lora_magnitude_vector": "magnitude",
    "lora_magnitude_vector.weight": "magnitude",
    "token_adapter.trainable_tokens_delta": "tokens",
}
_NAMED = re.compile(
    r"\.(lora_[AB]|lora_embedding_[AB]|lora_magnitude_vector|trainable_tokens_delta)\.default"
    r"(?=\.|$)"
)


@dataclass
class _Layer:
    """The tensors of one layer, by what they are."""

    parts: dict[str, Tensor] = field(default_factory=dict[str, Tensor])
    keys: list[str] = field(default_factory=list[str])

    def get(self, part: str) -> Tensor | None:
        return self.parts.get(part)


def from_tensors(
    tensors: Mapping[str, Tensor], config: PeftConfig
) -> tuple[dict[str, Update], Unbound]:
    """The updates and whole values that PEFT's tensors mean under a configuration.

    Raises:
        AdapterFormatError: a tensor of unknown meaning.
        AdapterWeightsError: half of a pair; a rank that the configuration does not state; NaN.
        UnsupportedVariant: a tensor of a variant that cannot be held in a slot.
    """
    layers, whole = _sorted_out(tensors)
    biased = sum("bias of B" in layer.parts for layer in layers.values())
    updates: dict[str, Update] = {}
    magnitudes: dict[str, Tensor] = {}
    tokens: dict[str, TokenRows] = {}
    stacks: list[Stack] = []
    for name in sorted(layers, key=_as_counted):
        layer = layers[name]
        if (rows := layer.parts.pop("tokens", None)) is not None:
            tokens[name] = _token_rows(name, rows, config)
        if (magnitude := layer.parts.pop("magnitude", None)) is not None:
            magnitudes[name] = magnitude.reshape(-1)
        if not layer.parts:
            continue
        down, up, lookup = _pair(name, layer)
        is_stack = _is_stack(name, down, config)
        _refuse_more(layer, lookup, is_stack)
        if is_stack:
            stacks.append(_stack(name, down, up, config))
        else:
            updates[name] = _update(name, layer, (down, up, lookup), config)
    biases = {n.removesuffix(".bias"): t for n, t in whole.items() if _is_plain_bias(n, t)}
    weights = {n: t for n, t in whole.items() if not _is_plain_bias(n, t)}
    unbound = Unbound(
        magnitudes, biases, weights, tokens, _counted(stacks), config.target_parameters
    )
    _check_stated(config, updates, unbound, biased)
    _check_targets(config, updates)
    return updates, unbound


def _sorted_out(tensors: Mapping[str, Tensor]) -> tuple[dict[str, _Layer], dict[str, Tensor]]:
    """Layers by name with their parts; and whole parameters by name."""
    layers: dict[str, _Layer] = {}
    whole: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if not key.startswith(_PREFIX) or len(key) > LONGEST_NAME:
            raise _unknown(key[:LONGEST_NAME])
        name = _NAMED.sub(r".\1", key.removeprefix(_PREFIX))
        ending = next((e for e in _ENDINGS if name.endswith("." + e)), None)
        if ending is None:
            place = name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")
            if "lora_" in name or "token_adapter" in name:
                raise _foreign(key)
            _put(whole, place, tensor, key)
        else:
            layer = layers.setdefault(name.removesuffix("." + ending), _Layer())
            _put(layer.parts, _ENDINGS[ending], tensor, key)
            layer.keys.append(key)
    return layers, whole


def _put(place: dict[str, Tensor], name: str, tensor: Tensor, key: str) -> None:
    if name in place:
        raise AdapterFormatError(
            text("the adapter holds {name} twice", name=name),
            expected=text("one tensor for it"),
            found=key,
        )
    place[name] = tensor


def _unknown(key: str) -> AdapterFormatError:
    return AdapterFormatError(
        text("the adapter holds a tensor of unknown meaning"),
        expected="base_model.model.<layer>.lora_A.weight, base_model.model.<layer>.lora_B.weight",
        found=key,
        hint=text("PEFT's save_pretrained names tensors like that"),
    )


def _foreign(key: str) -> UnsupportedVariant:
    return UnsupportedVariant(
        text("the adapter holds tensors of a variant that is not applied"),
        expected=", ".join(dict.fromkeys(_ENDINGS)),
        found=key,
        hint=text("train it as plain LoRA"),
    )


def _as_counted(layer: str) -> list[tuple[int, str]]:
    """A key that sorts layers.2 before layers.10; files keep their tensors in no fixed order."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in layer.split(".")]


def _pair(name: str, layer: _Layer) -> tuple[Tensor, Tensor, bool]:
    """Down, up, and whether they are an embedding's."""
    for prefix, lookup in (("", False), ("embedding ", True)):
        down, up = layer.get(prefix + "A"), layer.get(prefix + "B")
        if down is not None and up is not None:
            return down, up, lookup
    there = next((side for side in "AB" if any(f"_{side}" in key for key in layer.keys)), "B")
    raise AdapterWeightsError(
        text(
            "{layer} has lora_{there} without lora_{missing}",
            layer=name,
            there=there,
            missing="B" if there == "A" else "A",
        ),
        expected=text("both factors"),
        found=", ".join(layer.keys),
        hint=text("copy or download it again"),
    )


def _refuse_more(layer: _Layer, lookup: bool, is_stack: bool) -> None:
    """Raise UnsupportedVariant for parts that would be left over beside the pair of a layer."""
    meant = {"embedding A", "embedding B"} if lookup else {"A", "B"}
    meant |= set[str]() if lookup or is_stack else {"bias of B"}
    if layer.parts.keys() - meant:
        raise UnsupportedVariant(
            text("the adapter holds tensors that do not belong together on one layer"),
            expected=", ".join(sorted(meant)),
            found=", ".join(layer.keys),
        )


def _update(
    name: str, layer: _Layer, pair: tuple[Tensor, Tensor, bool], config: PeftConfig
) -> Update:
    down, up, lookup = pair
    if up.ndim == down.ndim > 2 and set(up.shape[2:]) == {1}:  # convolutions: (out, rank, 1, 1)
        up = up.flatten(1)
    rank = config.rank(name)
    if down.ndim < 2 or up.ndim != 2 or (down.shape[0], up.shape[1]) != (rank, rank):
        raise _wrong_rank(name, rank, pair)
    scale, bias = config.scale(name), layer.get("bias of B")
    try:
        shift = None if bias is None or not bool(bias.any()) else bias.float() * scale
        return Update(down, up, scale, bias_delta=shift, lookup=lookup)
    except AdapterWeightsError as cause:
        raise cause.at(name) from cause


def _wrong_rank(name: str, rank: int, pair: tuple[Tensor, Tensor, bool]) -> AdapterWeightsError:
    return AdapterWeightsError(
        text(
            "the factors of {layer} do not have the rank that {config_file} states",
            layer=name,
            config_file=CONFIG_FILE,
        ),
        expected=f"lora_A ({rank}, in) and lora_B (out, {rank})",
        found=f"lora_A {tuple(pair[0].shape)} and lora_B {tuple(pair[1].shape)}",
        hint=text("the configuration belongs to other weights; copy both from one save"),
    )


def _token_rows(name: str, rows: Tensor, config: PeftConfig) -> TokenRows:
    indices = config.token_indices
    ending = next((n for n in indices if n and f".{name}".endswith(f".{n}")), "")
    ids = indices.get(ending, ())
    if rows.ndim != 2 or len(ids) != rows.shape[0]:
        raise AdapterWeightsError(
            text(
                "the token rows of {layer} are not those of {config}",
                layer=name,
                config=CONFIG_FILE,
            ),
            expected=text("a row for each of {count} ids", count=len(ids)),
            found=str(tuple(rows.shape)),
            hint=text("the configuration belongs to other weights; copy both from one save"),
        )
    return TokenRows(ids, rows)


def _is_stack(name: str, down: Tensor, config: PeftConfig) -> bool:
    """Factors of a parameter: the configuration names one of this module, and not the module."""
    if not config.target_parameters or down.ndim != 2:
        return False
    module = _without_wrappers(name)
    holders = [target.rpartition(".")[0] for target in config.target_parameters]
    is_named = any(h and (h == module or module.endswith("." + h)) for h in holders)
    return is_named or ("" in holders and not config.targets(module))


def _without_wrappers(name: str) -> str:
    while name.endswith(".base_layer"):
        name = name.removesuffix(".base_layer")
    return name


def _stack(name: str, down: Tensor, up: Tensor, config: PeftConfig) -> Stack:
    rank = config.rank(_without_wrappers(name))
    fits = down.ndim == up.ndim == 2 and down.shape[0] == up.shape[1] and not down.shape[0] % rank
    if not fits or 0 in down.shape or 0 in up.shape:
        raise _wrong_rank(name, rank, (down, up, False))
    module = _without_wrappers(name)
    config.refuse_patterns(module)
    depth = (len(name) - len(module)) // len(".base_layer")
    return Stack(module, depth, down, up, rank, config.scale(module))


def _counted(stacks: list[Stack]) -> tuple[Stack, ...]:
    return tuple(sorted(stacks, key=lambda stack: (_as_counted(stack.module), stack.depth)))


def _check_stated(
    config: PeftConfig, updates: Mapping[str, Update], unbound: Unbound, biased: int
) -> None:
    """What the configuration states is there, and nothing that it does not state."""
    saved = {name.rpartition(".")[0] for name in unbound.weights}
    linear = [name for name, update in updates.items() if not update.lookup]
    facts = {
        "use_dora": (set(updates) if config.use_dora else set[str](), set(unbound.magnitudes)),
        "lora_bias": ({str(len(linear)) if config.lora_bias else "0"}, {str(biased)}),
        "modules_to_save": (
            {
                name
                for name in config.modules_to_save
                if not any(_ends(one, name) or f".{name}." in f".{one}." for one in saved)
            },  # a saved module may have parts
            set[str](),
        ),
        "trainable_token_indices": ({str(len(config.token_indices))}, {str(len(unbound.tokens))}),
        "target_parameters": (
            {str(bool(config.target_parameters))},
            {str(bool(unbound.stacks))},
        ),
    }
    for key, (stated, there) in facts.items():
        if stated != there:
            raise AdapterWeightsError(
                text("the weights are not those that {key} states", key=key),
                expected=text("{what} by {config}", what=_told(stated - there), config=CONFIG_FILE),
                found=_told(there - stated),
                hint=text("the configuration belongs to other weights; copy both from one save"),
            )


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith("." + end) or f".{end}." in f".{name}"


def _check_targets(config: PeftConfig, updates: Mapping[str, Update]) -> None:
    """PEFT would leave out tensors of layers that a list of targets does not name.

    By the last part of their names, since the parts before it differ between versions.
    """
    if isinstance(config.target_modules, str) or not config.target_modules:
        return
    ends = {name.rpartition(".")[2] for name in config.target_modules}
    strays = [n for n in updates if not config.targets(n) and n.rpartition(".")[2] not in ends]
    if strays:
        raise AdapterWeightsError(
            text("the weights are not those that {key} states", key="target_modules"),
            expected=", ".join(sorted(ends)),
            found=_told(set(strays)),
            hint=text("the configuration belongs to other weights; copy both from one save"),
        )


def _told(names: set[str]) -> str:
    return ", ".join(sorted(names)[:4]) or text("none")


def _is_plain_bias(name: str, tensor: Tensor) -> bool:
    return name.endswith(".bias") and tensor.ndim == 1


def to_tensors(updates: Mapping[str, Update], unbound: Unbound) -> dict[str, Tensor]:
    """PEFT's tensors for updates and whole values; the inverse of `from_tensors`.

    Raises:
        UnsupportedVariant: an update that only its base can turn into PEFT's values.
    """
    named = {**dict(_of_updates(updates)), **dict(_of_unbound(unbound, updates))}
    # cloned: safetensors refuses tensors that share memory
    return {_PREFIX + key: tensor.cpu().clone().contiguous() for key, tensor in named.items()}


def _of_updates(updates: Mapping[str, Update]) -> Iterator[tuple[str, Tensor]]:
    with_bias = any(update.bias_delta is not None for update in updates.values())
    for layer, update in updates.items():
        _check_writable(layer, update, with_bias)
        if update.lookup:
            yield f"{layer}.lora_embedding_A", update.down
            yield f"{layer}.lora_embedding_B", update.up
            continue
        yield f"{layer}.lora_A.weight", update.down
        yield (
            f"{layer}.lora_B.weight",
            update.up.reshape(*update.up.shape, *[1] * (update.down.ndim - 2)),
        )
        if with_bias:
            yield f"{layer}.lora_B.bias", _bias_of_up(update)


def _bias_of_up(update: Update) -> Tensor:
    """The bias b of `up` with b · scale the shift, to the last bit where there is such a b."""
    if update.bias_delta is None:
        return torch.zeros(update.out_features)
    wanted = update.bias_delta.float()
    near = wanted / update.scale
    up, down = (
        torch.nextafter(near, torch.full_like(near, end)) for end in (torch.inf, -torch.inf)
    )
    for other in (up, down):
        near = torch.where(
            (near * update.scale != wanted) & (other * update.scale == wanted), other, near
        )
    return near


def _check_writable(layer: str, update: Update, with_bias: bool) -> None:
    faults = {
        text("a row scale"): update.row_scale is not None,
        text("no factors"): update.rank == 0,
        text("an expert of a stacked parameter"): layer.endswith("]"),
        text("a scale of 0 beside a bias"): update.bias_delta is not None and update.scale == 0,
        text("an embedding beside biases"): update.lookup and with_bias,
    }
    for fault, there in faults.items():
        if there:
            raise UnsupportedVariant(
                text(
                    "{layer} has {fault}, which PEFT's format cannot hold", layer=layer, fault=fault
                ),
                expected=text("two factors and a scale"),
                found=fault,
                hint=text("save the adapters as they were read, and chain them when they are used"),
            )


def _of_unbound(unbound: Unbound, updates: Mapping[str, Update]) -> Iterator[tuple[str, Tensor]]:
    for layer, magnitude in unbound.magnitudes.items():
        ndim = updates[layer].down.ndim if layer in updates else 2
        shape = (1, -1, *[1] * (ndim - 2)) if ndim > 2 else (-1,)
        yield f"{layer}.lora_magnitude_vector", magnitude.reshape(shape)
    for layer, bias in unbound.biases.items():
        wrapped = ".base_layer" if layer in updates else ""
        yield f"{layer}{wrapped}.bias", bias
    for name, tensor in unbound.weights.items():
        module, _, parameter = name.rpartition(".")
        wrapped = ".base_layer" if module in updates else ""
        yield f"{module}{wrapped}.{parameter}", tensor
    for name, tokens in unbound.tokens.items():
        yield f"{name}.token_adapter.trainable_tokens_delta", tokens.rows
    for stack in unbound.stacks:
        yield f"{stack_key(stack)}.lora_A.weight", stack.down
        yield f"{stack_key(stack)}.lora_B.weight", stack.up
