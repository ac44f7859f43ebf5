"""Full fine-tuning: every weight of a copy of the base learns.

The baseline that adapters are compared with, for models that are small enough. The base itself
stays as it is. Knows bases, rows and settings; writes a model's folder, knows no commands.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from detour.data.reading import Data
from detour.errors import ConfigError, TrainingError
from detour.files import replace_folder_atomically
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.examples import Example, Plain, digest_of
from detour.model.loss import Head
from detour.model.packing import Forward
from detour.model.rows import Batch
from detour.state_file import Identity
from detour.training.config import Plan, TrainConfig, derive, make_config
from detour.training.descend import Run, Step, Watcher, descend
from detour.training.factors import Snapshot
from detour.training.material import material_of, mean_loss
from detour.training.objective import answer_loss, in_parts

SLOWER = 10  # adapters want about ten times the rate (Hu et al. 2021; Schulman et al. 2025)
OF_ADAPTERS = (
    "rank", "alpha", "rslora", "rank_pattern", "alpha_pattern", "dora", "init", "targets",
    "up_rate", "kl_weight", "orthogonality", "objective",
)  # fmt: skip


@dataclass(frozen=True)
class Whole:
    """A model of which every weight has learned, and how it came about."""

    base: Base
    plan: Plan
    first_loss: float
    best_loss: float
    best_step: int
    seconds: float
    rows: int
    validation_rows: int
    steps: int

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
) -> Whole:
    """Train every weight of a copy of `base` on conversations or texts.

    Without a learning rate it is a tenth of what an adapter would get. Weights, their best values,
    gradients and AdamW's two moments exist at once: five times the model.

    Args:
        base: in fp32; it is not changed.
        data: a file of any form that `detour check` knows, a folder, a dataset of the Hub, or rows.
        config: settings; those that only adapters have must not be given.
        validation: rows that choose the checkpoint; by default a share of the data.
        watcher: is told the progress at every step.
        teller: is told in words what was derived and why.
        checkpoints: a folder for the state; an interrupted run leaves one there.
        resume: go on from the state in `checkpoints`.

    Raises:
        ConfigError: a setting of adapters, or a base that is not in fp32.
        DataError: the data cannot be used; names file and line.
        TrainingError: the training made nothing better, or a state of another run.
        KeyboardInterrupt passes through after the state was saved.
    """
    began = time.monotonic()
    _check(base, config)
    material = material_of(base, data, config, validation)
    kept, held = material.kept, material.held
    plan = _plan(config, base.model.config.get_text_config().hidden_size, material.count)
    for reason in material.remarks(plan.reasons):
        if teller:
            teller(reason)
    weights = _Weights(deepcopy(base.model))
    head, forward = Head(weights.model), Forward(weights.model)

    def step_of(step: int) -> Step:
        batch = material.batches[step]
        count = batch.supervised

        def share(part: Batch) -> Tensor:
            return answer_loss(forward, head, part.to(base.device), count)

        total, loss = in_parts(batch.parts(config.micro_batch_size), share)
        return Step(total, loss, int(batch.mask.sum()))

    def judge() -> float:
        return mean_loss(
            lambda batch: answer_loss(forward, head, batch), material.judged, base.device
        )

    known = _identity(config, base, (kept, held))
    patience = config.patience if held else 0
    run = Run(known, watcher, checkpoints, resume, patience)
    state = descend(weights, plan, config, step_of, judge, run)
    if state.best_step == 0:
        raise TrainingError(
            text("the training changed nothing for the better"),
            found=text("{best_loss:.4f} at best", best_loss=state.best_loss),
            hint=text("another learning rate, more steps, or rows that the base does not know yet"),
        )
    weights.restore(state.best)
    weights.model.requires_grad_(False)
    return Whole(
        Base.from_model(weights.model, base.tokenizer), plan, state.first_loss, state.best_loss,
        state.best_step, time.monotonic() - began, len(kept), len(held), state.step,
    )  # fmt: skip


def _check(base: Base, config: TrainConfig) -> None:
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

    def snapshot(self) -> Snapshot:
        """A copy of all of them."""
        return {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def restore(self, taken: Snapshot) -> None:
        """The inverse of `snapshot`."""
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(taken[name])


def _identity(
    config: TrainConfig, base: Base, data: Sequence[Sequence[Example | Plain]]
) -> Identity:
    settings = {name: json.dumps(v) for name, v in config.model_dump(mode="json").items()}
    return {
        "base": json.dumps(base.fingerprint.to_json()),
        "whole": "all weights",
        "data": " ".join(digest_of(examples) for examples in data),
        **settings,
    }
