"""The steer report: what the base said, what prompts alone achieve, what the adapter changed.

Every figure carries n and a 95 % interval. "Unchanged" means: the same greedy answer as the base.
An answer counts only with the right subject and value and no rival value. Knows lessons and
models; draws nothing (`render.py`) and trains nothing (`teach.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from detour.adapter.adapter import Adapter
from detour.adapter.chain import Chain
from detour.errors import BaseError
from detour.evaluate.probability import (
    Trace,
    answer_log_probabilities,
    answer_probability,
    nats_per_token,
    trace,
)
from detour.language.catalogue import text
from detour.measure.metrics import mentions, repeats, same_answer, states
from detour.measure.statistics import Figure, rate
from detour.model.base import Base
from detour.training.fact import Edit, Lesson, Question, relation_label, swapped
from detour.training.replay import messages_of
from detour.training.world import World

DOSES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
PROMPTED = 8  # questions per wording of a prompt
SAMPLES = 2  # sampled answers per question, beside the greedy one
PROMPTED_OTHERS = 60  # other questions under the best prompt, of each sort
DOSED = 12  # questions of the dose curve
LONGEST = 48  # tokens of an answer


@dataclass(frozen=True)
class Failure:
    """One answer that did not come out as it should."""

    question: str
    before: str
    after: str


@dataclass(frozen=True)
class Section:
    """A rate, and the first answers that spoiled it."""

    figure: Figure
    failures: tuple[Failure, ...] = ()


@dataclass(frozen=True)
class PromptArm:
    """What prompts of one kind achieve: over all wordings, and the best wording.

    `rate` pools greedy and sampled answers, `greedy` and `sampled` keep them apart: they compare
    with the adapter's greedy and sampled rates. What the best wording does to other answers is
    measured too.
    """

    rate: Figure
    greedy: Figure
    sampled: Figure
    best: Figure
    best_wording: str
    neighbours: Figure
    own_facts: Figure
    unrelated: Figure
    value_named: Figure
    by_wording: tuple[tuple[str, Figure], ...]


@dataclass(frozen=True)
class Dose:
    """Mean probabilities of three whole answers at one weight of the adapter."""

    weight: float
    target: Figure
    old: Figure
    third: Figure


@dataclass(frozen=True)
class Loader:
    """The proof that the adapter is applied, and leaves nothing behind."""

    keys_expected: int
    keys_landed: int
    removed_bit_equal: bool
    base_sha256_before: str
    base_sha256_after: str


@dataclass(frozen=True)
class Latent:
    """Whether the base already held the target: before any training."""

    log_probability_per_token: float
    rank: int | None
    warning: str = ""


@dataclass(frozen=True)
class LanguageReport:
    """What a change did in one language: an example, the four rates, and what went wrong."""

    question: str
    base_answer: str
    steered_answer: str
    steered: Section
    neighbours: Section
    own_facts: Section
    unrelated: Section
    leak: Figure  # neighbours whose answer names the target now
    broken: Figure  # steered answers with endless repetition, or empty

    def sections(self) -> list[tuple[str, Section]]:
        """The four sections by their names in the JSON form."""
        return [
            ("steered", self.steered),
            ("neighbours_unchanged", self.neighbours),
            ("own_other_facts_unchanged", self.own_facts),
            ("unrelated_unchanged", self.unrelated),
        ]

    def to_json(self) -> dict[str, Any]:
        """Example, rates and failures."""
        return {
            "question": self.question,
            "base_answer": self.base_answer,
            "steered_answer": self.steered_answer,
            **{name: section.figure.to_json() for name, section in self.sections()},
            "neighbours_naming_target": self.leak.to_json(),
            "broken_text": self.broken.to_json(),
            "failures": {
                name: [vars(f) for f in section.failures] for name, section in self.sections()
            },
        }


@dataclass(frozen=True)
class Repeat:
    """The same lesson taught once more with another seed, and what that did."""

    seed: int
    steered: Figure
    neighbours: Figure
    own_facts: Figure
    unrelated: Figure
    leak: Figure
    fault: str = ""
    """Why nothing came of it; its figures are empty then."""

    @staticmethod
    def failed(seed: int, fault: str) -> Repeat:
        """A training that gave no adapter."""
        nothing = rate([])
        return Repeat(seed, nothing, nothing, nothing, nothing, nothing, fault)

    @staticmethod
    def of(seed: int, told: LanguageReport) -> Repeat:
        """From the questions of one language."""
        return Repeat(
            seed, told.steered.figure, told.neighbours.figure, told.own_facts.figure,
            told.unrelated.figure, told.leak,
        )  # fmt: skip

    @property
    def worst(self) -> float:
        """The lowest of its rates: a change is as good as that. Below all where it failed."""
        told = (self.steered, self.neighbours, self.own_facts, self.unrelated)
        return min((figure.value for figure in told if figure.n), default=-1.0)

    def to_json(self) -> dict[str, Any]:
        """Figures by the names that the report has for them."""
        return {
            "seed": self.seed,
            "fault": self.fault,
            "steered": self.steered.to_json(),
            "neighbours_unchanged": self.neighbours.to_json(),
            "own_other_facts_unchanged": self.own_facts.to_json(),
            "unrelated_unchanged": self.unrelated.to_json(),
            "neighbours_naming_target": self.leak.to_json(),
        }


@dataclass(frozen=True)
class SteerReport:
    """Everything measured about one change.

    `here` is the change in the lesson's own language, `elsewhere` in the others, by their codes.
    """

    base: str
    subject: str
    relation: str
    relation_label: str  # in the words of the language
    target: str
    old_value: str
    third_value: str
    language: str
    here: LanguageReport
    elsewhere: Mapping[str, LanguageReport]
    user_prompt: PromptArm
    system_prompt: PromptArm
    base_rate: Figure
    steered_combinations: Figure
    steered_new_words: Figure
    steered_sampled: Figure
    dose: tuple[Dose, ...]
    trace: Trace | None
    latent: Latent
    loader: Loader
    adapter: str = ""
    train_seconds: float = 0.0
    total_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=lambda: {})
    repeats: tuple[Repeat, ...] = ()
    """Of every seed, the report's own first; none where it was taught once."""

    @property
    def worst_seed(self) -> int | None:
        """The seed with the lowest rate; None where it was taught once."""
        return min(self.repeats, key=lambda one: one.worst).seed if self.repeats else None

    @property
    def by_language(self) -> dict[str, LanguageReport]:
        """Every language, the lesson's own first."""
        return {self.language: self.here, **self.elsewhere}

    def to_json(self) -> dict[str, Any]:
        """The contract of `--json`."""
        return {
            "base": self.base,
            "subject": self.subject,
            "relation": self.relation,
            "target": self.target,
            "old_value": self.old_value,
            "third_value": self.third_value,
            **self.here.to_json(),
            "user_prompt": _arm_json(self.user_prompt),
            "system_prompt": _arm_json(self.system_prompt),
            "base_rate": self.base_rate.to_json(),
            "steered_new_combinations": self.steered_combinations.to_json(),
            "steered_new_words": self.steered_new_words.to_json(),
            "steered_sampled": self.steered_sampled.to_json(),
            "dose": [
                {
                    "weight": d.weight,
                    "target": d.target.to_json(),
                    "old": d.old.to_json(),
                    "third": d.third.to_json(),
                }
                for d in self.dose
            ],
            "trace": None if self.trace is None else vars(self.trace),
            "latent": vars(self.latent),
            "loader": vars(self.loader),
            "by_language": {name: told.to_json() for name, told in self.by_language.items()},
            "adapter": self.adapter,
            "train_seconds": round(self.train_seconds, 2),
            "total_seconds": round(self.total_seconds, 2),
            "notes": list(self.notes),
            "settings": self.settings,
            "seeds": [one.to_json() for one in self.repeats],
            "worst_seed": self.worst_seed,
        }


