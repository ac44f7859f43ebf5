"""What a training costs: floating-point operations, energy, money.

Operations are estimated from how many tokens went through the base and its head while it ran, which
hooks count. Of a base of N parameters in its layers, an adapter of P and a head of H, a token takes

    forward                        2 (N + P)
    backward, where it is learned  2 f N + 4 P
    head, where it is judged       2 H, and 2 H more where it is learned

with f the share of N at or above the lowest adapted layer: below it no gradient is needed, and the
frozen layers above need one to their inputs only (Hu et al. 2021, arXiv:2106.09685; the 2N a token
are Kaplan et al. 2020's, arXiv:2001.08361). Attention, A numbers wide, takes 4 A more for each pair
of tokens of a row and each layer, and f times 8 A where it is learned. Padding counts where it is
computed; tokens whose first layers are passed by (`model.prefix`) count without those, and a layer
that runs once more in the backward (`model.recompute`) takes its forward again. Where all
weights are trained, P is 0 and f is 1, and a weight takes 2 more for its own gradient, those of the
head too. Optimiser, norms, nonlinearities and what DoRA adds are left out, as are heads for classes
and numbers.

Knows bases, adapters and numbers; how watts are measured is `energy`'s business.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from detour.adapter.adapter import Adapter
from detour.model.base import Base
from detour.model.headed import HeadedBase
from detour.model.prefix import share_passed_by
from detour.model.recompute import is_recomputed
from detour.slots.install import SlotSet
from detour.training.energy import Energy

AnyBase = Base | HeadedBase
_POOLER = ".pooler."
_PREFIXES = ("", "k", "M", "G", "T", "P", "E", "Z")


class Slotted(Protocol):
    """A model with slots, whether it holds weights or not."""

    @property
    def model(self) -> PreTrainedModel:
        """Its modules."""
        ...

    @property
    def slots(self) -> SlotSet:
        """On its layers."""
        ...


@dataclass
class Work:
    """What went through a base; learned means: with a gradient.

    Attributes:
        tokens: through the layers, padding included.
        learned: those of them with a gradient.
        pairs: of tokens of one row, squared row by row.
        learned_pairs: those with a gradient.
        judged: tokens through the head.
        judged_learned: those with a gradient.
        own: learned tokens without padding.
        again: learned tokens whose layers run once more in the backward.
        again_pairs: the same of pairs.
        passed: tokens, times the share of the layers that they passed by.
        passed_pairs: the same of pairs.
    """

    tokens: int = 0
    learned: int = 0
    pairs: int = 0
    learned_pairs: int = 0
    judged: int = 0
    judged_learned: int = 0
    own: int = 0
    again: int = 0
    again_pairs: int = 0
    passed: float = 0.0
    passed_pairs: float = 0.0

    def plus(self, other: Work, times: float = 1) -> Work:
        """The sum with another, so many times over."""
        return Work(**{name: count + type(count)(times * getattr(other, name))
                       for name, count in vars(self).items()})  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What a run took, with what it is known from.

    Attributes:
        flops: estimated, see the module.
        tokens: that were learned from, epoch after epoch, without padding.
        seconds: of the training.
        energy: what it took meanwhile, and how that is known.
        price: in the currency of the price per hour; None where nobody gave one.
    """

    flops: float
    tokens: int
    seconds: float
    energy: Energy
    price: float | None = None

    @property
    def operations(self) -> str:
        """The operations with a prefix, such as 3.21 TFLOP."""
        left, place = self.flops, 0
        while left >= 1000 and place < len(_PREFIXES) - 1:
            left, place = left / 1000, place + 1
        return f"{left:.3g} {_PREFIXES[place]}FLOP"

    def to_json(self) -> dict[str, Any]:
        """As `--json`, `eval.json` and the card have it."""
        return {
            "flops": int(float(f"{self.flops:.4g}")),
            "tokens": self.tokens,
            "seconds": round(self.seconds, 2),
            "energy_wh": float(f"{self.energy.watt_hours:.4g}"),
            "energy_source": self.energy.source,
            "watts": round(self.energy.watts, 1),
            "price": None if self.price is None else float(f"{self.price:.4g}"),
        }


@contextmanager
def counted(base: AnyBase, model: PreTrainedModel | None = None) -> Generator[Work]:
    """Count what goes through a base, or a copy of its model, for as long as the context lasts."""
    work = Work()
    head, _ = head_of(base)
    watched = model or base.model
    with ExitStack() as stack:
        body: nn.Module = watched.base_model
        hook = _layers_hook(work, watched)
        hooks = [body.register_forward_pre_hook(hook, with_kwargs=True)]
        if head:
            module = watched.get_submodule(head)
            hooks.append(module.register_forward_pre_hook(_head_hook(work)))
        for hook in hooks:
            stack.callback(hook.remove)
        yield work


def flops(base: AnyBase, adapter: Adapter | None, work: Work) -> float:
    """The operations of that work, by the formula of this module; without an adapter all learns."""
    if adapter is None:
        return whole_operations(base, work)
    return operations(base, {n: update.parameters for n, update in adapter.updates.items()}, work)


