"""From a task folder and a base to a hypernetwork at work: the whole of its training, in order.

Vectors of the descriptions, the tagger, the network by one of two objectives, the known texts, and
the confidence fitted on validation. Knows all parts of this package; knows no command line.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from detour.adapter.adapter import Adapter
from detour.errors import BaseError
from detour.hypernetwork.confidence import Confidence
from detour.hypernetwork.config import NetworkConfig, SuperviseConfig
from detour.hypernetwork.encoder import Tagger
from detour.hypernetwork.generator import Generator
from detour.hypernetwork.known import Known
from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.optimise import Run, Watcher
from detour.hypernetwork.places import places_of
from detour.hypernetwork.reading import Library
from detour.hypernetwork.reconstruct import Targets, train_reconstruction
from detour.hypernetwork.saved import rounded
from detour.hypernetwork.supervise import train_supervised
from detour.hypernetwork.tagging import train_tagger
from detour.hypernetwork.tasks import Description, Tasks
from detour.language.catalogue import text
from detour.model.base import Base
from detour.model.embedder import Embedder
from detour.state_file import Identity
from detour.team import ALONE, Team

LOOSE = 0.3  # share of phrases that are taken a word too long or too short
CALIBRATED = 400  # descriptions that the confidence is fitted on, besides unsupported ones


@dataclass(frozen=True, eq=False)
class Built:
    """A trained hypernetwork, and how it came about."""

    generator: Generator
    best_loss: float
    best_step: int
    parameters: int
    figures: dict[str, Any] = field(default_factory=lambda: {})


@dataclass(frozen=True, eq=False)
class Prepared:
    """What is read before the first step; runs on the same descriptions can share it."""

    embedder: Embedder
    descriptions: Sequence[Description]
    library: Library
    """The vectors of `descriptions`, in the same order."""
    tagger: Tagger | None


def prepare(
    tasks: Tasks,
    config: NetworkConfig,
    seed: int,
    teller: Callable[[str], None] | None = None,
    team: Team = ALONE,
) -> Prepared:
    """Read every description that trains or validates; train the tagger where phrases are read."""
    tell = teller or (lambda _: None)
    embedder = Embedder.load(config.embedder)
    descriptions = trained_on(tasks)
    tell(f"{len(tasks.every)} tasks, {len(descriptions)} descriptions to read")
    cut = sum(n > embedder.longest for n in embedder.tokens([d.text for d in descriptions]))
    if cut:
        tell(f"{cut} descriptions are longer than the encoder's {embedder.longest} tokens: cut")
    library = Library.of(embedder, descriptions, config.encoder, LOOSE, config.spelling)
    tagger = team.from_leader(lambda: tagger_for(embedder, tasks, config, seed, teller))
    return Prepared(embedder, descriptions, library, tagger)


def build(
    base: Base,
    tasks: Tasks,
    config: NetworkConfig,
    training: SuperviseConfig,
    *,
    adapters: Mapping[str, Adapter] | None = None,
    unsupported: Sequence[str] = (),
    prepared: Prepared | None = None,
    watcher: Watcher | None = None,
    teller: Callable[[str], None] | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    team: Team = ALONE,
) -> Built:
    """Train a hypernetwork on the tasks' rows through the frozen base, or on `adapters`.

    With `adapters`, by the tasks' names, it learns to reconstruct them. `unsupported` are
    sentences that ask for nothing the tasks know; the confidence learns from them what not to
    trust. `prepared`, of the same tasks, encoder and seed, saves reading them once more.

    With a `team` of several processes each takes a share of every batch; all of them end with the
    same hypernetwork.

    Raises:
        BaseError: the base has no tokenizer.
        ConfigError: several processes for reconstruction, or more of them than rows in a batch.
        SlotError: targets that name no layer.
        TrainingError: a checkpoint of another run, or a loss that is no number any more.
    """
    if base.tokenizer is None:
        raise BaseError(
            text("{base} has no tokenizer", base=base.name), hint=text("training needs one")
        )
    if adapters is None:
        team.share(training.batch_size)
    else:
        team.check_alone(text("reconstruction"))
    read = prepared or prepare(tasks, config, training.seed, teller, team)
    network = new_network(base, tasks, config, read.embedder.width, training.seed)
    known = identity(base, tasks, config, training, adapters)
    run = Run(known, watcher, checkpoints, resume, team, teller)
    figures: dict[str, Any] = {}
    if adapters is None:
        state = train_supervised(
            base, tasks, network, read.library, read.descriptions, training, run
        )
    else:
        state = train_reconstruction(
            adapters, tasks, network, read.library, read.descriptions, training, run
        )
        learned = {t.name: adapters[t.name] for t in tasks.of("train") if t.name in adapters}
        layers = [layer for group in network.places.groups for layer in group.layers]
        figures["mean_adapter_error"] = round(Targets(learned, layers).mean_error(), 4)
    generator = finished(base, tasks, network, read.tagger, read.embedder, unsupported)
    count = sum(parameter.numel() for parameter in network.parameters())
    return Built(generator, state.best_loss, state.best_step, count, figures)


def trained_on(tasks: Tasks) -> list[Description]:
    """Every description that trains or that validates, in a fixed order."""
    return [
        description
        for task in tasks.every
        if task.split != "test"
        for description in task.descriptions
        if description.set in ("", "validation")
    ]


def tagger_for(
    embedder: Embedder,
    tasks: Tasks,
    config: NetworkConfig,
    seed: int,
    teller: Callable[[str], None] | None = None,
) -> Tagger | None:
    """A tagger, where phrases are read."""
    if config.encoder != "spans":
        return None
    told = [d for task in tasks.of("train") for d in task.of_set()]
    tagger = train_tagger(embedder, told, seed=seed, teller=teller)
    rounded(tagger)
    return tagger


def new_network(
    base: Base, tasks: Tasks, config: NetworkConfig, width: int, seed: int
) -> Hypernetwork:
    """An untrained network for the base's layers: at first it changes nothing."""
    wanted = config.targets if isinstance(config.targets, str) else list(config.targets)
    shapes = {layer: base.slots.shapes[layer] for layer in base.slots.named(wanted)}
    torch.manual_seed(seed)
    network = Hypernetwork(config, places_of(shapes), width, tasks.primitives)
    return network.to(base.device)


