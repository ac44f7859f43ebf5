"""How much of each adapter a finished chain needs, found on rows that say what all of it shall say.

The adapters stay as they are, and the chain stays exact: only its weights move. By gradient, one
factor for each adapter or for each of its decoder layers, as LoRA Soups learns its coefficients
(Prabhakar et al. 2024, arXiv:2410.13025); or by trying, one factor for each adapter, as LoRAHub
does (Huang et al. 2023, arXiv:2307.13269) with Optuna's sampler. Knows chains and rows.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from detour.adapter.chain import Chain, LayerWeight, Term, layer_index
from detour.errors import ChainError
from detour.extras import require
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.rows import Batch
from detour.slots import content
from detour.slots.content import Content, Spread
from detour.training.config import TrainConfig, derive, make_config
from detour.training.descend import Pause, Progress, Run, Step, Watcher, descend
from detour.training.factors import Snapshot
from detour.training.identity import identity_of
from detour.training.material import Data, Material, material_of, mean_loss
from detour.training.objective import answer_loss, in_parts
from detour.training.stacked import frozen
from detour.training.together import check_head, check_plain

SETTINGS: dict[str, Any] = {"steps": 60, "learning_rate": 0.03, "patience": 0}
LARGEST = 1.5  # of a factor that is tried
TRIED_ON = 8  # batches of rows that are learned
DIGITS = 3  # of a weight
Teller = Callable[[str], None]


@dataclass(frozen=True)
class Weighed:
    """Weights that were found.

    Attributes:
        chain: with them.
        before: loss of the chain as it was, nats a token, on rows that judge.
        after: of the chain with the new weights, on the same rows.
        rows: that were learned.
        validation_rows: that judge; 0 where nothing was held out, and learned rows do.
        steps: that were taken, or chains that were tried.
        seconds: that it took.
    """

    chain: Chain
    before: float
    after: float
    rows: int
    validation_rows: int
    steps: int
    seconds: float


class Coefficients:
    """A factor for each adapter of a chain, of all its layers or of each decoder layer's own.

    A factor multiplies the weight that the chain has there: what has weight 0 stays at 0.

    Raises:
        ConfigError: an adapter that does more than low-rank changes.
    """

    def __init__(self, chain: Chain, by_layer: bool, device: torch.device) -> None:
        self.chain = chain
        self._frozen = frozen([term.adapter for term in chain.terms], 0, device)
        indexes = {layer_index(layer) for layer in self._frozen} if by_layer else {None}
        self.places: list[int | None] = sorted(indexes, key=lambda one: -1 if one is None else one)
        self.table = nn.Parameter(torch.ones(len(self.places), len(chain.terms), device=device))
        self._own = {
            layer: torch.tensor([t.weight_at(layer) for t in chain.terms], device=device)
            for layer in self._frozen
        }

    def parameters(self) -> Iterator[nn.Parameter]:
        """The table of factors, (places, adapters)."""
        yield self.table

    def ups(self) -> Iterator[nn.Parameter]:
        """None of them learns faster."""
        return iter(())

    def values(self) -> Snapshot:
        """The table as it stands."""
        return {"factors": self.table.detach()}

    def snapshot(self) -> Snapshot:
        """A copy of it."""
        return {"factors": self.table.detach().clone()}

    def restore(self, taken: Mapping[str, Tensor]) -> None:
        """The inverse of `snapshot`."""
        with torch.no_grad():
            self.table.copy_(taken["factors"])

    def contents(self, rows: int) -> dict[str, Content]:
        """What acts on so many rows, on all alike."""
        return {
            layer: Content(
                tuple(
                    content.Term(one.down, one.up, Spread.BANKED, Spread.BANKED,
                                 self._gate(layer)[list(one.columns)].expand(rows, -1))
                    for one in groups
                )
            )
            for layer, groups in self._frozen.items()
        }  # fmt: skip

    def chain_of(self, taken: Mapping[str, Tensor]) -> Chain:
        """The chain with the factors of a snapshot, its weights rounded."""
        table = taken["factors"].tolist()
        return Chain(
            tuple(
                self._term(term, [row[column] for row in table])
                for column, term in enumerate(self.chain.terms)
            )
        )

    def _gate(self, layer: str) -> Float[Tensor, " adapters"]:
        index = layer_index(layer)
        place = self.places.index(index) if index in self.places else 0
        return self._own[layer] * self.table[place]

    def _term(self, term: Term, factors: Sequence[float]) -> Term:
        """One adapter's, its factors by place."""
        known = dict(zip(self.places, factors, strict=True))
        if None in known and len(known) == 1:
            whole = term * known[None]
            layers = tuple(_rounded(one) for one in whole.layers)
            return Term(term.adapter, round(whole.weight, DIGITS), layers)
        elsewhere = known.pop(None, 1.0)
        own = {index: LayerWeight(index, index, factor * _at(term, index))
               for index, factor in known.items() if index is not None}  # fmt: skip
        weight = round(term.weight * elsewhere, DIGITS)
        return Term(term.adapter, weight, tuple(_joined(map(_rounded, own.values()))))