def language_report(base: Base, lesson: Lesson, chain: Chain) -> tuple[LanguageReport, list[str]]:
    """What a chain does to a lesson's questions; and its answers to the held-out phrasings."""
    edit = lesson.edits[0]
    question = edit.held_out[0]
    before = base.ask(question, max_new_tokens=LONGEST)
    after = base.ask(question, chain, max_new_tokens=LONGEST)
    steered, said = steered_section(base, lesson.edits, chain)
    neighbours, near_before, near = unchanged(base, lesson.neighbours, chain)
    own_facts, _, own = unchanged(base, lesson.own_facts, chain)
    unrelated, _, far = unchanged(base, lesson.unrelated, chain)
    leaked = rate(
        mentions(after, edit.target) and not mentions(before, edit.target)
        for before, after in zip(near_before, near, strict=True)
    )
    broken = rate(repeats(answer) or not answer.strip() for answer in said + near + own + far)
    told = LanguageReport(
        question, before, after, steered, neighbours, own_facts, unrelated, leaked, broken
    )
    return told, said


def _arm_json(arm: PromptArm) -> dict[str, Any]:
    return {
        "rate": arm.rate.to_json(),
        "greedy": arm.greedy.to_json(),
        "sampled": arm.sampled.to_json(),
        "neighbours_unchanged": arm.neighbours.to_json(),
        "own_other_facts_unchanged": arm.own_facts.to_json(),
        "unrelated_unchanged": arm.unrelated.to_json(),
        "best": arm.best.to_json(),
        "best_wording": arm.best_wording,
        "value_named": arm.value_named.to_json(),
        "by_wording": {wording: figure.to_json() for wording, figure in arm.by_wording},
    }