def operations(base: Slotted, adapted: Mapping[str, int], work: Work) -> float:
    """The same, of an adapter of which only the layers and their parameters are known."""
    sizes = layer_sizes(base)
    name, head = head_of(base)
    whole = sum(sizes.values())
    above = backward_share(sizes, [layer for layer in adapted if layer != name])
    own = sum(adapted.values())
    pairs = work.pairs - work.passed_pairs
    pairs += above * (2 * work.learned_pairs + work.again_pairs)
    attended = 4 * attention_width(base) * pairs
    forward = 2 * (whole + own) * work.tokens - 2 * whole * work.passed
    backward = (2 * above * whole + 4 * own) * work.learned
    backward += 2 * (above * whole + own) * work.again
    return forward + backward + attended + 2 * head * (work.judged + work.judged_learned)


def whole_operations(base: Slotted, work: Work) -> float:
    """The operations of that work where every weight learns."""
    layers, (_, head) = sum(layer_sizes(base).values()), head_of(base)
    pairs = work.pairs + 2 * work.learned_pairs + work.again_pairs
    attended = 4 * attention_width(base) * pairs
    of_layers = 2 * layers * (work.tokens + 2 * work.learned + work.again)
    return of_layers + attended + 2 * head * (work.judged + 2 * work.judged_learned)


def layer_sizes(base: Slotted) -> dict[str, float]:
    """How many parameters a token meets in each layer below the head, in the model's order.

    Of a mixture's experts those count that a token is sent to; a pooler sees one token of a row.
    """
    return {name: shape[0] * shape[1] * times for name, shape, times in met_layers(base)}


def met_layers(base: Slotted) -> Iterator[tuple[str, tuple[int, int], float]]:
    """Layers below the head in the model's order: name, (out, in), and how many a token meets."""
    shapes = {name: base.slots.shapes[name] for name in base.slots.linear_names()}
    for name, module in base.model.named_modules():
        if name in shapes:
            yield name, shapes[name], 0.0 if _POOLER in name else 1.0
            continue
        for own, parameter in module.named_parameters(recurse=False):
            if parameter.ndim == 3:
                experts, out, wide = parameter.shape
                share = _chosen(base, parameter) if "expert" in name else 1.0
                yield f"{name}.{own}", (out, wide), experts * share


def backward_share(sizes: dict[str, float], adapted: list[str]) -> float:
    """f: how much of the layers lies at or above the lowest adapted one.

    1 where something other than these layers is adapted, 0 where nothing of them is.
    """
    places = {name: place for place, name in enumerate(sizes)}
    if not adapted or not sizes:
        return 0.0
    lowest = min(places.get(name, 0) for name in adapted)
    return sum(list(sizes.values())[lowest:]) / sum(sizes.values())


def _chosen(base: Slotted, stacked: nn.Parameter) -> float:
    """The share of a stacked parameter's experts that a token is sent to; 1 where none is told."""
    config = base.model.config.get_text_config()
    chosen = getattr(config, "num_experts_per_tok", None)
    return min(1.0, chosen / stacked.shape[0]) if isinstance(chosen, int) else 1.0


def attention_width(base: Slotted) -> int:
    """Numbers of all heads of all layers; 0 for a model that names none."""
    config = base.model.config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(heads, int) or not isinstance(layers, int):
        return 0
    width = getattr(config, "head_dim", None) or int(config.hidden_size) // heads
    return layers * heads * width


def head_of(base: Slotted) -> tuple[str, int]:
    """The language model's head: its name and its parameters; ("", 0) in a base for classes."""
    inner = set(base.slots.linear_names())
    names = [name for name in base.slots.linear_names(exclude_head=False) if name not in inner]
    if not names:
        return "", 0
    out, wide = base.slots.shapes[names[0]]
    return names[0], out * wide


def _layers_hook(work: Work, model: PreTrainedModel) -> Any:  # noqa: ANN401 - torch's own type of a hook says no more
    def hook(_: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        ids: Tensor = named["input_ids"] if "input_ids" in named else given[0]
        rows, tokens = ids.shape
        ends: Tensor | None = named.get("cu_seq_lens_q")  # rows in one line attend to themselves
        pairs = rows * tokens**2 if ends is None else int(ends.diff().long().square().sum())
        work.tokens += rows * tokens
        work.pairs += pairs
        passed = share_passed_by(model)
        work.passed += passed * rows * tokens
        work.passed_pairs += passed * pairs
        if torch.is_grad_enabled():
            mask = named.get("attention_mask")
            own = mask if isinstance(mask, Tensor) and mask.shape == ids.shape else ids >= 0
            work.own += int(own.sum())
            work.learned += rows * tokens
            work.learned_pairs += pairs
            if is_recomputed(model):
                work.again += rows * tokens
                work.again_pairs += pairs

    return hook


def _head_hook(work: Work) -> Any:  # noqa: ANN401 - as above
    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> None:
        tokens = given[0].shape[:-1].numel()
        work.judged += tokens
        if torch.is_grad_enabled():
            work.judged_learned += tokens

    return hook