def finished(
    base: Base,
    tasks: Tasks,
    network: Hypernetwork,
    tagger: Tagger | None,
    embedder: Embedder,
    unsupported: Sequence[str],
) -> Generator:
    """The trained network at work, its confidence fitted on what validates."""
    rounded(network)
    known = Known.of(embedder, tasks.of("train"), network.config.encoder)
    generator = Generator(network.cpu(), tagger, known, None, base.fingerprint, embedder.sha256)
    generator.confidence = calibrated(generator, tasks, unsupported)
    return generator


def calibrated(generator: Generator, tasks: Tasks, unsupported: Sequence[str]) -> Confidence | None:
    """Fit the confidence: understood or not, on descriptions of validation and unsupported ones.

    None where too few of them can be told right or wrong, as where tasks share no primitives.
    """
    rng = random.Random("calibration")
    trained = {name for task in tasks.of("train") for name in task.primitives}
    pool = [
        (description.text, set(task.primitives))
        for task in tasks.every
        if task.split != "test" and set(task.primitives) <= trained
        for description in task.descriptions
        if description.set == "validation" or (task.split == "validation" and not description.set)
    ]
    chosen = rng.sample(pool, min(CALIBRATED, len(pool)))
    read = generator.understand([told for told, _ in chosen] + list(unsupported))
    right = [
        set(one.primitives) == meant for one, (_, meant) in zip(read, chosen, strict=False)
    ] + [False] * len(unsupported)
    return Confidence.fit([one.signals for one in read], right)


def identity(
    base: Base,
    tasks: Tasks,
    config: NetworkConfig,
    training: SuperviseConfig,
    adapters: Mapping[str, Adapter] | None = None,
) -> Identity:
    """What must be equal for a checkpoint to fit: the objective and the types too."""
    digest = sha256()
    for task in tasks.every:
        digest.update(f"{task.name}/{task.split}/{task.weight}".encode())
        for description in task.descriptions:
            digest.update(description.model_dump_json().encode())
        for row in (*task.train, *task.test):
            digest.update(json.dumps([dict(m) for m in row.messages]).encode())
    targets = {name: adapter.digest() for name, adapter in (adapters or {}).items()}
    settings = {**config.model_dump(mode="json"), **training.model_dump(mode="json")}
    return {
        "objective": "sft" if adapters is None else json.dumps(targets, sort_keys=True),
        "dtype": str(base.dtype),
        "base": json.dumps(base.fingerprint.to_json()),
        "tasks": digest.hexdigest(),
        **{name: json.dumps(value) for name, value in settings.items()},
    }
