"""An adapter meets a base: names are found, whole values become changes, and the proof is taken.

Afterwards an adapter holds nothing but updates of layers and parameters that this model has, so
that chains of it are linear in their weights. Knows adapters, slots and torch modules; knows no
files and no chats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detour.adapter.adapter import Adapter
from detour.adapter.unbound import Stack, TokenRows, Unbound
from detour.adapter.update import Update
from detour.errors import AdapterTooLarge, AdapterWeightsError, SlotError
from detour.language.catalogue import text
from detour.model.plain_weight import plain_weight
from detour.slots.install import SlotSet
from detour.slots.kinds import Kind

_MOST_ONE_HOT = 2**28  # numbers of ids times vocabulary, in which a table of token rows is held
_THIN = 512  # the rank up to which it is known exactly whether two factors make anything


def bound(adapter: Adapter, model: nn.Module, slots: SlotSet) -> Adapter:
    """The same adapter for this model: its own names, and updates only.

    Raises:
        SlotError: a layer or a shape that the model does not have; every one is listed.
        AdapterWeightsError: an adapter whose every change is zero.
        AdapterTooLarge: more rows of tokens than are held in memory.
    """
    named = _with_names_of(adapter, model)
    slots.check({n: (u.out_features, u.in_features) for n, u in named.updates.items()})
    _check_kinds(named, slots)
    whole = Whole(model, slots)
    updates = dict(named.updates)
    for name, magnitude in named.unbound.magnitudes.items():
        updates[name] = whole.scaled_rows(name, updates[name], magnitude)
    for name, update in whole.changes(named.unbound):
        updates[name] = _added(updates[name], update) if name in updates else update
    slots.check({n: (u.out_features, u.in_features) for n, u in updates.items()})
    _check_alive(adapter, updates)
    if updates == dict(adapter.updates) and not adapter.unbound:
        return adapter
    return replace(named, updates=updates, unbound=Unbound())


# names


def _with_names_of(adapter: Adapter, model: nn.Module) -> Adapter:
    """Layers called as in this model: other versions of PEFT and transformers nest it otherwise."""
    known = {name for name, _ in model.named_modules()} | {
        n for n, _ in model.named_parameters(remove_duplicate=False)
    }
    wanted = [*adapter.updates, *adapter.unbound.names]
    if not wanted or all(_plain(name) in known for name in wanted):
        return adapter
    renamed = _renaming(wanted, known)
    if renamed is None:
        return adapter  # the slots list every name that lands nowhere
    unbound = adapter.unbound
    return replace(
        adapter,
        updates={renamed(name): update for name, update in adapter.updates.items()},
        unbound=Unbound(
            {renamed(n): t for n, t in unbound.magnitudes.items()},
            {renamed(n): t for n, t in unbound.biases.items()},
            {renamed(n): t for n, t in unbound.weights.items()},
            {renamed(n): t for n, t in unbound.tokens.items()},
            tuple(replace(stack, module=renamed(stack.module)) for stack in unbound.stacks),
            unbound.stacked_names,
        ),
    )


def _plain(name: str) -> str:
    return name.partition("[")[0]


def _renaming(wanted: list[str], known: set[str]) -> Callable[[str], str] | None:
    """One exchange of a leading part that makes every name one of the model's, if just one does."""
    first = _plain(wanted[0]).split(".")
    found: set[tuple[str, str]] = set()
    for cut in range(len(first)):
        lead, rest = ".".join(first[:cut]), ".".join(first[cut:])
        ends = [name[: -len(rest)] for name in known if name == rest or name.endswith("." + rest)]
        for other in ends:
            own = lead + "." if lead else ""
            if all(n.startswith(own) and other + _plain(n)[len(own) :] in known for n in wanted):
                found.add((own, other))
        if found:
            break  # the longest common end decides
    if len(found) != 1:
        return None
    ((own, other),) = found
    return lambda name: other + name[len(own) :]


def _check_kinds(adapter: Adapter, slots: SlotSet) -> None:
    kinds = slots.kinds
    wrong = [
        name
        for name, update in adapter.updates.items()
        if name in kinds and update.lookup != (kinds[name] is Kind.EMBEDDING)
    ]
    if wrong:
        raise SlotError(
            text("{count} layers are of another kind than the adapter's", count=len(wrong)),
            expected=text("an embedding's factors for embeddings, and only there"),
            found=", ".join(wrong[:4]),
            hint=text("use the base that these adapters were made for"),
        )


def _added(one: Update, other: Update) -> Update:
    """The sum; a change without factors takes the other's kernel, if there is one."""
    if other.rank == 0 and other.in_features == one.in_features:
        other = replace(other, down=other.down.reshape(0, *one.down.shape[1:]))
    return Update.sum([(one, 1.0), (other, 1.0)])


