"""Full fine-tuning: every weight of a copy of the base learns.

The baseline that adapters are compared with, for models that are small enough. The base itself
stays as it is. Knows bases, rows and settings; writes a model's folder, knows no commands.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from detour.data.reading import Data
from detour.errors import ConfigError
from detour.files import replace_folder_atomically
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, Plain, digest_of
from detour.model.loss import Head
from detour.model.packing import Forward
from detour.model.rows import Batch
from detour.state_file import read_told
from detour.training.config import Plan, TrainConfig, derive, make_config
from detour.training.descend import Ledger, Pause, Run, Step, Watcher, descend
from detour.training.factors import Snapshot
from detour.training.fit import Fit, fitted
from detour.training.identity import identity_of
from detour.training.material import Material, material_of, mean_loss
from detour.training.objective import answer_loss, in_parts

SLOWER = 10  # adapters want about ten times the rate (Hu et al. 2021; Schulman et al. 2025)
OF_ADAPTERS = (
    "rank", "alpha", "rslora", "rank_pattern", "alpha_pattern", "dora", "init", "targets",
    "up_rate", "kl_weight", "orthogonality", "objective",
)  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """A model of which every weight has learned, and how it came about.

    Attributes:
        base: the model, frozen again.
        plan: rate and steps.
        first_loss: of the base, on the rows that judge.
        best_loss: of this model.
        best_step: which step it is of.
        seconds: of the training.
        rows: that were learned.
        validation_rows: that judged; 0 where none was held out.
        steps: that were taken.
        settings: with nothing left open, those of adapters left out.
    """

    base: Base
    plan: Plan
    first_loss: float
    best_loss: float
    best_step: int
    seconds: float
    rows: int
    validation_rows: int
    steps: int
    settings: Mapping[str, Any]

    def save(self, folder: Path, beside: Mapping[str, bytes] | None = None) -> Path:
        """A folder as transformers reads it, whole or not at all, with other files `beside`.

        Raises:
            StorageError: the disk is full or the folder cannot be written.
        """

        def fill(target: Path) -> None:
            self.base.model.save_pretrained(target)
            if self.base.tokenizer is not None:
                self.base.tokenizer.save_pretrained(target)
            for name, content in (beside or {}).items():
                (target / name).write_bytes(content)

        replace_folder_atomically(folder, fill)
        return folder


def train_whole(
    base: Base,
    data: Data,
    config: TrainConfig,
    *,
    validation: Sequence[Example | Plain] | None = None,
    watcher: Watcher | None = None,
    teller: Callable[[str], None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    model: PreTrainedModel | None = None,
    ledger: Ledger | None = None,
) -> Whole:
    """Train every weight of a copy of `base` on conversations or texts.

    Without a learning rate it is a tenth of what an adapter would get. The base, the weights, their
    best values, gradients and AdamW's two moments exist at once: six times the model, besides what
    a step computes. A state on the disk holds four of them.

    Args:
        base: in fp32; it is not changed.
        data: a file of any form that `detour check` knows, a folder, a dataset of the Hub, or rows.
        config: settings; those that only adapters have must not be given.
        validation: rows that choose the checkpoint; by default a share of the data.
        watcher: is told the progress at every step.
        teller: is told in words what was derived and why.
        checkpoints: a folder for the state, of an interrupted run or at the end.
        resume: go on from the state in `checkpoints`.
        model: the copy that learns, see `copy_of`; made here where none is given.
        ledger: an account that lies in the state, and goes on with it.

    Raises:
        ConfigError: a setting of adapters, or a base that is not in fp32.
        DataError: the data cannot be used; names file and line.
        TrainingError: the training made nothing better, or a state of another run.
        KeyboardInterrupt passes through after the state was saved; a second one at once.
    """
    began = time.monotonic()
    check_whole(base, config)
    material = material_of(base, data, config, validation)
    plan = _plan(config, base.model.config.get_text_config().hidden_size, material.count)
    for reason in (*plan.reasons, *material.told):
        if teller:
            teller(reason)
    weights = _Weights(model or copy_of(base))
    known = identity_of(
        config, base, (digest_of(rows) for rows in (material.kept, material.held)),
        whole="all weights",
    )  # fmt: skip
    forward, lengths = Forward(weights.model), material.batches.lengths
    before = read_told(checkpoints, known) if checkpoints and resume else None
    fit = fitted(
        base, config, lengths, material.judged_lengths, packs=forward.packs_rows_of(max(lengths)),
        whole=True, kept=(before or {}).get("fit"),
    )  # fmt: skip
    if fit.told and teller:
        teller(fit.told)
    learner = _Learner(weights.model, forward, fit, material)
    patience = config.patience if material.held else 0
    run = Run(known, watcher, checkpoints, resume, patience, teller, ledger, memory=fit)
    state = descend(weights, plan, config, learner.step, learner.judge, run)
    weights.restore(state.best)
    settings = config.model_dump(mode="json", exclude=set(OF_ADAPTERS))
    return Whole(
        Base.from_model(weights.model, base.tokenizer), plan, state.first_loss, state.best_loss,
        state.best_step, time.monotonic() - began + state.earlier, len(material.kept),
        material.validation_rows, state.step,
        {**settings, "learning_rate": plan.learning_rate, "steps": plan.steps},
    )  # fmt: skip


def copy_of(base: Base) -> PreTrainedModel:
    """The base's model once more, with weights of its own and no slots."""
    return deepcopy(base.model)