def weigh(
    base: Base,
    chain: Chain,
    data: Data,
    settings: Mapping[str, Any] | None = None,
    *,
    by_layer: bool = False,
    watcher: Watcher | None = None,
    teller: Teller | None = None,
) -> Weighed:
    """Find the weights of a chain by gradient.

    Args:
        base: that the chain belongs to.
        chain: of two adapters or more.
        data: rows that say what the whole chain shall say, as `train` takes them.
        settings: those of a training that are to differ from `SETTINGS`.
        by_layer: a factor for every decoder layer, not one for all.
        watcher: is told the progress at every step.
        teller: is told in words what was derived.

    Raises:
        ChainError: fewer than two adapters.
        ConfigError: an unknown setting, one that such a training does not know, or an adapter that
            does more than low-rank changes, or changes the output layer.
        DataError: the rows cannot be used. WrongBase, SlotError: a chain of another base.
        TrainingError: no other weights are better.
        SlotsBusy: somebody else holds the slots. KeyboardInterrupt passes through.
    """
    scales = _Scales(base, chain, data, settings, by_layer)
    base_config = base.model.config.get_text_config()
    plan = derive(scales.config, base_config.hidden_size, scales.material.count)
    for told in (*scales.material.told, *plan.reasons):
        if teller:
            teller(told)
    known = identity_of(scales.config, base, (), chain=chain.digest())
    patience = scales.config.patience if scales.material.held else 0
    run = Run(known, watcher, patience=patience, teller=teller)
    with base.hold(scales.coefficients.contents(1)):
        state = descend(
            scales.coefficients, plan, scales.config, scales.step, scales.judge, run
        )  # fmt: skip
    return scales.weighed(state.best, state.step)


def search(
    base: Base,
    chain: Chain,
    data: Data,
    settings: Mapping[str, Any] | None = None,
    *,
    trials: int = 40,
    watcher: Watcher | None = None,
    teller: Teller | None = None,
) -> Weighed:
    """Find the weights of a chain by trying, without any gradient: one factor an adapter, 0 … 1.5.

    Args:
        base: that the chain belongs to.
        chain: of two adapters or more.
        data: rows that say what the whole chain shall say, as `train` takes them.
        settings: as `weigh` has them; of those of a training only the rows of a batch, the share
            that is held out and the seed matter.
        trials: chains that are tried, the one as it is and half of it among them.
        watcher: is told the progress at every trial, and the loss of the best.
        teller: is told in words what was derived.

    Raises:
        As `weigh`; MissingExtra: Optuna is not installed.
    """
    optuna = require("optuna", "tune")
    scales = _Scales(base, chain, data, settings, by_layer=False)
    for told in scales.material.told:
        if teller:
            teller(told)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=scales.config.seed, multivariate=True)
    study = optuna.create_study(sampler=sampler)
    names = [str(column) for column in range(len(chain.terms))]
    for factor in (1.0, 0.5):
        study.enqueue_trial(dict.fromkeys(names, factor))
    with base.hold(scales.coefficients.contents(1)):
        began = time.monotonic()
        for number in range(1, trials + 1):
            trial = study.ask()
            scales.put([trial.suggest_float(name, 0.0, LARGEST) for name in names])
            study.tell(trial, scales.learned_loss())
            if watcher:
                each = (time.monotonic() - began) / number
                watcher(
                    Progress(
                        number,
                        trials,
                        study.best_value,
                        None,
                        scales.tried_tokens / each,
                        each * (trials - number),
                    )
                )
        scales.put([study.best_params[name] for name in names])
    return scales.weighed(scales.coefficients.snapshot(), trials)


