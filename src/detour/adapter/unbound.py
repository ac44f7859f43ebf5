"""What an adapter says in whole values rather than in changes.

DoRA's magnitudes, trained biases, saved modules, retrained token rows and the factors of stacked
experts mean a change only beside the base that they were made for. They are kept as they were read
until `model/binding.py` makes updates of them. Knows tensors and names; knows no model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from detour.adapter.update import FLOATS, all_finite
from detour.errors import AdapterWeightsError
from detour.language.catalogue import text


@dataclass(frozen=True, eq=False)
class TokenRows:
    """Vectors that take the place of an embedding's own.

    Attributes:
        ids: which ids they are of.
        rows: (ids, width), in the order of `ids`.
    """

    ids: tuple[int, ...]
    rows: Float[Tensor, "ids width"]


@dataclass(frozen=True, eq=False)
class Stack:
    """Factors of all experts of one stacked parameter, laid out as PEFT's `target_parameters`.

    Attributes:
        module: the module that holds the parameter.
        depth: how many wrappers of the same module lie outside of this one; the file names only
            that, not the parameter.
        down: (experts · rank, in).
        up: (out, rank · experts), the expert counting fastest.
        rank: of each expert.
        scale: LoRA's alpha / rank.
    """

    module: str
    depth: int
    down: Float[Tensor, "experts_rank in"]
    up: Float[Tensor, "out rank_experts"]
    rank: int
    scale: float

    def factors(self, expert: int) -> tuple[Float[Tensor, "rank in"], Float[Tensor, "out rank"]]:
        """Down and up of one expert."""
        experts = self.down.shape[0] // self.rank
        down = self.down.reshape(experts, self.rank, -1)[expert]
        return down, self.up.reshape(self.up.shape[0], self.rank, experts)[:, :, expert]


@dataclass(frozen=True, eq=False)
class Unbound:
    """Whole values, by name.

    Attributes:
        magnitudes: layer to DoRA's (out), the length of each row of the changed weight (Liu et al.
            2024, arXiv:2402.09353).
        biases: layer to the (out) that takes its bias's place.
        weights: parameter to the value that takes its place (modules_to_save, saved embeddings).
        tokens: embedding to the rows that take the place of its own.
        stacks: factors for stacked parameters.
        stacked_names: the parameters that they are for, as the configuration names them.

    Raises:
        AdapterWeightsError: values that are not finite floating point numbers.
    """

    magnitudes: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    biases: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    weights: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    tokens: Mapping[str, TokenRows] = field(default_factory=dict[str, TokenRows])
    stacks: tuple[Stack, ...] = ()
    stacked_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, tensor in self.named_tensors():
            if tensor.dtype not in FLOATS or not all_finite(tensor):
                raise AdapterWeightsError(
                    text("{name} of the adapter cannot be used", name=name),
                    expected=text("finite numbers"),
                    found=text("NaN, infinity or whole numbers ({dtype})", dtype=tensor.dtype),
                    hint=text("the training diverged or the file is damaged; take an earlier save"),
                )

    def __bool__(self) -> bool:
        parts = (self.magnitudes, self.biases, self.weights, self.tokens, self.stacks)
        return any(parts)

    @property
    def parameters(self) -> int:
        """Numbers that it holds."""
        return sum(tensor.numel() for _, tensor in self.named_tensors())

    @property
    def names(self) -> list[str]:
        """Layers and parameters that it speaks of."""
        named = (self.magnitudes, self.biases, self.weights, self.tokens)
        return sorted({*(n for names in named for n in names), *(s.module for s in self.stacks)})

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """Every tensor under a name of its own, in a fixed order."""
        kinds = (("magnitude", self.magnitudes), ("bias", self.biases), ("weight", self.weights))
        for kind, tensors in kinds:
            yield from ((f"{name}.whole_{kind}", tensors[name]) for name in sorted(tensors))
        for name in sorted(self.tokens):
            yield f"{name}.tokens.{list(self.tokens[name].ids)}", self.tokens[name].rows
        for stack in sorted(self.stacks, key=lambda one: (one.module, one.depth)):
            place = f"{stack.module}.stack.{stack.depth}"
            yield f"{place}.down", stack.down
            yield f"{place}.up", stack.up
            yield f"{place}.scale", torch.tensor(stack.scale, dtype=torch.float32)
