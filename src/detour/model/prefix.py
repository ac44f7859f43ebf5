"""What the layers below the lowest adapted one say of a row, computed once.

Where nothing acts on the first layers of a decoder, their output for a row is the same in every
epoch. The first forward keeps what enters the lowest adapted layer; later ones put it there and
pass the layers before it by. Knows models whose layers lie in one list; knows no adapters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel


class Prefix:
    """The kept states of one model's layers below `place`, by the ids of their rows."""

    def __init__(self, layers: nn.ModuleList, place: int, limit: int) -> None:
        self.layers, self.place = layers, place
        self._limit = limit
        self._kept: dict[bytes, Float[Tensor, "tokens width"]] = {}
        self.taken = 0
        """Bytes of what is kept."""

    @staticmethod
    def below(model: PreTrainedModel, adapted: Iterable[str], limit: int) -> Prefix | None:
        """The layers below the lowest one that something acts on; at most `limit` bytes are kept.

        `adapted` are names of modules in the model. None where the first layer is among them, or
        anything before the layers, or where the layers are not one list.
        """
        found = decoder_layers(model)
        if found is None:
            return None
        path, layers = found
        inside = re.compile(re.escape(path) + r"\.(\d+)\.")
        after = [name for name in adapted if not inside.match(name)]
        places = [int(m[1]) for name in adapted if (m := inside.match(name))]
        head = model.get_output_embeddings()
        outside = [name for name in after if model.get_submodule(name) is not head]
        if outside or not places or min(places) == 0:
            return None
        return Prefix(layers, min(places), limit)

    def is_plain(self, run: Callable[[], object]) -> bool:
        """Whether the layers to be passed by take and give one tensor each."""
        plain: list[bool] = []

        def look(_: nn.Module, arguments: tuple[Any, ...], output: object) -> None:
            plain.append(bool(arguments) and isinstance(output, Tensor))

        handles = [layer.register_forward_hook(look) for layer in self.layers[: self.place]]
        try:
            run()
        finally:
            for handle in handles:
                handle.remove()
        return len(plain) == self.place and all(plain)

    @contextmanager
    def around(self, rows: Sequence[Int[Tensor, " tokens"]]) -> Generator[None]:
        """Around one forward of the model on these rows, laid in one line.

        What is known of all of them is used; else the whole model runs, and it is kept while there
        is room.
        """
        keys = [row.cpu().numpy().tobytes() for row in rows]
        known = [self._kept[key] for key in keys if key in self._kept]
        if len(known) == len(keys):
            with self._passed_by(torch.cat(known)[None]):
                yield
            return
        caught: list[Tensor] = []

        def catch(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            caught.append(arguments[0].detach())

        handle = self.layers[self.place].register_forward_pre_hook(catch)
        try:
            yield
        finally:
            handle.remove()
        for key, states in zip(keys, caught[0][0].split([len(row) for row in rows]), strict=True):
            self._keep(key, states)

    def _keep(self, key: bytes, states: Tensor) -> None:
        size = states.numel() * states.element_size()
        if key not in self._kept and self.taken + size <= self._limit:
            self._kept[key] = states.clone()
            self.taken += size

    @contextmanager
    def _passed_by(self, states: Float[Tensor, "1 tokens width"]) -> Generator[None]:
        before = list(self.layers)[: self.place]

        def enter(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
            return (states, *arguments[1:])

        handle = self.layers[self.place].register_forward_pre_hook(enter)
        own = [layer.__dict__.get("forward") for layer in before]
        for layer in before:
            layer.forward = _as_it_comes
        try:
            yield
        finally:
            handle.remove()
            for layer, forward in zip(before, own, strict=True):
                if forward is None:
                    del layer.forward
                else:
                    layer.forward = forward


def _as_it_comes(states: Tensor, *_: Any, **__: Any) -> Tensor:  # noqa: ANN401
    return states


def decoder_layers(model: PreTrainedModel) -> tuple[str, nn.ModuleList] | None:
    """The list of the model's decoder layers, with its name in the model; None if not one list."""
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    found = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    return found[0] if len(found) == 1 else None
