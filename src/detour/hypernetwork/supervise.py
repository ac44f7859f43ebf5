"""Supervised training of a hypernetwork: the loss of the frozen base on rows of many tasks.

Each row of a batch has a description of its own and so factors of its own, in the same slots that
chains use; the gradient flows through the frozen base into the hypernetwork (Text-to-LoRA, arXiv
2506.06105, section 3.2). Knows tasks, bases and networks; knows no files.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from detour.hypernetwork.config import SuperviseConfig
from detour.hypernetwork.encoder import Described
from detour.hypernetwork.naming import Told, learn_names, named
from detour.hypernetwork.network import Hypernetwork
from detour.hypernetwork.optimise import Run, Step, optimise
from detour.hypernetwork.reading import Library
from detour.hypernetwork.state import State
from detour.hypernetwork.tasks import Description, Task, Tasks
from detour.model.base import Base
from detour.model.loss import completion_loss, hidden_states
from detour.model.rows import Encoded, encode, padded
from detour.team import ALONE

JUDGED = 384  # rows of which the validation loss is the mean
TOGETHER = 64  # of them, in one forward
BUCKET = 4  # steps whose rows are drawn together and sorted by length


@dataclass(frozen=True)
class Drawn:
    """One row to learn from: tokens, a description, and what each of its parts names."""

    encoded: Encoded
    description: int
    primitives: tuple[int, ...]


class Draws:
    """Rows of all training tasks, drawn at random; and fixed ones to judge by."""

    def __init__(
        self, base: Base, tasks: Tasks, numbers: dict[int, int], primitives: Sequence[str]
    ) -> None:
        places = {name: place for place, name in enumerate(primitives)}

        def told(task: Task, descriptions: Sequence[Description]) -> list[Told]:
            return [(numbers[id(d)], primitives_of(d, task, places)) for d in descriptions]

        trained = tasks.of("train")
        self._rows = [_encoded(base, task) for task in trained]
        self._descriptions = [told(task, task.of_set()) for task in trained]
        self._weights = [task.weight for task in trained]
        self._new_tasks = [
            (_encoded(base, task), told(task, task.of_set())) for task in tasks.of("validation")
        ]
        self._new_words = [
            (rows, told(task, task.of_set("validation")))
            for task, rows in zip(trained, self._rows, strict=True)
            if task.of_set("validation")
        ]

    def batch(self, seed: int, step: int, size: int) -> list[Drawn]:
        """Rows of one step, each with one of its task's descriptions.

        Rows of some steps are drawn together, sorted by length and dealt out, so that rows of like
        length meet and little is padded.
        """
        turn, place = divmod(step, BUCKET)
        rng = random.Random(f"rows/{seed}/{turn}")
        drawn = sorted(self._drawn(rng, BUCKET * size), key=lambda row: len(row.encoded.ids))
        order = rng.sample(range(BUCKET), BUCKET)
        return drawn[order[place] * size : (order[place] + 1) * size]

    def _drawn(self, rng: random.Random, size: int) -> list[Drawn]:
        """Rows by the tasks' weights."""
        drawn: list[Drawn] = []
        for task in rng.choices(range(len(self._rows)), self._weights, k=size):
            drawn.append(Drawn(rng.choice(self._rows[task]), *rng.choice(self._descriptions[task])))
        return drawn

    def told(self, rng: random.Random, size: int) -> list[Told]:
        """Descriptions of training tasks, each with what it names."""
        tasks = rng.choices(range(len(self._rows)), self._weights, k=size)
        return [rng.choice(self._descriptions[task]) for task in tasks]

    def judged(self, count: int) -> list[Drawn]:
        """Rows of validation tasks and, where there are any, as many of training tasks in
        descriptions that only validate.

        Nothing of it is ever reported. Sorted by length.
        """
        rng = random.Random("validation")
        pools = [pool for pool in (self._new_tasks, self._new_words) if pool]
        drawn: list[Drawn] = []
        for place in range(count):
            rows, descriptions = rng.choice(pools[place % len(pools)])
            drawn.append(Drawn(rng.choice(rows), *rng.choice(descriptions)))
        return sorted(drawn, key=lambda row: len(row.encoded.ids))


