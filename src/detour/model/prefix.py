"""What the layers below the lowest adapted one say of a row, computed once.

Where nothing acts on the first layers of a decoder, their output for a row is the same in every
epoch. What enters the lowest adapted layer is kept before the training; its forwards put it there
and pass the layers before it by. Kept in the same lines whether a run is new or resumed, so that
both end bit-equal. Knows models whose layers lie in one list; knows no adapters.
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
    """The states that enter the layer at `place` of one model, by the ids of their rows."""

    def __init__(self, layers: nn.ModuleList, place: int) -> None:
        self.layers, self.place = layers, place
        self._kept: dict[bytes, Float[Tensor, "tokens width"]] = {}

    @staticmethod
    def below(model: PreTrainedModel, adapted: Iterable[str]) -> Prefix | None:
        """The layers below the lowest one that something acts on.

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
        return Prefix(layers, min(places))

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

    def keep(
        self, rows: Sequence[Int[Tensor, " tokens"]], run: Callable[[Tensor, list[int]], object]
    ) -> None:
        """Keep what is known of these rows in one line; `run(ids, lengths)` is the model's forward.

        It ends before the layer at `place`. Nothing may act on the layers meanwhile.
        """

        def catch(_: nn.Module, arguments: tuple[Any, ...]) -> None:
            lengths = [len(row) for row in rows]
            states: tuple[Tensor, ...] = arguments[0].detach()[0].split(lengths)
            for row, own in zip(rows, states, strict=True):
                self._kept[_key(row)] = own.clone()
            raise _Enough

        handle = self.layers[self.place].register_forward_pre_hook(catch)
        try:
            with torch.no_grad():
                run(torch.cat(list(rows)), [len(row) for row in rows])
        except _Enough:
            pass
        finally:
            handle.remove()

    @property
    def taken(self) -> int:
        """Bytes of what is kept."""
        return sum(states.numel() * states.element_size() for states in self._kept.values())

    @contextmanager
    def around(self, rows: Sequence[Int[Tensor, " tokens"]]) -> Generator[None]:
        """Around one forward of the model on these rows in one line: passes by where all are known.

        With a row that is not, the whole model runs.
        """
        known = [self._kept[key] for row in rows if (key := _key(row)) in self._kept]
        if len(known) < len(rows):
            yield
            return
        with self._passed_by(torch.cat(known)[None]):
            yield

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


class _Enough(Exception):
    """Ends a forward whose rest nobody needs."""


def _key(row: Int[Tensor, " tokens"]) -> bytes:
    return row.cpu().numpy().tobytes()


def share_passed_by(model: PreTrainedModel) -> float:
    """How much of the decoder's layers the forward that runs now passes by."""
    found = decoder_layers(model)
    if found is None:
        return 0.0
    return sum(map(is_passed_by, found[1])) / len(found[1])


def is_passed_by(layer: nn.Module) -> bool:
    """Whether the forward that runs now passes this layer by."""
    return layer.__dict__.get("forward") is _as_it_comes


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
