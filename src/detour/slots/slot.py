"""A slot: a frozen linear layer, and what it holds at the moment.

An empty slot calls the layer's own forward and nothing else, so it is bit-equal to the layer. The
module stays where it is, with its name, its class and its weight: only the instance's `forward` is
set. A slot knows its one layer; it knows neither the model nor who fills it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear
from transformers.pytorch_utils import Conv1D

from detour.slots.arithmetic import Rows, add
from detour.slots.content import Content


@dataclass
class Current:
    """What all slots of one model have in common while they are held: the row index."""

    rows: Rows | None = None


def fits(module: nn.Module) -> bool:
    """Whether a slot can act on the module: linear layers whose forward really is called.

    `nn.MultiheadAttention` reads its output projection's weight itself, so that one is left out.
    """
    return isinstance(module, nn.Linear | Conv1D) and not isinstance(
        module, NonDynamicallyQuantizableLinear
    )


def shape_of(module: nn.Module) -> tuple[int, int]:
    """(out, in), whichever way round the kind of layer keeps its weight."""
    if isinstance(module, Conv1D):
        return module.nf, module.nx
    assert isinstance(module, nn.Linear)
    return module.out_features, module.in_features


class Slot:
    """Stands in for one module's `forward`: the layer's own output, plus its content's."""

    def __init__(self, module: nn.Module, current: Current) -> None:
        self.module = module
        self.shape = shape_of(module)
        self.current = current
        self.content: Content | None = None
        self._own = module.__dict__.get("forward")
        self._original = module.forward

    def __call__(self, input: Float[Tensor, "*lead in"]) -> Float[Tensor, "*lead out"]:
        """The name `input` is that of the layers' own forward."""
        y = self._original(input)
        if self.content is None:
            return y
        return add(y, input, self.content, self.current.rows)

    def attach(self) -> None:
        """Set the instance's `forward`; nothing else on the module changes."""
        self.module.forward = self  # pyright: ignore[reportAttributeAccessIssue]

    def detach(self) -> None:
        """The inverse of attach: what was on the instance before is there again."""
        del self.module.__dict__["forward"]
        if self._own is not None:
            self.module.__dict__["forward"] = self._own

    def __deepcopy__(self, memo: dict[int, object]) -> object:
        """A copied model gets the layers' own forward: it can be given slots of its own."""
        return deepcopy(self._original, memo)
