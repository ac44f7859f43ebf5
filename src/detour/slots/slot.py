"""A slot: a frozen layer, and what it holds at the moment.

An empty slot calls the layer's own forward and nothing else, so it is bit-equal to the layer. The
module stays where it is, with its name, its class and its weight: only the instance's `forward` is
set. A slot knows its one layer; it knows neither the model nor who fills it.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import cast

from torch import Tensor, nn

from detour.slots.arithmetic import Rows, add, add_hidden
from detour.slots.content import Content
from detour.slots.kinds import Kind, hidden_of, kind_of, shape_of
from detour.slots.products import Products


@dataclass
class Current:
    """What all slots of one model have in common: the row index while they are held, and who
    computes the layers' own products, where that is not left to the layers.
    """

    rows: Rows | None = None
    products: Products | None = None


class Slot:
    """Stands in for one module's `forward`: the layer's own output, plus its content's."""

    def __init__(self, module: nn.Module, current: Current) -> None:
        kind = kind_of(module)
        assert kind is not None
        self.module = module
        self.kind = kind
        self.shape = shape_of(module)
        self.current = current
        self.content: Content | None = None
        self._own = module.__dict__.get("forward")
        self._original = module.forward
        own = nn.Linear.forward if self._own is None else getattr(self._own, "__func__", None)
        self._plain = own is type(module).forward is nn.Linear.forward

    def __call__(self, input: Tensor) -> Tensor:
        """The name `input` is that of the layers' own forward; shapes are the layer's."""
        y = self._output(input)
        if self.content is None:
            return y
        if self.kind is Kind.LINEAR:
            return add(y, input, self.content, self.current.rows)
        # channels last, as the output of every other layer
        is_image = self.kind is Kind.CONVOLUTION
        outputs = 1 - self.module.get_parameter("weight").ndim if is_image else -1
        moved = y.movedim(outputs, -1)
        changed = add_hidden(
            moved,
            lambda down: hidden_of(self.module, input, down),
            self.content,
            self.current.rows,
        )
        return changed.movedim(-1, outputs)

    def _output(self, x: Tensor) -> Tensor:
        """The layer's own output."""
        if self._plain and self.current.products is not None:
            return self.current.products.linear(cast("nn.Linear", self.module), x)
        return self._original(x)

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