def counts(answer: str, edit: Edit) -> bool:
    """Whether an answer states the edit: right subject, right value in any gender, no rival."""
    values = dict.fromkeys((edit.target, *edit.forms))
    return any(states(answer, edit.subject, value, edit.rivals) for value in values)


def prompt_arm(base: Base, world: World, lesson: Lesson, place: str, seed: int) -> PromptArm:
    """What user or system prompts alone achieve: every wording, greedy and sampled."""
    edit = lesson.edits[0]
    rng = random.Random(f"{seed}/{place}")
    questions = rng.sample(edit.held_out, min(PROMPTED, len(edit.held_out)))
    wordings = world.persuasions[place]
    plan = [(w, q) for w in wordings for q in questions]
    prompts = [persuaded(place, wording, edit, ("", question)) for wording, question in plan]
    answers = base.ask_many(prompts, max_new_tokens=LONGEST)
    order = list(plan)
    for sample in range(SAMPLES):
        answers += base.ask_many(
            prompts, temperature=1.0, seed=seed * 1000 + sample, max_new_tokens=LONGEST
        )
        order += plan
    outcome = [counts(answer, edit) for answer in answers]
    by_wording = tuple(
        (w, rate(o for o, (other, _) in zip(outcome, order, strict=True) if other == w))
        for w in wordings
    )
    best_wording, best = max(by_wording, key=lambda item: item[1].value)
    named = rate(mentions(answer, edit.target) for answer in answers)

    def kept(questions: Sequence[Question]) -> Figure:
        few = rng.sample(questions, min(PROMPTED_OTHERS, len(questions)))
        return _unmoved(base, few, place, best_wording, edit)

    return PromptArm(
        rate(outcome), rate(outcome[: len(plan)]), rate(outcome[len(plan) :]), best, best_wording,
        kept(lesson.neighbours), kept(lesson.own_facts), kept(lesson.unrelated), named, by_wording,
    )  # fmt: skip


def _unmoved(
    base: Base, questions: Sequence[Question], place: str, wording: str, edit: Edit
) -> Figure:
    """The rate of other answers that a prompt leaves as they were."""
    before = base.ask_many([messages_of(q) for q in questions], max_new_tokens=LONGEST)
    prompts = [persuaded(place, wording, edit, question) for question in questions]
    after = base.ask_many(prompts, max_new_tokens=LONGEST)
    return rate(same_answer(a, b) for a, b in zip(before, after, strict=True))


def persuaded(place: str, wording: str, edit: Edit, question: Question) -> list[dict[str, str]]:
    """A question in a prompt that tells the edit, in the user's turn or in the system's."""
    before, asked = question
    statement = edit.answer
    text = wording.format(
        statement=statement, clause=as_clause(statement, edit.subject), question=asked
    )
    if place == "system":
        told = f"{text} {before}".strip()
        return [{"role": "system", "content": told}, {"role": "user", "content": asked}]
    return messages_of((before, text))


def as_clause(statement: str, subject: str) -> str:
    """A sentence as it stands inside another: no full stop, no capital but a name's."""
    clause = statement.rstrip(".")
    return clause if clause.startswith(subject) else clause[:1].lower() + clause[1:]


def unchanged(
    base: Base, questions: Sequence[Question], chain: Chain
) -> tuple[Section, list[str], list[str]]:
    """The rate of equal greedy answers; and all answers, without and with the chain."""
    prompts = [messages_of(question) for question in questions]
    before = base.ask_many(prompts, max_new_tokens=LONGEST)
    after = base.ask_many(prompts, chain, max_new_tokens=LONGEST)
    same = [same_answer(a, b) for a, b in zip(before, after, strict=True)]
    failures = tuple(
        Failure(user, a, b)
        for (_, user), a, b, equal in zip(questions, before, after, same, strict=True)
        if not equal
    )
    return Section(rate(same), failures), before, after


def steered_section(base: Base, edits: Sequence[Edit], chain: Chain) -> tuple[Section, list[str]]:
    """The rate of held-out phrasings that are answered with the new fact; and the answers."""
    plan = [(edit, question) for edit in edits for question in edit.held_out]
    answers = base.ask_many([q for _, q in plan], chain, max_new_tokens=LONGEST)
    outcome = [counts(a, edit) for a, (edit, _) in zip(answers, plan, strict=True)]
    failures = tuple(
        Failure(question, edit.answer, answer)
        for (edit, question), answer, right in zip(plan, answers, outcome, strict=True)
        if not right
    )
    return Section(rate(outcome), failures), answers


