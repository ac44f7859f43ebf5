"""Slots for a whole model: installing, holding contents, removing.

`install` puts an empty slot on every linear layer that is asked for; `SlotSet.hold` fills them for
one holder at a time and proves that every key landed; `remove` is the inverse of `install`. It
knows any `nn.Module`, but nothing of adapters' files, tokenizers or generation.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import cast

import torch
from jaxtyping import Int
from torch import Tensor, nn

from detour.errors import SlotError, SlotsBusy
from detour.language.catalogue import joined, text
from detour.slots.arithmetic import Rows
from detour.slots.content import Content
from detour.slots.prepare import Gates, prepared
from detour.slots.slot import Current, Slot, fits

Targets = str | Sequence[str]


def install(
    model: nn.Module, targets: Targets = "all-linear", include_head: bool = True
) -> SlotSet:
    """Put an empty slot on every linear layer that `targets` names.

    "all-linear" is every one; another string is a regular expression for the full name; of a list,
    each entry is a full name or its end behind a dot (PEFT's rules). Raises SlotError listing the
    targets that match no such layer, SlotsBusy when the model has slots already.
    """
    if any(isinstance(m.__dict__.get("forward"), Slot) for m in model.modules()):
        raise SlotsBusy(
            text("this model has slots already"), hint=text("remove() those, or share() the base")
        )
    head = _head_of(model)
    layers = {
        name: module
        for name, module in model.named_modules()
        if fits(module) and (include_head or module is not head)
    }
    current = Current()
    slots = {name: Slot(layers[name], current) for name in _matching(targets, list(layers))}
    return SlotSet(slots, current, head)


def _matching(targets: Targets, names: list[str]) -> list[str]:
    wanted = [targets] if isinstance(targets, str) else list(targets)
    by_pattern = isinstance(targets, str)
    unmatched = [t for t in wanted if not any(_matches(t, n, by_pattern) for n in names)]
    if unmatched or not wanted:
        raise SlotError(
            text(
                "targets that name no linear layer of the model: {names}",
                names=", ".join(map(repr, unmatched)),
            ),
            expected=text(
                "among {count} layers, such as {names}",
                count=len(names),
                names=", ".join(names[:3]) or text("none"),
            ),
        )
    return [n for n in names if any(_matches(t, n, by_pattern) for t in wanted)]


def _matches(target: str, name: str, by_pattern: bool) -> bool:
    if not by_pattern:
        return name == target or name.endswith("." + target)
    if target == "all-linear":
        return True
    try:
        return re.fullmatch(target, name) is not None
    except re.error as error:
        raise SlotError(
            text(
                "the target {target!r} is not a regular expression: {error}",
                target=target,
                error=error,
            ),
            hint=text("a list of layer names, or 'all-linear'"),
        ) from error


def _head_of(model: nn.Module) -> nn.Module | None:
    getter = getattr(model, "get_output_embeddings", None)
    return cast("nn.Module | None", getter()) if callable(getter) else None


class SlotSet:
    """The slots of one model. They have one holder at a time, whatever the thread."""

    def __init__(
        self, slots: Mapping[str, Slot], current: Current, head: nn.Module | None = None
    ) -> None:
        self._slots = dict(slots)
        self._current = current
        self._head = head
        self._lock = Lock()
        for slot in self._slots.values():
            slot.attach()

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every layer with a slot, by its name in the model."""
        return {name: slot.shape for name, slot in self._slots.items()}

    @property
    def landed(self) -> int:
        """How many layers hold something now."""
        return sum(slot.content is not None for slot in self._slots.values())

    def linear_names(self, exclude_head: bool = True) -> list[str]:
        """The layers with a slot, in the model's order; without the head unless asked for."""
        return [
            name
            for name, slot in self._slots.items()
            if not (exclude_head and slot.module is self._head)
        ]

    def named(self, targets: Targets) -> list[str]:
        """The layers that `targets` names, by the rules of `install`; the head only if named.

        Raises SlotError listing the targets that match no layer.
        """
        if targets == "all-linear":
            return self.linear_names()
        return _matching(targets, list(self._slots))

    @contextmanager
    def hold(self, contents: Mapping[str, Content]) -> Generator[SlotSet]:
        """Fill the slots for as long as the context lasts, then empty them.

        Frozen tensors are taken as they are now; those that require gradients stay live. Raises
        SlotError listing every key that names no slot or does not fit its layer, before anything
        is attached; SlotsBusy while somebody else holds the slots.
        """
        self._check_fit(contents)
        with self._held():
            try:
                self._fill(contents)
                yield self
            finally:
                for slot in self._slots.values():
                    slot.content = None

    @contextmanager
    def rows(self, index: Int[Tensor, "..."] | Sequence[int] | None) -> Generator[None]:
        """Which row of the contents each position of the enclosed forwards belongs to.

        (batch,) for inputs (batch, tokens, …), (batch, tokens) for packed rows, (tokens,) for
        flattened ones. Raises SlotError for an index that is empty or negative.
        """
        before = self._current.rows
        self._current.rows = _rows(index)
        try:
            yield
        finally:
            self._current.rows = before

    def remove(self) -> None:
        """Take the slots off: the model is as it was before `install`. SlotsBusy while held."""
        with self._held():
            for slot in self._slots.values():
                slot.detach()
            self._slots.clear()

    @contextmanager
    def _held(self) -> Generator[None]:
        if not self._lock.acquire(blocking=False):
            raise SlotsBusy(
                text("the slots of this model are held by somebody else"),
                hint=text("wait until they are free, or use base.share()"),
            )
        try:
            yield
        finally:
            self._lock.release()

    def check(self, shapes: Mapping[str, tuple[int, int] | None]) -> None:
        """Know that every layer has a slot of that shape (out, in); None fits any.

        Raises SlotError listing every layer that has not.
        """
        faults = [f for name, shape in shapes.items() if (f := self._misfit(name, shape))]
        _refuse(faults, len(shapes))

    def _check_fit(self, contents: Mapping[str, Content]) -> None:
        faults = [f for name, content in contents.items() if (f := self._fault(name, content))]
        _refuse(faults, len(contents))

    def _misfit(self, name: str, shape: tuple[int, int] | None) -> str:
        slot = self._slots.get(name)
        if slot is None:
            return text("{name}: no slot of that name", name=name)
        if shape not in (None, slot.shape):
            return text(
                "{name}: the layer is (out, in) = {here}, the content {there}",
                name=name,
                here=slot.shape,
                there=shape,
            )
        return ""

    def _fault(self, name: str, content: Content) -> str:
        if misfit := self._misfit(name, content.shape):
            return misfit
        device = next(self._slots[name].module.parameters()).device
        if content.terms and content.terms[0].down.device != device:
            return text(
                "{name}: the layer is on {here}, the content on {there}",
                name=name,
                here=device,
                there=content.terms[0].down.device,
            )
        return ""

    def _fill(self, contents: Mapping[str, Content]) -> None:
        gates: Gates = {}
        for name, content in contents.items():
            if content.terms:
                self._slots[name].content = prepared(content, gates)


def _refuse(faults: Sequence[str], count: int) -> None:
    if faults:
        raise SlotError(
            text(
                "{misfits} of {count} layers do not fit the model: {faults}",
                misfits=len(faults),
                count=count,
                faults=joined("; ", faults),
            ),
            hint=text("use the base that these adapters were made for"),
        )


def _rows(index: Int[Tensor, "..."] | Sequence[int] | None) -> Rows | None:
    if index is None:
        return None
    return Rows.of(index if isinstance(index, Tensor) else torch.tensor(index))