class _Scales:
    """The losses of a chain under the factors of the moment."""

    def __init__(
        self,
        base: Base,
        chain: Chain,
        data: Data,
        settings: Mapping[str, Any] | None,
        by_layer: bool,
    ) -> None:
        self._began = time.monotonic()
        if len(chain.terms) < 2:
            raise ChainError(
                text("there is nothing to weigh in a single adapter"),
                expected="formal:0.8+pun", found=chain.text,
            )  # fmt: skip
        self.base = base
        self.config: TrainConfig = make_config({**SETTINGS, **(settings or {})})
        check_plain(self.config)
        bound = base.bind(chain)
        for term in bound.terms:
            check_head(base, term.adapter.name, term.adapter.updates)
        self.coefficients = Coefficients(bound, by_layer, base.device)
        self.material: Material = material_of(base, data, self.config)
        self.forward, self.head = base.forward, base.head  # made while the slots are empty

    def step(self, number: int) -> Step:
        """The loss on a batch's answers."""
        batch = self.material.batches[number]
        share = partial(self.loss, divisor=batch.supervised)
        total, loss = in_parts(batch.parts(self.config.micro_batch_size), share)
        return Step(total, loss, int(batch.mask.sum()))

    def judge(self, pause: Pause) -> float:
        """The mean loss of the rows that judge."""
        return mean_loss(self.loss, self.material.judged, self.base.device, pause)

    @cached_property
    def tried(self) -> list[Batch]:
        """The first batches of what is learned."""
        return [self.material.batches[number] for number in range(TRIED_ON)]

    @property
    def tried_tokens(self) -> int:
        """Of all of them."""
        return sum(int(batch.mask.sum()) for batch in self.tried)

    def learned_loss(self) -> float:
        """The mean loss of those."""
        return mean_loss(self.loss, self.tried, self.base.device, lambda: None)

    def loss(self, batch: Batch, divisor: int | None = None) -> Float[Tensor, ""]:
        """Of a batch, or of a part of one with so many learned tokens."""
        own = batch.to(self.base.device)
        self.base.slots.exchange(self.coefficients.contents(len(own.ids)))
        with self.base.slots.rows(*self.forward.row_index(own)):
            return answer_loss(self.forward, self.head, own, divisor)

    def put(self, factors: Sequence[float]) -> None:
        """One for each adapter."""
        with torch.no_grad():
            self.coefficients.table.copy_(torch.tensor([factors]))

    def weighed(self, taken: Mapping[str, Tensor], steps: int) -> Weighed:
        """What a snapshot is worth, measured on the chain that is handed out."""
        chain = self.coefficients.chain_of(taken)
        before, after = (self._measured(one) for one in (self.coefficients.chain, chain))
        return Weighed(
            chain, before, after, len(self.material.kept), self.material.validation_rows, steps,
            time.monotonic() - self._began,
        )  # fmt: skip

    def _measured(self, chain: Chain) -> float:
        self.coefficients = Coefficients(chain, False, self.base.device)
        with self.base.hold(self.coefficients.contents(1)):
            return self.judge(lambda: None)


def _at(term: Term, index: int) -> float:
    return term.weight_at(f"layers.{index}")


def _rounded(one: LayerWeight) -> LayerWeight:
    return LayerWeight(one.first, one.last, round(one.weight, DIGITS))


def _joined(layers: Iterator[LayerWeight]) -> Iterator[LayerWeight]:
    """Neighbours of one weight as one range."""
    last: LayerWeight | None = None
    for one in layers:
        if last and last.last + 1 == one.first and last.weight == one.weight:
            last = LayerWeight(last.first, one.last, one.weight)
            continue
        if last:
            yield last
        last = one
    if last:
        yield last