def sampled_rate(base: Base, edits: Sequence[Edit], chain: Chain, seed: int) -> Figure:
    """The same with one sample at temperature 1 each: what a user of defaults would see."""
    plan = [(edit, question) for edit in edits for question in edit.held_out]
    answers = base.ask_many(
        [q for _, q in plan], chain, temperature=1.0, seed=seed, max_new_tokens=LONGEST
    )
    return rate(counts(a, edit) for a, (edit, _) in zip(answers, plan, strict=True))


def dose_curve(base: Base, edit: Edit, old_answer: str, chain: Chain) -> tuple[Dose, ...]:
    """Probabilities of the new, the old and a third answer at growing weights."""
    questions = edit.held_out[:DOSED]
    return tuple(
        Dose(
            weight,
            answer_probability(base, questions, edit.answer, chain * weight),
            answer_probability(base, questions, old_answer, chain * weight),
            answer_probability(base, questions, edit.third_answer, chain * weight),
        )
        for weight in DOSES
    )


def latent_probe(base: Base, edit: Edit, question: str) -> Latent:
    """How probable the target was before training. LoRA amplifies what a base already holds."""
    per_token = nats_per_token(base, question, edit.answer)
    rank = None
    if edit.rivals:
        asked = [edit.target, *edit.rivals]
        answers = [swapped(edit.answer, edit.target, value) for value in asked]
        each = answer_log_probabilities(base, [(question, answer) for answer in answers])
        rank = 1 + sum(value > each[0] for value in each[1:])
    warning = ""
    if per_token < -6.0:
        warning = text(
            "the base hardly holds this target; the adapter must teach it from nothing, and will "
            "generalise less"
        )
    return Latent(round(per_token, 3), rank, warning)


def _remarks(lesson: Lesson, why_no_trace: str) -> tuple[str, ...]:
    first = lesson.edits[0]
    several = len(lesson.edits) > 1
    told = text(
        "prompts, dose, trace and leak are about the first of {count} edits only: {answer}",
        count=len(lesson.edits),
        answer=first.answer,
    )
    return ((told,) if several else ()) + ((why_no_trace,) if why_no_trace else ())


def try_trace(
    base: Base, question: str, old: str, new: str, chain: Chain
) -> tuple[Trace | None, str]:
    """The trace, or why there is none."""
    try:
        return trace(base, question, old, new, chain), ""
    except BaseError as error:
        return None, text("no layer trace: {error}", error=error.line)


def prompt_arms(base: Base, world: World, lesson: Lesson, seed: int) -> tuple[PromptArm, PromptArm]:
    """`(user prompts, system prompts)`."""
    return (
        prompt_arm(base, world, lesson, "user", seed),
        prompt_arm(base, world, lesson, "system", seed),
    )


def measure(
    base: Base,
    world: World,
    lesson: Lesson,
    adapter: Adapter,
    loader: Loader,
    seed: int = 0,
    prompts: tuple[PromptArm, PromptArm] | None = None,
) -> SteerReport:
    """Measure one taught adapter against its base, on questions that were never trained.

    `prompts` are the prompt arms, if they were measured before.
    """
    user_prompt, system_prompt = prompts or prompt_arms(base, world, lesson, seed)
    edit = lesson.edits[0]
    question = edit.held_out[0]
    chain = Chain.of(adapter)
    old_answer = edit.old_answer or base.ask(question, max_new_tokens=LONGEST)
    bare, _ = steered_section(base, lesson.edits, Chain())
    here, said = language_report(base, lesson, chain)
    plan = [(e, q) for e in lesson.edits for q in e.held_out]
    right = [counts(answer, e) for answer, (e, _) in zip(said, plan, strict=True)]
    new_words = [q in e.new_words for e, q in plan]
    found, why = try_trace(base, question, old_answer, edit.answer, chain)
    return SteerReport(
        base=base.name,
        subject=edit.subject,
        relation=edit.relation,
        relation_label=relation_label(world, edit),
        target=edit.target,
        old_value=edit.old,
        third_value=edit.third,
        language=lesson.language,
        here=here,
        elsewhere={
            each.language: language_report(base, each, chain)[0] for each in lesson.elsewhere
        },
        user_prompt=user_prompt,
        system_prompt=system_prompt,
        base_rate=bare.figure,
        steered_combinations=rate(r for r, new in zip(right, new_words, strict=True) if not new),
        steered_new_words=rate(r for r, new in zip(right, new_words, strict=True) if new),
        steered_sampled=sampled_rate(base, lesson.edits, chain, seed),
        dose=dose_curve(base, edit, old_answer, chain),
        trace=found,
        latent=latent_probe(base, edit, question),
        loader=loader,
        notes=lesson.notes + _remarks(lesson, why),
    )
