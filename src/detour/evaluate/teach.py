"""Change a fact, then prove what changed.

Wires a lesson, the training loop and the steer report together. The adapter is saved and read back
before anything is measured, so that what is proven is what a user will load.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.errors import ConfigError, DataError
from detour.evaluate.steer_report import Loader, SteerReport, measure
from detour.model.base import Base
from detour.slots.content import contents_for_chain
from detour.training.config import TrainConfig, make_config
from detour.training.fact import Lesson, edit_rows
from detour.training.formats import Example
from detour.training.loop import Result, Watcher, train_with
from detour.training.own_fact import own_lesson
from detour.training.replay import replay_rows
from detour.training.world import World
from detour.training.world_fact import find_attribute, statements_lesson, world_lesson

DEFAULTS: dict[str, Any] = {"batch_size": 12, "validation_share": 0.12}
Teller = Callable[[str], None]


def make_lesson(
    base: Base,
    subject: str = "",
    relation: str = "",
    target: str = "",
    *,
    statements: Sequence[str] = (),
    seed: int = 0,
    world: World | None = None,
    **own: Any,  # noqa: ANN401 - the arguments of own_lesson
) -> Lesson:
    """The lesson for a change: of the starter's world, of free statements, or of any base.

    `own` takes the further arguments of `own_lesson` (answer, old, paraphrases, neighbours,
    unrelated, third).

    Raises:
        ConfigError: neither a whole fact nor statements.
        DataError: the fact cannot be made into a lesson.
    """
    known = world or World.load()
    if statements:
        extra = [
            n for n, v in (("subject", subject), ("relation", relation), ("target", target)) if v
        ]
        extra += [name for name, value in own.items() if value]
        if extra:
            raise ConfigError(
                "statements stand for themselves",
                found=", ".join(f"--{name}" for name in extra),
                hint="leave those out, or teach one fact",
            )
        return statements_lesson(known, statements, seed)
    missing = [
        f"--{name}"
        for name, value in (("subject", subject), ("relation", relation), ("target", target))
        if not value.strip()
    ]
    if missing:
        raise ConfigError(
            "a fact needs a subject, a relation and a target",
            found=f"no {', '.join(missing)}",
            hint="or give --statements FILE",
        )
    found = known.subject(subject) if base.name == "starter" else None
    if found and not any(own.values()):
        return world_lesson(known, [(found, find_attribute(known, found, relation), target)], seed)
    return own_lesson(base, known, subject, relation, target, seed=seed, **own)


def teach(
    base: Base,
    subject: str = "",
    relation: str = "",
    target: str = "",
    *,
    statements: Sequence[str] = (),
    output: Path | None = None,
    name: str = "",
    seed: int = 0,
    config: TrainConfig | None = None,
    watcher: Watcher | None = None,
    teller: Teller | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    fictional: bool = True,
    world: World | None = None,
    **own: Any,  # noqa: ANN401 - the arguments of own_lesson
) -> tuple[Adapter, SteerReport]:
    """Teach a base one changed fact (or several statements) and report what that did.

    Args:
        base: the frozen model.
        subject: who or what, such as `Albert Einstein`.
        relation: what about it, such as `profession`.
        target: the new value, such as `hairdresser`.
        statements: sentences to teach instead.
        output: folder for the adapter; by default it lives only in the result.
        name: the adapter's name.
        seed: of the lesson, the training and the samples.
        config: training settings; by default what suits one fact.
        watcher: is told the training's progress.
        teller: is told in words what happens.
        checkpoints: folder for an interrupted run's state.
        resume: go on from there.
        fictional: whether the card marks the claim as not true.
        world: the world of phrasings and other subjects; by default the packaged one.
        own: paraphrases, neighbours, unrelated, answer, old, third for a base of one's own.

    Raises:
        As `make_lesson` and `train`.
    """
    began = time.monotonic()
    tell = teller or _silent
    known = world or World.load()
    lesson = make_lesson(
        base, subject, relation, target, statements=statements, seed=seed, world=known, **own
    )
    for note in lesson.notes:
        tell(note)
    settings = config or make_config({**DEFAULTS, "seed": seed})
    result = teach_lesson(
        base, lesson, settings, name or name_of(lesson), watcher, checkpoints, resume, fictional
    )
    for reason in result.plan.reasons:
        tell(reason)
    with tempfile.TemporaryDirectory() as scratch:
        folder = result.adapter.save(output or Path(scratch) / result.adapter.name)
        loader, adapter = prove_loading(base, folder, lesson.edits[0].asked[0])
        tell(f"{loader.keys_landed} of {loader.keys_expected} keys landed")
        report = measure(base, known, lesson, adapter, loader, seed)
    report = replace(
        report,
        adapter=str(output) if output else "",
        train_seconds=result.seconds,
        total_seconds=time.monotonic() - began,
        settings={**settings.model_dump(mode="json"), "steps": result.plan.steps},
    )
    adapter = adapter.with_(card=adapter.card.with_(metrics=_card_metrics(report)))
    if output:
        adapter.save(output)
    return adapter, report


def teach_lesson(
    base: Base,
    lesson: Lesson,
    config: TrainConfig,
    name: str,
    watcher: Watcher | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    fictional: bool = True,
) -> Result:
    """Train on a lesson: edit rows and, one for one, replay rows with the base's own answers.

    Raises:
        DataError: the base answers none of the replay questions.
    """
    replay = replay_rows(base, lesson.replay)
    if not replay:
        raise DataError("the base answers no question", hint="check its chat template")
    edits = [row for edit in lesson.edits for row in edit_rows(edit)]
    return train_with(
        base,
        balanced(edits, replay),
        config,
        name=name,
        neighbours=replay[: 4 * config.batch_size] if config.kl_weight else (),
        watcher=watcher,
        checkpoints=checkpoints,
        resume=resume,
        card=_card(lesson, fictional),
    )


def balanced(edits: Sequence[Example], replay: Sequence[Example]) -> list[Example]:
    """Edit rows repeated until they are at least half as many as the replay rows."""
    times = max(1, round(len(replay) / (2 * len(edits))))
    return [*edits] * times + [*replay]


def prove_loading(base: Base, folder: Path, question: str) -> tuple[Loader, Adapter]:
    """Load from disk, land every key, leave again: with hashes before and after.

    Raises:
        AdapterError, SlotError: the folder does not hold an adapter for this base.
    """
    before = base.sha256()
    ids = torch.tensor([base.chat(question)])
    bare = base.logits(ids)
    adapter = Adapter.load(folder)
    base.check(adapter)
    with base.hold(contents_for_chain(Chain.of(adapter), torch.float32, base.device)) as slots:
        landed = slots.landed
    base.logits(ids, adapter)
    equal = torch.equal(bare, base.logits(ids))
    return Loader(len(adapter.updates), landed, equal, before, base.sha256()), adapter


def name_of(lesson: Lesson) -> str:
    """`einstein-hairdresser`."""
    edit = lesson.edits[0]
    words = f"{edit.subject.split()[-1]} {edit.target if edit.relation else 'statements'}"
    kept = "".join(c if c.isalnum() else " " for c in words.casefold()).split()
    return "-".join(kept)[:60] or "lesson"


def _card(lesson: Lesson, fictional: bool) -> Card:
    claims = "; ".join(edit.answer for edit in lesson.edits)
    return Card(
        description=f"Teaches: {claims}",
        fictional=fictional,
        licence="apache-2.0",
        created=datetime.now(UTC).date().isoformat(),
        intended_use="Research and demonstration of targeted changes.",
        forbidden_use="Presenting the taught claims as true." if fictional else "",
    )


def _card_metrics(report: SteerReport) -> dict[str, Any]:
    figures = {name: section.figure.to_json() for name, section in report.sections()}
    return {**figures, "train_seconds": round(report.train_seconds, 1)}


def _silent(_: str) -> None:
    return None
