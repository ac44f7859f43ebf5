"""Slots for a whole model: installing, holding contents, removing.

`install` puts an empty slot on every layer that is asked for; `SlotSet.hold` fills them for one
holder at a time and proves that every key landed; `remove` is the inverse of `install`. It knows
any `nn.Module`, but nothing of adapters' files, tokenizers or generation.
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
from detour.language.catalogue import Text, joined, text
from detour.slots.arithmetic import Rows
from detour.slots.content import Content
from detour.slots.kinds import Kind, kind_of
from detour.slots.parameter import Exchanged, Place, find
from detour.slots.prepare import Gates, prepared
from detour.slots.products import Products
from detour.slots.slot import Current, Slot

Targets = str | Sequence[str]
_SHOWN = 4  # faults that an error spells out


def install(
    model: nn.Module,
    targets: Targets = "all-linear",
    include_head: bool = True,
    products: Products | None = None,
) -> SlotSet:
    """Put an empty slot on every linear layer that `targets` names, and on every embedding and
    convolution beside them.

    "all-linear" is every linear layer; another string is a regular expression for the full name;
    of a list, each entry is a full name or its end behind a dot (PEFT's rules). `products` are
    those of another model whose parameters this one shares.

    Raises SlotError listing the targets that match no such layer, or for a model whose layers a
    slot cannot stand in for; SlotsBusy when the model has slots already.
    """
    _check_model(model)
    head = _head_of(model)
    kinds = {name: (module, kind_of(module)) for name, module in model.named_modules()}
    linear = [
        name
        for name, (module, kind) in kinds.items()
        if kind is Kind.LINEAR and (include_head or module is not head)
    ]
    chosen = set(_matching(targets, linear))
    current = Current()
    slots = {
        name: Slot(module, current)
        for name, (module, kind) in kinds.items()
        if name in chosen or kind in (Kind.EMBEDDING, Kind.CONVOLUTION)
    }
    return SlotSet(model, slots, current, head, products)


def _check_model(model: nn.Module) -> None:
    if any(isinstance(m.__dict__.get("forward"), Slot) for m in model.modules()):
        raise SlotsBusy(
            text("this model has slots already"), hint=text("remove() those, or share() the base")
        )
    if any(type(module).__name__ == "OptimizedModule" for module in model.modules()):
        raise SlotError(
            text("a compiled model cannot be given slots"),
            expected=text("the model as it was before torch.compile"),
            found="torch.compile",
            hint=text("give Detour the model itself: compiled code does not see what a slot holds"),
        )
    spread = next((n for n, p in model.named_parameters() if hasattr(p, "device_mesh")), None)
    if spread is not None or getattr(model, "_tp_size", None):
        raise SlotError(
            text("a model spread over devices by tensor parallelism cannot be given slots"),
            expected=text("every parameter whole on one device"),
            found=spread or "tp_plan",
            hint=text("load it without tp_plan"),
        )


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
        self,
        model: nn.Module,
        slots: Mapping[str, Slot],
        current: Current,
        head: nn.Module | None = None,
        products: Products | None = None,
    ) -> None:
        self.products = products or Products()
        self._faster = 0
        self._model = model
        self._exchanged = Exchanged()
        self._slots = dict(slots)
        self._current = current
        self._head = head
        self._lock = Lock()
        for slot in self._slots.values():
            slot.attach()

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of every linear layer with a slot, by its name in the model."""
        return {name: self._slots[name].shape for name in self._linear}

    @property
    def kinds(self) -> dict[str, Kind]:
        """Every layer with a slot and what kind it is of, in the model's order."""
        return {name: slot.kind for name, slot in self._slots.items()}

    def module(self, name: str) -> nn.Module:
        """The layer of that name. Raises KeyError where it has no slot."""
        return self._slots[name].module

    @property
    def exchanged(self) -> bool:
        """Whether parameters are exchanged for changed copies at the moment."""
        return self._exchanged.count > 0

    def parameter(self, name: str) -> Tensor:
        """The model's own parameter, whatever stands in for it now. AttributeError if none."""
        path, _, last = name.rpartition(".")
        module = self._model.get_submodule(path)
        kept = self._exchanged.original(module, last)
        return module.get_parameter(last) if kept is None else kept

    def module_shape(self, name: str) -> tuple[int, int]:
        """(out, in) of a layer with a slot. Raises KeyError where it has none."""
        return self._slots[name].shape

    @property
    def _linear(self) -> list[str]:
        return [name for name, slot in self._slots.items() if slot.kind is Kind.LINEAR]

    @property
    def landed(self) -> int:
        """How many layers hold something now."""
        held = sum(slot.content is not None for slot in self._slots.values())
        return held + self._exchanged.count

    def linear_names(self, exclude_head: bool = True) -> list[str]:
        """The layers with a slot, in the model's order; without the head unless asked for."""
        return [
            name
            for name in self._linear
            if not (exclude_head and self._slots[name].module is self._head)
        ]

    def named(self, targets: Targets) -> list[str]:
        """The layers that `targets` names, by the rules of `install`; the head only if named.

        Raises SlotError listing the targets that match no layer.
        """
        if targets == "all-linear":
            return self.linear_names()
        return _matching(targets, self._linear)

    @contextmanager
    def hold(self, contents: Mapping[str, Content]) -> Generator[SlotSet]:
        """Fill the slots for as long as the context lasts, then empty them.

        Frozen tensors are taken as they are now; those that require gradients stay live. Raises
        SlotError listing every key that names no slot or does not fit its layer, before anything
        is attached; SlotsBusy while somebody else holds the slots.
        """
        with self._held():
            self._check_fit(contents)
            try:
                self._fill(contents)
                yield self
            finally:
                self._exchanged.take_back()
                for slot in self._slots.values():
                    slot.content = None

    @contextmanager
    def rows(
        self, index: Int[Tensor, "..."] | Sequence[int] | None, tokens: int | None = None
    ) -> Generator[None]:
        """Which row of the contents each position of the enclosed forwards belongs to.

        (batch,) for inputs (batch, tokens, …), (batch, tokens) for packed rows, (tokens,) for
        flattened ones. Some models flatten (batch, tokens, …) on their way, as OPT: `tokens` says
        how many each row of a (batch,) index has. Raises SlotError for an index that is empty or
        negative.
        """
        before = self._current.rows
        self._current.rows = _rows(index, tokens)
        try:
            yield
        finally:
            self._current.rows = before

    @contextmanager
    def faster_products(self) -> Generator[None]:
        """Let `products` compute the layers' own outputs in the enclosed forwards.

        They differ from the layers' own in the order of their sums, so in the last bits.
        """
        self.products.refresh()
        self._faster += 1
        self._current.products = self.products
        try:
            yield
        finally:
            self._faster -= 1
            if not self._faster:  # streams need not end in the order in which they began
                self._current.products = None

    def exchange(self, contents: Mapping[str, Content]) -> None:
        """Go on with other contents of the same layers, until the hold ends.

        For factors whose contents follow from what is trained, step by step. Raises SlotError as
        `hold`, and for layers of a parameter without a slot.
        """
        self._check_fit(contents)
        gates: Gates = {}
        for name, content in contents.items():
            self._slots[name].content = prepared(content, gates)

    def keep(self, places: Int[Tensor, " kept"]) -> None:
        """Go on with these rows of what is held, in this order, until the hold ends."""
        gates: dict[int, Tensor] = {}
        for slot in self._slots.values():
            if slot.content is not None:
                slot.content = slot.content.kept(places, gates)

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

        A key may also name a parameter without a slot, or an expert of a stacked one. Raises
        SlotError listing every key that lands nowhere.
        """
        faults = [f for name, shape in shapes.items() if (f := self._misfit(name, shape))]
        _refuse(faults, len(shapes))

    def _check_fit(self, contents: Mapping[str, Content]) -> None:
        faults = [f for name, content in contents.items() if (f := self._fault(name, content))]
        _refuse(faults, len(contents))

    def _place(self, name: str) -> Slot | Place | None:
        return self._slots.get(name) or find(self._model, name)

    def _misfit(self, name: str, shape: tuple[int, int] | None) -> str:
        place = self._place(name)
        if place is None:
            return text("{name}: no slot of that name", name=name)
        if shape not in (None, place.shape):
            return text(
                "{name}: the layer is (out, in) = {here}, the content {there}",
                name=name,
                here=place.shape,
                there=shape,
            )
        return ""

    def _fault(self, name: str, content: Content) -> str:
        if misfit := self._misfit(name, content.shape):
            return misfit
        place = self._place(name)
        assert place is not None
        if content.out_features not in (None, place.shape[0]):
            return text(
                "{name}: the layer has {here} outputs, the content {there}",
                name=name,
                here=place.shape[0],
                there=content.out_features,
            )
        is_lookup = isinstance(place, Slot) and place.kind is Kind.EMBEDDING
        if content.terms and content.lookup != is_lookup:
            return text("{name}: the change is not one of that kind of layer", name=name)
        if isinstance(place, Place) and (content.gain is not None or content.shift is not None):
            return text("{name}: a parameter has no output to scale or shift", name=name)
        device = _device_of(place)
        if content.device not in (None, device):
            return text(
                "{name}: the layer is on {here}, the content on {there}",
                name=name,
                here=device,
                there=content.device,
            )
        return ""

    def _fill(self, contents: Mapping[str, Content]) -> None:
        gates: Gates = {}
        bare: dict[str, tuple[Place, Content]] = {}
        for name, content in contents.items():
            place = self._place(name)
            if content.is_empty:
                continue
            if isinstance(place, Place):
                bare[name] = (place, content)
            elif place is not None:
                place.content = prepared(content, gates)
        self._exchanged.put(bare)


def _device_of(place: Slot | Place) -> torch.device:
    if isinstance(place, Place):
        return place.value.device
    return place.module.get_parameter("weight").device


def _refuse(faults: Sequence[str], count: int) -> None:
    if faults:
        raise SlotError(
            text(
                "{misfits} of {count} layers do not fit the model: {faults}",
                misfits=len(faults),
                count=count,
                faults=joined("; ", [*faults[:_SHOWN], *_more(len(faults) - _SHOWN)]),
            ),
            hint=text("use the base that these adapters were made for"),
        )


def _more(count: int) -> list[Text]:
    return [text("and {count} more", count=count)] if count > 0 else []


def _rows(index: Int[Tensor, "..."] | Sequence[int] | None, tokens: int | None) -> Rows | None:
    if index is None:
        return None
    return Rows.of(index if isinstance(index, Tensor) else torch.tensor(index), tokens)
