"""A chain added to a base's own weights: a model for whatever knows no adapters.

Everything is summed in fp32 on plain weights and rounded once, at the end. What comes out must say
what the base says under the chain: both are compared before the folder is put in its place. Knows
bases, chains and folders of models; trains nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from detour.adapter.chain import Chain
from detour.adapter.update import Update
from detour.errors import AdapterWeightsError, BaseError, ChainError, ConfigError, SlotError
from detour.files import check_writable, replace_folder_atomically
from detour.language.catalogue import text
from detour.model.base import AnyChain, Base
from detour.model.loading import quietly
from detour.model.quantized import method_of
from detour.slots.kinds import Kind
from detour.slots.parameter import find

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""Of the largest logit: rounding over all layers in fp32, and of weights kept in 8 bits."""
LOST = 0.4  # of what the chain moves; half a merge loses .5, rounding to bfloat16 some .2
PROBE_ROWS, PROBE_TOKENS = 2, 16


def merge(
    base: Base, chain: AnyChain, folder: Path, dtype: torch.dtype = torch.float32, readme: str = ""
) -> float:
    """Write the base with the chain in its weights; the largest difference of their logits.

    Args:
        base: in float32, not packed.
        chain: what is added.
        folder: new, or empty.
        dtype: of the written weights: float32 or bfloat16.
        readme: the model's card.

    Raises:
        BaseError: packed weights, or a base that is not in float32.
        ChainError: a chain that holds nothing.
        ConfigError: the folder holds something.
        SlotError: a change that the model's own form has no place for.
        AdapterWeightsError: the merged model does not say the same; nothing is written.
        StorageError: it cannot be written. As `Base.bind` besides.
    """
    _check(base, folder)
    bound = base.bind(chain)
    if not bound.terms:
        raise ChainError(text("there is nothing to merge"), expected=text("an adapter"))
    check_writable(folder)
    state = merged_state(base, bound)
    differences: list[float] = []

    def fill(place: Path) -> None:
        _write(base, state, place, dtype, readme)
        differences.append(_difference(base, bound, place, CLOSE[dtype]))

    replace_folder_atomically(folder, fill)
    return differences[0]


def merged_state(base: Base, chain: Chain) -> dict[str, Tensor]:
    """All weights by name, changed ones in fp32 or wider; `chain` is bound to the base.

    Raises:
        SlotError: an added bias where the layer has none.
    """
    state: dict[str, Tensor] = {n: t.cpu() for n, t in base.model.state_dict().items()}
    for name, pairs in chain.updates().items():
        change = Update.sum(pairs)
        if name in base.slots.kinds:
            state |= _layer(base, name, change, state)
        else:
            state |= _parameter(base.model, name, change, state)
    return state


def _check(base: Base, folder: Path) -> None:
    if method_of(base.model.config):
        raise BaseError(
            text("{name} is packed, and packed weights take no changes", name=base.name),
            expected=text("plain weights"),
            found=method_of(base.model.config),
            hint=text("merge into the unquantised model, and quantise what comes out"),
        )
    if base.dtype != torch.float32:
        raise BaseError(
            text("a chain is merged in float32"), expected="--dtype float32", found=str(base.dtype)
        )
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(
            text("{path} is there already", path=folder),
            expected=text("a new or empty folder"),
            hint=text("choose another name"),
        )