class _Learner:
    """The losses of a step and of a validation."""

    def __init__(
        self, model: PreTrainedModel, forward: Forward, fit: Fit, material: Material
    ) -> None:
        self._device = model.device
        self._fit = fit
        self._material = material
        self._forward, self._head = forward, Head(model)

    def step(self, number: int) -> Step:
        """The loss on a batch's answers."""
        batch = self._material.batches[number]
        count = batch.supervised

        def share(part: Batch) -> Tensor:
            return self._loss(part.to(self._device), count)

        total, loss = in_parts(self._fit.parts(batch), share)
        return Step(total, loss, int(batch.mask.sum()))

    def _loss(self, batch: Batch, divisor: int | None = None) -> Tensor:
        again = self._fit.again and torch.is_grad_enabled()
        forward = self._forward.recomputing() if again else self._forward
        return answer_loss(forward, self._head, batch, divisor)

    def judge(self, pause: Pause) -> float:
        """The mean loss of the rows that judge."""
        judged, rows = self._material.judged, self._fit.judged
        return mean_loss(self._loss, judged, self._device, pause, rows=rows)


def check_whole(base: Base, config: TrainConfig) -> None:
    """Raises ConfigError: a setting that only adapters have, or a base that is not in fp32."""
    usual = make_config({})
    given = [name for name in OF_ADAPTERS if name in config.model_fields_set]
    given = [name for name in given if getattr(config, name) != getattr(usual, name)]
    if given:
        raise ConfigError(
            text("{names} mean nothing where all weights are trained", names=", ".join(given)),
            hint=text("leave them away, or train an adapter"),
        )
    if base.model.dtype != torch.float32:
        raise ConfigError(
            text("all weights are trained in float32"),
            expected="--dtype float32", found=str(base.model.dtype),
        )  # fmt: skip


def _plan(config: TrainConfig, width: int, rows: int) -> Plan:
    plan = derive(config, width, rows)
    if config.learning_rate is not None:
        return plan
    rate = plan.learning_rate / SLOWER
    told = text("learning rate {rate:.1e}: a tenth of an adapter's", rate=rate)
    return Plan(rate, plan.steps, (told, *plan.reasons[1:]))


class _Weights:
    """Every parameter of a model; tied ones once."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.requires_grad_(True)

    def parameters(self) -> Iterator[nn.Parameter]:
        """In the model's order."""
        yield from self.model.parameters()

    def ups(self) -> Iterator[nn.Parameter]:
        """None: LoRA+ is for factors."""
        return iter(())

    def values(self) -> Snapshot:
        """All of them, as they stand."""
        return {name: p.detach() for name, p in self.model.named_parameters()}

    def snapshot(self) -> Snapshot:
        """A copy of all of them."""
        return {name: tensor.clone() for name, tensor in self.values().items()}

    def restore(self, taken: Snapshot) -> None:
        """The inverse of `snapshot`."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(taken[name])