def _encoded(base: Base, task: Task) -> list[Encoded]:
    tokenizer = base.tokenizer
    assert tokenizer is not None  # `build` has refused such a base
    return encode(tokenizer, task.train, base.longest)


def primitives_of(
    description: Description, task: Task, places: Mapping[str, int]
) -> tuple[int, ...]:
    """What a description names: part by part in their order, or its whole task's."""
    return tuple(places[name] for name in (description.parts or task.primitives))


def train_supervised(
    base: Base,
    tasks: Tasks,
    network: Hypernetwork,
    library: Library,
    descriptions: Sequence[Description],
    config: SuperviseConfig,
    run: Run | None = None,
) -> State:
    """Train `network` in place on the tasks' rows.

    Args:
        base: the frozen model; its layers are the network's.
        tasks: split tasks.
        network: as it was made, or as it was saved.
        library: the vectors of `descriptions`, in the same order.
        descriptions: every description that trains, or that validates.
        config: settings.
        run: how it is watched, saved and resumed.

    Raises:
        SlotsBusy: somebody else holds the base's slots.
        TrainingError: a checkpoint of another run.
    """
    numbers = {id(d): number for number, d in enumerate(descriptions)}
    draws = Draws(base, tasks, numbers, network.primitives)
    judged = draws.judged(JUDGED)
    team = run.team if run else ALONE
    _ = base.head  # made while the slots are empty

    def step_of(step: int, rng: random.Random) -> Step:
        drawn = draws.batch(config.seed, step, config.batch_size)
        generator = torch.Generator().manual_seed(rng.randrange(2**31))
        described = library.picked([d.description for d in drawn])
        noisy = described.noisy(config.noise, generator)
        return step_on(base, network, noisy, drawn, team.share(len(drawn)))

    def judge() -> float:
        losses = 0.0
        for start in range(team.rank * TOGETHER, len(judged), team.size * TOGETHER):
            rows = judged[start : start + TOGETHER]
            described = library.picked([row.description for row in rows])
            losses += float(step_on(base, network, described, rows).loss) * len(rows)
        return team.total(losses, base.device) / len(judged)

    if not (run and run.goes_on):  # a checkpoint has learned the names already
        learn_names(
            network, library, draws.told,
            steps=config.naming_steps, noise=2 * config.noise, seed=config.seed,
            teller=run.teller if run else None,
        )  # fmt: skip
    return optimise(network, config, step_of, judge, run or Run())


def step_on(
    base: Base,
    network: Hypernetwork,
    described: Described,
    drawn: Sequence[Drawn],
    places: Sequence[int] | None = None,
) -> Step:
    """The base's loss on the answers (nats a token), each row with its own generated factors.

    With `places`, of those rows only: their part of the whole batch's mean.
    """
    own = drawn if places is None else [drawn[place] for place in places]
    if places is not None:
        described = described.rows(places)
    encoded, there = network.encoder(described.to(base.device))
    generated = network.generate(encoded, there)
    batch = padded([row.encoded for row in own], base.pad_id).to(base.device)
    index = torch.arange(len(own), device=base.device)
    with base.hold(generated.contents()), base.slots.rows(index, batch.ids.shape[1]):
        hidden = hidden_states(base.model, batch.ids, batch.mask)
        loss = completion_loss(hidden, base.head, batch.targets, divisor=_supervised(drawn))
    names = named(network, encoded, there, [row.primitives for row in own])
    every = sum(len(row.primitives) for row in drawn)
    part = sum(len(row.primitives) for row in own) / every if every else 0.0
    return Step(loss, names * part, generated, len(own) / len(drawn))


def _supervised(drawn: Sequence[Drawn]) -> int:
    """Tokens that the loss counts: the first of a row follows nothing."""
    return sum(sum(row.encoded.learned[1:]) for row in drawn)