def _layer(base: Base, name: str, change: Update, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A layer with a slot: W + diag(row scale) W + ΔW, and its bias."""
    module = base.slots.module(name)
    weight = state[f"{name}.weight"]
    turned = isinstance(module, Conv1D) or base.slots.kinds[name] is Kind.EMBEDDING
    own = _exact(weight.mT if turned else weight)  # (out, *in)
    new = own + change.delta().to(own).reshape(own.shape)
    if change.row_scale is not None:
        new += change.row_scale.to(own).reshape(-1, *(1 for _ in own.shape[1:])) * own
    found = {f"{name}.weight": (new.mT if turned else new).contiguous()}
    shift = _shift(name, module, change)
    return {**found, f"{name}.bias": shift} if shift is not None else found


def _shift(name: str, module: nn.Module, change: Update) -> Float[Tensor, " out"] | None:
    """The layer's new bias; None where it stays as it is."""
    bias = getattr(module, "bias", None)
    if isinstance(bias, Tensor):
        own = _exact(bias.detach())
        scaled = own if change.row_scale is None else own + change.row_scale.to(own) * own
        return scaled if change.bias_delta is None else scaled + change.bias_delta.to(own)
    if change.bias_delta is not None and bool(change.bias_delta.any()):
        raise SlotError(
            text("{name} has no bias that could be changed", name=name),
            expected=text("a chain of factors, without trained biases of such layers"),
            hint=text("this chain acts in slots only"),
        )
    return None


def _parameter(
    model: PreTrainedModel, key: str, change: Update, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A parameter without a slot: whole, or one expert of its stack."""
    place = find(model, key)
    assert place is not None  # the slots have checked every name
    name = key.rpartition("[")[0]
    whole = _exact(state[name]).clone()
    part = whole if place.expert is None else whole[place.expert]
    delta = change.delta().to(part)
    part += (delta.mT if place.is_transposed else delta).reshape(part.shape)
    return {name: whole}


def _write(
    base: Base, state: Mapping[str, Tensor], folder: Path, dtype: torch.dtype, readme: str
) -> None:
    model = base.share().model
    model.config = copy.deepcopy(base.model.config)
    written = dict(state)
    for first, *others in _shared(base.model):
        if all(torch.equal(state[first], state[other]) for other in others):
            for other in others:
                del written[other]  # it is found under its first name
        else:
            model.config.tie_word_embeddings = False
            model.config.get_text_config().tie_word_embeddings = False
    cast_down = {n: t.to(dtype) if t.is_floating_point() else t for n, t in written.items()}
    with quietly():
        model.save_pretrained(folder, state_dict=cast_down)
        model.config.dtype = dtype  # the line above says that of the model in memory
        model.config.save_pretrained(folder)
    if base.tokenizer is not None:
        base.tokenizer.save_pretrained(folder)
    if readme:
        (folder / "README.md").write_text(readme, "utf-8")
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors lets nobody else read what it writes


def _shared(model: nn.Module) -> list[list[str]]:
    """Names under which one and the same parameter stands, such as a tied head's."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [found for found in names.values() if len(found) > 1]


def _difference(base: Base, chain: Chain, folder: Path, close: float) -> float:
    """The largest difference between the base under the chain and what stands in the folder.

    Raises:
        AdapterWeightsError: it is more than rounding, or what the chain moves has not arrived.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (PROBE_ROWS, PROBE_TOKENS)
    ids = torch.randint(0, base.engine.vocabulary, shape, generator=generator)
    bare, wanted = base.logits(ids).cpu(), base.logits(ids, chain).cpu()
    found = Base.load(str(folder), dtype="float32").logits(ids)
    difference = float((wanted - found).abs().max())
    if not difference <= close * max(1.0, float(wanted.abs().max())):
        raise AdapterWeightsError(
            text("the merged model does not say what the base says under the chain"),
            expected=text("the same logits, but for rounding"),
            found=text("a difference of {difference:.3g}", difference=difference),
            hint=text("keep the chain; nothing was written"),
        )
    share = _arrived(bare, wanted, found)
    if abs(share - 1) > LOST:
        raise AdapterWeightsError(
            text("the merged model does not say what the base says under the chain"),
            expected=text("logits that moved as far as the chain moves them"),
            found=text("{share:.0f} % of what the chain moves", share=100 * share),
            hint=text("nothing was written; rounding to bfloat16 takes small changes away: write "
                      "float32, or keep the chain"),
        )  # fmt: skip
    return difference


def _arrived(
    bare: Float[Tensor, "rows tokens vocab"],
    wanted: Float[Tensor, "rows tokens vocab"],
    found: Float[Tensor, "rows tokens vocab"],
) -> float:
    """How far from `bare` towards `wanted` the found logits are: 0 there, 1 here.

    Along that direction only, for rounding points in every other as well. A chain that moves less
    than rounding in float32, such as a − a, shows nothing and counts as arrived.
    """
    moved = wanted - bare
    if float(moved.norm()) <= CLOSE[torch.float32] * float(wanted.norm()):
        return 1.0
    return float(((found - bare) * moved).sum() / moved.square().sum())


def _exact(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).cpu()