def _check_alive(adapter: Adapter, updates: Mapping[str, Update]) -> None:
    if any(changes_anything(update) for update in updates.values()):
        return
    raise AdapterWeightsError(
        text("the adapter {adapter} changes nothing", adapter=adapter.name),
        expected=text("at least one layer whose change is not zero"),
        found=text("{count} layers, all zero", count=len(updates)),
        hint=text("it was saved before its first training step; train it, or take a later save"),
    )


def changes_anything(update: Update) -> bool:
    """Whether an update is more than zeros."""
    extra = (update.row_scale, update.bias_delta)
    if any(part is not None and bool(part.any()) for part in extra):
        return True
    if update.rank == 0 or update.scale == 0 or not (update.up.any() and update.down.any()):
        return False
    return update.rank > _THIN or update.norm() > 0


# whole values


class Whole:
    """Turns whole values into changes against one model's own."""

    def __init__(self, model: nn.Module, slots: SlotSet) -> None:
        self._model = model
        self._slots = slots
        self._kinds = slots.kinds

    def scaled_rows(self, layer: str, update: Update, magnitude: Tensor) -> Update:
        """DoRA: m / ‖W + ΔW‖ · (W + ΔW), as a change of W (Liu et al. 2024, arXiv:2402.09353).

        With g = m / ‖W + ΔW‖ row by row that is diag(g − 1) · W + diag(g) · ΔW. A row of zeros
        that is to have the length 0 stays as it is.
        """
        if layer not in self._kinds:
            raise _misfit(layer, (), tuple(magnitude.shape))
        weight = plain_weight(self._slots.module(layer))
        if self._kinds[layer] is Kind.EMBEDDING:
            weight = weight.mT  # (width, ids): PEFT measures each output over all ids
        lengths = torch.linalg.vector_norm(weight.flatten(1) + update.delta().flatten(1), dim=1)
        if magnitude.shape != lengths.shape:
            raise _misfit(layer, tuple(lengths.shape), tuple(magnitude.shape))
        wanted = magnitude.to(lengths)
        gain = torch.where((lengths == 0) & (wanted == 0), 1.0, wanted / lengths)
        bias = getattr(self._slots.module(layer), "bias", None)
        shift = None if bias is None else -(gain - 1) * bias.detach().float().cpu()
        return Update(
            update.down,
            gain[:, None] * update.up.float(),
            update.scale,
            gain - 1,
            shift,
            update.lookup,
        )

    def changes(self, unbound: Unbound) -> Iterator[tuple[str, Update]]:
        """Everything but magnitudes: the layer or parameter, and its change."""
        for layer, bias in unbound.biases.items():
            yield self._bias(layer, bias)
        for name, value in unbound.weights.items():
            yield from self._weight(name, value)
        for name, tokens in unbound.tokens.items():
            yield from self._tokens(name, tokens)
        for stack in unbound.stacks:
            yield from self._stack(stack, unbound)

    def _bias(self, layer: str, bias: Tensor) -> tuple[str, Update]:
        own = self._parameter(f"{layer}.bias", bias)
        delta = bias.float() - own
        if layer in self._kinds:
            out, wide = self._slots.module_shape(layer)
            return layer, Update(torch.zeros(0, wide), torch.zeros(out, 0), bias_delta=delta)
        return f"{layer}.bias[:]", _vector(delta)

    def _weight(self, name: str, value: Tensor) -> Iterator[tuple[str, Update]]:
        module, _, last = name.rpartition(".")
        if last != "weight" or module not in self._kinds:
            yield from self._bare(name, value.float() - self._parameter(name, value))
            return
        own, kind = plain_weight(self._slots.module(module)), self._kinds[module]
        is_turned = type(self._slots.module(module)).__name__ == "Conv1D"
        plain = value.mT if is_turned else value
        if plain.shape != own.shape:
            raise _misfit(name, tuple(own.shape), tuple(plain.shape))
        delta = plain.float() - own
        if not bool(delta.any()):
            return
        if kind is Kind.EMBEDDING:
            yield module, replace(_full(delta.mT), lookup=True)
        else:
            yield module, _full(delta.flatten(1))

    def _bare(self, name: str, delta: Tensor) -> Iterator[tuple[str, Update]]:
        """A parameter that no slot covers: a vector, a matrix, or a stack of matrices."""
        if not bool(delta.any()):
            return
        path = name.rpartition(".")[0]
        is_turned = bool(getattr(self._model.get_submodule(path), "is_transposed", False))
        if delta.ndim == 1:
            yield f"{name}[:]", _vector(delta)
        elif delta.ndim == 2:
            yield f"{name}[:]", _full(delta)
        elif delta.ndim == 3:
            for expert, part in enumerate(delta):
                yield f"{name}[{expert}]", _full(part.mT if is_turned else part)
        else:
            raise _misfit(name, (), tuple(delta.shape))

    def _tokens(self, name: str, tokens: TokenRows) -> Iterator[tuple[str, Update]]:
        table = dict(self._model.named_modules()).get(name) if name else None
        weight = getattr(table, "weight", None)
        if not isinstance(table, nn.Embedding) or not isinstance(weight, Tensor):
            raise _misfit(name, (0, 0), tuple(tokens.rows.shape))
        ids = torch.tensor(tokens.ids)
        if not len(ids) or int(ids.max()) >= len(weight) or tokens.rows.shape[1] != weight.shape[1]:
            raise _misfit(
                name, tuple(weight.shape), (max(tokens.ids, default=-1) + 1, *tokens.rows.shape[1:])
            )
        if len(ids) * len(weight) > _MOST_ONE_HOT:
            raise AdapterTooLarge(
                text("{name} has too many rows of tokens", name=name),
                expected=text("at most {limit:,}", limit=_MOST_ONE_HOT // len(weight)),
                found=f"{len(ids):,}",
                hint=text("train the whole embedding: modules_to_save"),
            )
        delta = tokens.rows.float() - weight.detach()[ids].float().cpu()  # (ids, width)
        chosen = torch.zeros(len(ids), len(weight))  # (ids, vocabulary), one-hot
        chosen[torch.arange(len(ids)), ids] = 1.0
        yield name, Update(chosen, delta.mT.contiguous(), lookup=True)
        for head, module in self._model.named_modules():
            if isinstance(module, nn.Linear) and module.weight is weight:
                yield head, Update(delta, chosen.mT.contiguous())

    def _stack(self, stack: Stack, unbound: Unbound) -> Iterator[tuple[str, Update]]:
        name = self._stacked_parameter(stack, unbound.stacked_names)
        module = self._model.get_submodule(stack.module)
        whole = module.get_parameter(name)
        experts = whole.shape[0] if whole.ndim == 3 else 1
        if stack.down.shape[0] != experts * stack.rank:
            raise _misfit(f"{stack.module}.{name}", tuple(whole.shape), tuple(stack.down.shape))
        for expert in range(experts):
            down, up = stack.factors(expert)
            place = f"{stack.module}.{name}[{expert if whole.ndim == 3 else ':'}]"
            yield place, Update(down.contiguous(), up.contiguous(), stack.scale)

    def _stacked_parameter(self, stack: Stack, names: Iterable[str]) -> str:
        """PEFT wraps a module once for each of its named parameters, the first one innermost."""
        try:
            module = self._model.get_submodule(stack.module)
        except AttributeError:
            raise _misfit(stack.module, (), tuple(stack.down.shape)) from None
        own = [
            last
            for last, _ in module.named_parameters(recurse=False)
            if any(f".{stack.module}.{last}".endswith("." + name) for name in names)
        ]
        if stack.depth >= len(own):
            raise _misfit(stack.module, (), tuple(stack.down.shape))
        return own[len(own) - 1 - stack.depth]

    def _parameter(self, name: str, like: Tensor) -> Tensor:
        """The model's own value in fp32 on the CPU, of the same shape."""
        try:
            own = self._slots.parameter(name)
        except AttributeError:
            raise SlotError(
                text("the adapter holds {name} whole, which the model does not have", name=name),
                expected=text("a parameter of the model"),
                found=str(tuple(like.shape)),
                hint=text("a new head, say of a classifier, is not supported"),
            ) from None
        if own.shape != like.shape or not own.is_floating_point():
            raise _misfit(name, tuple(own.shape), tuple(like.shape))
        return own.detach().float().cpu()


def _misfit(name: str, here: tuple[int, ...], there: tuple[int, ...]) -> SlotError:
    return SlotError(
        text("{name} of the adapter does not fit the model", name=name),
        expected=text("shape {shape}", shape=here) if here else text("such a module in the model"),
        found=text("shape {shape}", shape=there),
        hint=text("use the base that these adapters were made for; a vocabulary that was made "
                  "larger for training has to be made larger in the base too"),
    )  # fmt: skip


def _vector(delta: Float[Tensor, " out"]) -> Update:
    """A change of a vector: (out, 1) over a constant 1."""
    return Update(torch.ones(1, 1), delta[:, None].contiguous())


def _full(delta: Float[Tensor, "out in"]) -> Update:
    """A dense change as two factors, one of them the identity; exact."""
    out, wide = delta.shape
    if out <= wide:
        return Update(delta.contiguous(), torch.eye(out))
    return Update(torch.eye(wide), delta.contiguous())
