"""Change a fact, then prove what changed.

Wires a lesson, the training loop and the steer report together. The adapter is saved and read back
before anything is measured, so that what is proven is what a user will load.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from detour.adapter.adapter import Adapter
from detour.adapter.card import Card
from detour.adapter.chain import Chain
from detour.errors import ConfigError, DataError, TrainingError
from detour.evaluate.chain_tests import items_of_lesson
from detour.evaluate.steer_report import (
    Loader,
    Repeat,
    SteerReport,
    counts,
    language_report,
    measure,
)
from detour.language.catalogue import Text, text
from detour.model.base import Base
from detour.model.examples import Example, pair
from detour.slots.chained import contents_for_chain
from detour.training.company import (
    Company,
    alone,
    learn_in_company,
    prompted_rows,
    unchanged_rows,
)
from detour.training.config import TrainConfig, make_config
from detour.training.fact import Lesson, check_whole, edit_rows
from detour.training.loop import Result, Watcher, train_with
from detour.training.own_fact import own_lesson, own_statements
from detour.training.replay import replay_rows
from detour.training.together import Composed
from detour.training.world import World, spoken
from detour.training.world_fact import find_attribute, lesson_in_all, statements_lesson

DEFAULTS: dict[str, Any] = {
    "batch_size": 12,
    "validation_share": 0.12,
    "epochs": 4.0,
    "patience": 0,
}
IMAGINE = {"en": "Imagine this: {told}", "de": "Stell dir vor: {told}"}
CHANGE = "change"  # the key on a card under which it says what was asked for
DIGEST = "sha256"  # and the key therein, of the lesson that was made of it
_QUESTIONS = ("paraphrases", "neighbours", "unrelated")  # what statements may bring along
Teller = Callable[[str], None]
Row = TypeVar("Row")


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
    check_spoken(base, known.language)
    if statements:
        _alone(subject=subject, relation=relation, target=target)
        if base.name == "starter":
            _alone(**own)
            return statements_lesson(known, statements, seed)
        _alone(**{n: v for n, v in own.items() if n not in _QUESTIONS})
        mine = {n: v for n, v in own.items() if n in _QUESTIONS}
        return own_statements(base, known, statements, seed=seed, **mine)
    check_whole(subject=subject, relation=relation, target=target)
    found = known.subject(subject) if base.name == "starter" else None
    if found and not any(own.values()):
        change = (found, find_attribute(known, found, relation), target)
        return lesson_in_all(known, [change], seed, others_than(known))
    lesson = own_lesson(base, known, subject, relation, target, seed=seed, **own)
    if base.name == "starter" and not found:
        return replace(lesson, notes=(_unknown(known, subject), *lesson.notes))
    if found:
        given = ", ".join(f"--{n.replace('_', '-')}" for n, value in own.items() if value)
        note = text("because of {given} the lesson is made as for a base of your own", given=given)
        return replace(lesson, notes=(note, *lesson.notes))
    return lesson


def _unknown(world: World, subject: str) -> Text:
    """The note that the starter never read of a subject; a slip of the pen looks like that too."""
    names = {form for one in world.subjects for form in (one.name, *one.bare)}
    told = text(
        "the starter knows nothing of {subject}: it is taught as a new name, and the starter's own "
        "answers about it are guesses",
        subject=subject,
    )
    near = get_close_matches(subject, sorted(names), 1, cutoff=0.75)
    return text("{told}. Did you mean {name}?", told=told, name=repr(near[0])) if near else told


def others_than(world: World) -> tuple[World, ...]:
    """The packaged world in the other languages that the starter speaks."""
    return tuple(World.load(name) for name in spoken() if name != world.language)


def check_spoken(base: Base, language: str) -> None:
    """Refuse to teach the starter in a language that it does not speak.

    Raises:
        ConfigError: its card does not name the language.
    """
    if base.name == "starter" and language not in (known := spoken()):
        raise ConfigError(
            text("the packaged starter does not speak {language!r}", language=language),
            expected=text("one of {languages}", languages=", ".join(known)),
        )


def _alone(**given: object) -> None:
    extra = [name for name, value in given.items() if value]
    if extra:
        raise ConfigError(
            text("statements stand for themselves"),
            found=", ".join(f"--{name}" for name in extra),
            hint=text("leave those out, or teach one fact"),
        )


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
    language: str = "en",
    company: Company | None = None,
    composed: Sequence[Composed] | None = None,
    repeats: int = 0,
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
        language: of the packaged world, `en` or `de`; where `world` is given, its own counts.
        company: finished adapters among which this one learns, so that it can be stacked with them.
        composed: rows that say what they and this one say together; by default the base is asked.
        repeats: how many more times it is taught, with the next seeds, to be measured only.
        own: paraphrases, neighbours, unrelated, own_facts, answer, old, third for a base of one's
            own.

    Raises:
        As `make_lesson` and `train`; in company as `prompted_rows` and `learn_in_company`.
    """
    began = time.monotonic()
    tell = teller or _silent
    known = world or World.load(language)
    lesson = make_lesson(
        base, subject, relation, target, statements=statements, seed=seed, world=known, **own
    )
    for note in lesson.notes:
        tell(note)
    settings = config or lesson_config({}, seed, free=bool(statements))
    untouched = Untouched.of(base, lesson.edits[0].held_out[0])
    result = teach_lesson(
        base, lesson, settings, name or name_of(lesson), watcher=watcher, teller=tell,
        checkpoints=checkpoints, resume=resume, fictional=fictional, company=company,
        composed=composed,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        folder = result.adapter.save(output or Path(scratch) / result.adapter.name)
        loader, adapter = prove_loading(base, folder, untouched)
        tell(
            text(
                "{landed} of {expected} keys landed",
                landed=loader.keys_landed,
                expected=loader.keys_expected,
            )
        )
        report = measure(base, known, lesson, adapter, loader, seed)
    report = replace(
        report,
        adapter=str(output) if output else "",
        train_seconds=result.seconds,
        total_seconds=time.monotonic() - began,
        settings=settings_told(settings, result),
    )
    change = {
        "subject": subject, "relation": relation, "target": target,
        "statements": list(statements), **own, "seed": seed, "language": known.language,
    }  # fmt: skip
    asked = {name: told for name, told in change.items() if told}
    adapter = described(adapter, report, asked, lesson)
    if output:
        adapter.save(output)  # before it is taught again: a fault there loses nothing
    if repeats:
        others = [
            _repeated(base, lesson, settings, number, result.adapter.name, company, composed,
                      watcher, tell)
            for number in range(1, repeats + 1)
        ]  # fmt: skip
        every = (Repeat.of(settings.seed, report.here), *others)
        report = replace(report, repeats=every, total_seconds=time.monotonic() - began)
    return adapter, report


def _repeated(
    base: Base,
    lesson: Lesson,
    config: TrainConfig,
    number: int,
    name: str,
    company: Company | None,
    composed: Sequence[Composed] | None,
    watcher: Watcher | None,
    tell: Teller,
) -> Repeat:
    """The same lesson with a later seed; a training that fails is an outcome like any other."""
    again = config.model_copy(update={"seed": config.seed + number})
    tell(text("taught once more, with seed {seed}", seed=again.seed))
    try:
        other = teach_lesson(
            base, lesson, again, name, watcher=watcher, company=company, composed=composed
        )
    except (TrainingError, DataError) as error:
        return Repeat.failed(again.seed, error.line)
    told, _ = language_report(base, lesson, Chain.of(other.adapter))
    return Repeat.of(again.seed, told)


@dataclass(frozen=True)
class Untouched:
    """A base before anything was done with it: its hash, and the logits of one question."""

    sha256: str
    ids: Int[Tensor, "1 tokens"]
    logits: Float[Tensor, "1 tokens vocab"]

    @staticmethod
    def of(base: Base, question: str) -> Untouched:
        """Take both now."""
        ids = torch.tensor([base.chat(question)])
        return Untouched(base.sha256(), ids, base.logits(ids))


def lesson_config(settings: Mapping[str, Any], seed: int, free: bool = False) -> TrainConfig:
    """A training configuration for a lesson: the user's settings over `DEFAULTS`.

    Free statements may hold words that the base never learned ("E = mc²"): three times as long.

    Raises:
        ConfigError: as `make_config`.
    """
    start = {**DEFAULTS, "epochs": 3 * DEFAULTS["epochs"]} if free else DEFAULTS
    defaults = {k: v for k, v in start.items() if not (k == "epochs" and "steps" in settings)}
    return make_config({**defaults, **settings, "seed": seed})


def settings_told(config: TrainConfig, result: Result) -> dict[str, Any]:
    """The settings as a report tells them: nothing left open."""
    plan = {"steps": result.plan.steps, "learning_rate": result.plan.learning_rate}
    return {**config.model_dump(mode="json"), **plan}


def described(
    adapter: Adapter, report: SteerReport, change: Mapping[str, Any], lesson: Lesson
) -> Adapter:
    """The adapter with the report's figures on its card, and what was asked for: the arguments of
    `make_lesson` that were given, so that the lesson can be made again, and its digest.
    """
    told = {**json.loads(json.dumps(change)), DIGEST: lesson.digest()}
    config = {**adapter.card.config, CHANGE: told}
    return adapter.with_(card=adapter.card.with_(metrics=_card_metrics(report), config=config))


def taught(chain: Chain) -> tuple[dict[str, Any], str]:
    """What the first adapter of a chain that was taught a fact was asked for, the arguments of
    `make_lesson`; and the digest of its lesson. Both are empty without such an adapter.
    """
    found = (term.adapter.card.config.get(CHANGE) for term in chain.terms)
    change = next((dict(one) for one in found if isinstance(one, Mapping)), {})
    digest = str(change.pop(DIGEST, ""))
    return change, digest


def teach_lesson(
    base: Base,
    lesson: Lesson,
    config: TrainConfig,
    name: str,
    *,
    watcher: Watcher | None = None,
    teller: Teller | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    fictional: bool = True,
    company: Company | None = None,
    composed: Sequence[Composed] | None = None,
) -> Result:
    """Train on a lesson: edit rows and, one for one, replay rows with the base's own answers.

    Some phrasings that are never trained become the adapter's own tests. In company the same rows
    come once more with some of it in the slots, and say what all of these say together.

    Raises:
        DataError: the base answers none of the replay questions; or as `prompted_rows`.
        ConfigError: a setting that `learn_in_company` does not know, or a missing instruction.
    """
    every = lesson.in_all()
    replay = replay_rows(base, [question for each in every for question in each.replay])
    if not replay:
        raise DataError(text("the base answers no question"), hint=text("check its chat template"))
    rows = balanced(evened([edit_rows(edit) for each in every for edit in each.edits]), replay)
    how: dict[str, Any] = {
        "name": name, "watcher": watcher, "teller": teller, "checkpoints": checkpoints,
        "resume": resume,
        "card": _card(lesson, fictional, "apache-2.0" if base.name == "starter" else ""),
    }  # fmt: skip
    if company is None:
        neighbours = replay[: 4 * config.batch_size] if config.kl_weight else ()
        result = train_with(base, rows, config, neighbours=neighbours, **how)
    else:
        given = composed or _asked_together(base, lesson, name, company, config.seed, teller)
        told = [row for row in given if _question(row) not in lesson.tested]
        if len(told) < len(given) and teller:
            teller(text("{count} rows are left out: their questions belong to the test",
                        count=len(given) - len(told)))  # fmt: skip
        if not told:
            raise DataError(text("all rows for the company ask what the test asks"),
                            hint=text("ask otherwise than the held-out questions do"))  # fmt: skip
        kept = unchanged_rows(base, replay, name, company, seed=config.seed)
        result = learn_in_company(
            base, [*alone(rows, name), *balanced(told, kept)], config=config, company=company, **how
        )
    return replace(result, adapter=result.adapter.with_(test_rows=items_of_lesson(lesson)))


def _asked_together(
    base: Base, lesson: Lesson, name: str, company: Company, seed: int, teller: Teller | None
) -> list[Composed]:
    """What the base says when it is to imagine the change, and to do what the company does.

    It is asked in the lesson's own language only, in which the instructions are taken to be.
    """
    rows = [(pair(question, edit.answer), edit) for edit in lesson.edits for question in edit.asked]
    edit_of = {id(row): edit for row, edit in rows}
    own = IMAGINE[lesson.language].format(told=" ".join(edit.answer for edit in lesson.edits))
    told = replace(company, instructions={name: own, **company.instructions})
    return prompted_rows(
        base, [row for row, _ in rows], name, told, seed=seed, teller=teller,
        accepts=lambda row, answer: counts(answer, edit_of[id(row)]),
    )  # fmt: skip


def _question(composed: Composed) -> str:
    """The last question of a row, or its text."""
    row = composed.row
    return str(row.messages[-2]["content"]) if isinstance(row, Example) else row.text


def evened(edits: Sequence[Sequence[Example]]) -> list[Example]:
    """The rows of all edits, those of small ones repeated until each weighs about the same."""
    most = max(len(rows) for rows in edits)
    return [row for rows in edits for row in [*rows] * round(most / len(rows))]


def balanced(edits: Sequence[Row], replay: Sequence[Row]) -> list[Row]:
    """Edit rows repeated until they are at least half as many as the replay rows."""
    times = max(1, round(len(replay) / (2 * len(edits))))
    return [*edits] * times + [*replay]


def prove_loading(base: Base, folder: Path, before: Untouched) -> tuple[Loader, Adapter]:
    """Load from disk, land every key, leave again; compared with the base before its training.

    Raises:
        AdapterError, SlotError: the folder does not hold an adapter for this base.
    """
    adapter = Adapter.load(folder)
    chain = base.bind(adapter)
    with base.hold(contents_for_chain(chain, torch.float32, base.device)) as slots:
        landed = slots.landed
    base.logits(before.ids, adapter)
    equal = torch.equal(before.logits, base.logits(before.ids))
    return Loader(len(adapter.updates), landed, equal, before.sha256, base.sha256()), adapter


def name_of(lesson: Lesson) -> str:
    """`einstein-hairdresser`."""
    edit = lesson.edits[0]
    words = f"{edit.subject.split()[-1]} {edit.target if edit.relation else 'statements'}"
    kept = "".join(c if c.isalnum() else " " for c in words.casefold()).split()
    return "-".join(kept)[:60] or "lesson"


def card_sentences(lesson: Lesson) -> tuple[Text, Text, Text]:
    """What the card of a lesson says: its claims, what it is for, what it is not for."""
    claims = "; ".join(edit.answer for each in lesson.in_all() for edit in each.edits)
    return (
        text("Teaches: {claims}", claims=claims),
        text("Research and demonstration of targeted changes."),
        text("Presenting the taught claims as true."),
    )


def _card(lesson: Lesson, fictional: bool, licence: str) -> Card:
    claims, intended, forbidden = card_sentences(lesson)
    return Card(
        description=str(claims),
        fictional=fictional,
        licence=licence,
        created=datetime.now(UTC).date().isoformat(),
        intended_use=str(intended),
        forbidden_use=str(forbidden) if fictional else "",
    )


def _card_metrics(report: SteerReport) -> dict[str, Any]:
    figures = {
        language: {name: section.figure.to_json() for name, section in told.sections()}
        for language, told in report.by_language.items()
    }
    here = {name: section.figure.to_json() for name, section in report.here.sections()}
    return {**here, "by_language": figures, "train_seconds": round(report.train_seconds, 1)}


def _silent(_: str) -> None:
    return None
