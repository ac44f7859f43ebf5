"""The full form of the steer report: one change, four ways of making it, every figure for each.

The base as it is, a user prompt and a system prompt that tell the change (the wordings that work
best on the phrasings that were trained), and the chain. "Unchanged" always means: the same greedy
answer as the bare base. Knows lessons and models; trains nothing and draws nothing.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from math import log2
from statistics import fmean, harmonic_mean
from typing import Any

from detour.adapter.chain import Chain
from detour.data.languages import language_of
from detour.decoding.request import Finish
from detour.evaluate.steer_report import LONGEST, as_clause, counts, persuaded
from detour.measure.metrics import mentions, repeats, same_answer
from detour.measure.retention import TokenMoves, neutral_texts, token_moves
from detour.measure.statistics import Figure, mean, rate, resampled, wilson
from detour.model.base import Base
from detour.model.examples import Example
from detour.model.likelihood import log_likelihoods
from detour.model.rows import encode
from detour.training.fact import Edit, Lesson, Question, swapped
from detour.training.material import tokenizer_of
from detour.training.replay import messages_of
from detour.training.world import World

ARMS = ("base", "user_prompt", "system_prompt", "steered")
SAMPLES = 3  # of every held-out phrasing
TRIED = 8  # trained phrasings on which the wordings of a prompt are compared
MOST = 120  # questions of each kind, neighbours aside
MOST_NEIGHBOURS = 320  # 0 faults in 300 bound a rate at 1 %
DRAWS = 1000  # of a bootstrap
STILL = 1e-6  # nats a token by which nothing was gained
ENTROPY = {2: 2 / 3, 3: 4 / 3}  # weights of bigrams and trigrams (Meng et al. 2022, section C.2)
NO = {"en": ("no", "not", "never"), "de": ("nein", "nicht", "kein", "keine", "nie")}
FRAMES = {
    "en": ("Who{rest}?", ("Is it true that {clause}?", "Is this right: {old}", "{old} Right?")),
    "de": ("Wer{rest}?", ("Stimmt das: {old}", "Ist das richtig: {old}", "{old} Stimmt's?")),
}
Asking = Callable[[Question], list[dict[str, str]]]


@dataclass(frozen=True)
class Hop:
    """A question of the user's own that follows from the change, and what its answer must name."""

    question: str
    names: str


@dataclass(frozen=True)
class Arm:
    """A way of asking, and what it gave.

    Attributes:
        base: the model.
        chain: what acts.
        asking: how a question is put.
        before: text that stands before neutral text, where the arm is a prompt.
    """

    base: Base
    chain: Chain = field(default_factory=Chain)
    asking: Asking = messages_of
    before: str = ""

    def answers(self, questions: Sequence[Question], samples: int = 0, seed: int = 0) -> list[str]:
        """Greedy ones; or so many samples at temperature 1 of every question, one after another."""
        prompts = [self.asking(question) for question in questions]
        if not prompts:
            return []
        if not samples:
            return self.base.ask_many(prompts, self.chain, max_new_tokens=LONGEST)
        return [
            answer
            for turn in range(samples)
            for answer in self.base.ask_many(
                prompts, self.chain, temperature=1.0, seed=seed + turn, max_new_tokens=LONGEST
            )
        ]

    def whole_answers(self, questions: Sequence[Question]) -> list[str]:
        """Greedy answers that end by themselves; an empty text for one that was cut."""
        prompts = [self.asking(question) for question in questions]
        found = self.base.generate(prompts, self.chain, max_new_tokens=LONGEST) if prompts else []
        return ["" if one.finish is Finish.LENGTH else self.base.decode(one.ids).strip()
                for one in found]  # fmt: skip

    def nats(self, rows: Sequence[tuple[Question, str]]) -> list[float]:
        """Log-probability per token of whole answers behind questions, their ends included."""
        tokenizer = tokenizer_of(self.base)
        encoded = [
            one
            for question, said in rows
            for one in encode(
                tokenizer,
                [Example((*self.asking(question), {"role": "assistant", "content": said}))],
                self.base.longest,
            )
        ]
        told = log_likelihoods(self.base, encoded, self.chain)
        return [value / sum(row.learned[1:]) for value, row in zip(told, encoded, strict=True)]


@dataclass(frozen=True)
class FullReport:
    """Every figure by arm and name; NaN and n = 0 where there is nothing to measure.

    Attributes:
        arms: of `ARMS`.
        wordings: of the prompts.
        examples: a held-out phrasing, and what each arm said to it.
        prompts_sha256: of all questions that were asked, none of which is trained on.
    """

    arms: Mapping[str, Mapping[str, Figure]]
    wordings: Mapping[str, str]
    examples: Mapping[str, str]
    prompts_sha256: str

    def to_json(self) -> dict[str, Any]:
        """Figures as `{value, low, high, n}` under each arm."""
        return {
            **{
                arm: {name: one.to_json() for name, one in figures.items()}
                for arm, figures in self.arms.items()
            },
            "wordings": dict(self.wordings),
            "examples": dict(self.examples),
            "test_prompts_sha256": self.prompts_sha256,
        }


def full_report(
    base: Base,
    world: World,
    lesson: Lesson,
    chain: Chain,
    *,
    hops: Sequence[Hop] = (),
    most: int | None = None,
    seed: int = 0,
    teller: Callable[[str], None] | None = None,
) -> FullReport:
    """Measure a change, made by a chain, beside the prompts that ask for it.

    Args:
        base: the model.
        world: of prompts' wordings and of other subjects.
        lesson: the change; only its first edit, in its own language.
        chain: that was taught it.
        hops: questions of the user's own about what follows from it.
        most: questions of each kind; by default 120, and 320 about neighbours.
        seed: of the samples.
        teller: is told the name of every arm as it comes.

    Raises:
        BaseError: no tokenizer or chat template. WrongBase, SlotError: a chain of another base.
    """
    base.bind(chain)
    plain = Arm(base)
    asked = Asked.of(base, world, lesson, hops, most)
    wordings = {
        place: _best(base, world, asked.edit, lesson.edits[0].asked, place)
        for place in ("user", "system")
    }
    arms = {
        "base": plain,
        **{
            f"{place}_prompt": Arm(
                base,
                asking=lambda question, place=place: persuaded(
                    place, wordings[place], asked.edit, question
                ),
                before=persuaded("system", wordings[place], asked.edit, ("", ""))[0]["content"],
            )
            for place in wordings
        },
        "steered": Arm(base, chain),
    }
    bare = Said.of(plain, asked, seed)
    figures: dict[str, dict[str, Figure]] = {}
    examples: dict[str, str] = {"question": asked.held_out[0][1]}
    for name, arm in arms.items():
        if teller:
            teller(name)
        said = bare if name == "base" else Said.of(arm, asked, seed)
        figures[name] = _figures(asked, said, bare)
        examples[name] = said.held_out[0]
    return FullReport(figures, wordings, examples, asked.digest)


def _best(base: Base, world: World, edit: Edit, asked: Sequence[str], place: str) -> str:
    """The wording that most trained phrasings are answered with the change under."""
    wordings, questions = world.persuasions[place], asked[:TRIED]
    prompts = [persuaded(place, w, edit, ("", q)) for w in wordings for q in questions]
    said = iter(base.ask_many(prompts, max_new_tokens=LONGEST))
    right = [sum(counts(next(said), edit) for _ in questions) for _ in wordings]
    return wordings[right.index(max(right))]


@dataclass(frozen=True)
class Asked:
    """The questions of a report, each kind apart, and the sentences whose probability counts."""

    edit: Edit
    trained: tuple[Question, ...]
    held_out: tuple[Question, ...]
    neighbours: tuple[Question, ...]
    own_facts: tuple[Question, ...]
    unrelated: tuple[Question, ...]
    reversals: tuple[Question, ...]
    negations: tuple[Question, ...]
    hops: tuple[Hop, ...]
    old_answer: str
    leaks: tuple[str, ...]
    """Of each neighbour the edit's sentence said of it; empty where it is not known of whom."""
    kept: tuple[str, ...]
    """Of each neighbour the bare base's own answer; empty where it did not end."""

    @staticmethod
    def of(
        base: Base, world: World, lesson: Lesson, hops: Sequence[Hop], most: int | None
    ) -> Asked:
        """Of a lesson's first edit."""
        edit, few = lesson.edits[0], most or MOST
        near = lesson.neighbours[: most or MOST_NEIGHBOURS]
        known = swapped(edit.answer, edit.target, edit.old) if edit.old else ""
        old = edit.old_answer or known or Arm(base).whole_answers([("", edit.held_out[0])])[0]
        who, doubts = FRAMES[lesson.language]
        reversed_ = edit.answer.removeprefix(edit.subject)
        is_doubted = bool(edit.old) and mentions(old, edit.subject) and mentions(old, edit.old)
        clause = as_clause(old, edit.subject)
        return Asked(
            edit,
            _plain(edit.asked[:few]),
            _plain(edit.held_out[:few]),
            near,
            lesson.own_facts[:few],
            lesson.unrelated[:few],
            _plain([who.format(rest=reversed_.rstrip("."))] if reversed_ != edit.answer else []),
            _plain(
                [doubt.format(clause=clause, old=old) for doubt in doubts] if is_doubted else []
            ),
            tuple(hops),
            old,
            tuple(_said_of(world, edit, question) for _, question in near),
            tuple(Arm(base).whole_answers(near)),
        )

    @cached_property
    def told_before(self) -> tuple[Question, ...]:
        """Neighbours with the edit's sentence before them (CounterFact+; Hoelscher-Obermaier et
        al. 2023, arXiv:2305.17553).
        """
        return tuple(
            (system, f"{self.edit.answer} {question}") for system, question in self.neighbours
        )

    @property
    def known(self) -> list[tuple[Question, str, str]]:
        """Neighbours of whom the edit's sentence can be said: question, that, the base's own."""
        every = zip(self.neighbours, self.leaks, self.kept, strict=True)
        return [(near, leak, kept) for near, leak, kept in every if leak]

    @property
    def compared(self) -> list[tuple[Question, str, str]]:
        """Those of them to whom the base gave an answer that ended."""
        return [(near, leak, kept) for near, leak, kept in self.known if kept]

    @property
    def digest(self) -> str:
        """Of all questions."""
        every = [
            *(*self.held_out, *self.neighbours, *self.own_facts, *self.unrelated),
            *(*self.reversals, *self.negations, *_plain([hop.question for hop in self.hops])),
        ]
        return sha256("\n".join("\t".join(question) for question in every).encode()).hexdigest()


def _plain(questions: Sequence[str]) -> tuple[Question, ...]:
    return tuple(("", question) for question in questions)


def _said_of(world: World, edit: Edit, question: str) -> str:
    """The edit's sentence about whom a question asks; empty where that is not known."""
    others = [s for s in world.subjects if s.name != edit.subject]
    named = [s for s in others if any(mentions(question, str(form)) for form in (s.name, *s.bare))]
    if not named:
        return ""
    return swapped(edit.answer, edit.subject, max(named, key=lambda s: len(s.name)).name)


@dataclass(frozen=True)
class Said:
    """All that one arm said, and how probable it holds what it was shown."""

    trained: list[str]
    held_out: list[str]
    sampled: list[str]
    neighbours: list[str]
    told_before: list[str]
    own_facts: list[str]
    unrelated: list[str]
    reversals: list[str]
    negations: list[str]
    hops: list[str]
    new_trained: list[float]
    old_trained: list[float]
    new_held_out: list[float]
    old_held_out: list[float]
    leaks: list[float]
    kept: list[float]
    moves: list[TokenMoves]

    @staticmethod
    def of(arm: Arm, asked: Asked, seed: int) -> Said:
        """Ask an arm everything."""
        new, old = asked.edit.answer, asked.old_answer
        return Said(
            trained=arm.answers(asked.trained),
            held_out=arm.answers(asked.held_out),
            sampled=arm.answers(asked.held_out, SAMPLES, seed),
            neighbours=arm.answers(asked.neighbours),
            told_before=arm.answers(asked.told_before),
            own_facts=arm.answers(asked.own_facts),
            unrelated=arm.answers(asked.unrelated),
            reversals=arm.answers(asked.reversals),
            negations=arm.answers(asked.negations),
            hops=arm.answers(_plain([hop.question for hop in asked.hops])),
            new_trained=arm.nats([(question, new) for question in asked.trained]),
            old_trained=arm.nats([(question, old) for question in asked.trained]) if old else [],
            new_held_out=arm.nats([(question, new) for question in asked.held_out]),
            old_held_out=arm.nats([(question, old) for question in asked.held_out]) if old else [],
            leaks=arm.nats([(near, leak) for near, leak, _ in asked.known]),
            kept=arm.nats([(near, kept) for near, _, kept in asked.compared]),
            moves=token_moves(arm.base, arm.chain, neutral_texts(), before=arm.before),
        )  # fmt: skip


def _figures(asked: Asked, said: Said, bare: Said) -> dict[str, Figure]:
    """All figures of an arm, by name."""
    edit = asked.edit
    right = [counts(answer, edit) for answer in said.held_out]
    edits = [now - before for now, before in zip(said.new_held_out, bare.new_held_out, strict=True)]
    leaks = [now - before for now, before in zip(said.leaks, bare.leaks, strict=True)]
    every = [*said.held_out, *said.neighbours, *said.own_facts, *said.unrelated]
    return {
        "efficacy": rate(counts(answer, edit) for answer in said.trained),
        "paraphrases": rate(right),
        "paraphrases_sampled": _of_samples([counts(answer, edit) for answer in said.sampled]),
        "delta_log_p": mean(edits),
        "delta_log_p_neighbours": mean(leaks),
        "leak_ratio": _ratio(leaks, edits),
        "locality": _same(said.neighbours, bare.neighbours),
        "neighbours_naming_target": _naming(said.neighbours, edit),
        "told_before_unchanged": _same(said.told_before, bare.neighbours),
        "told_before_naming_target": _naming(said.told_before, edit),
        "own_other_facts_unchanged": _same(said.own_facts, bare.own_facts),
        "unrelated_unchanged": _same(said.unrelated, bare.unrelated),
        "unrelated_naming_target": _naming(said.unrelated, edit),
        **_published(asked, said),
        "portability_alias": rate(
            hit for (_, question), hit in zip(asked.held_out, right, strict=True)
            if not mentions(question, edit.subject)
        ),
        "portability_reversal": rate(mentions(answer, edit.subject) for answer in said.reversals),
        "portability_negation": rate(_denies(answer, edit) for answer in said.negations),
        "portability_hops": rate(
            mentions(answer, hop.names) for hop, answer in zip(asked.hops, said.hops, strict=True)
        ),
        "ngram_entropy": mean([entropy(answer) for answer in every if len(answer.split()) > 3]),
        "broken_text": rate(repeats(answer) or not answer.strip() for answer in every),
        "contradictions": _contradictions(said.held_out, edit),
        **_drift(said.unrelated, bare.unrelated),
        **_retention(said.moves),
    }  # fmt: skip


def _of_samples(right: Sequence[bool]) -> Figure:
    """A rate whose interval counts every question once: its samples are not independent."""
    if not right:
        return rate(right)
    share = fmean(right)
    return Figure(share, *wilson(share, len(right) // SAMPLES), len(right))


def _same(now: Sequence[str], before: Sequence[str]) -> Figure:
    return rate(same_answer(a, b) for a, b in zip(now, before, strict=True))


def _naming(answers: Sequence[str], edit: Edit) -> Figure:
    values = dict.fromkeys((edit.target, *edit.forms))
    return rate(any(mentions(answer, value) for value in values) for answer in answers)


def _ratio(leaks: Sequence[float], edits: Sequence[float]) -> Figure:
    """Mean gain of the target on neighbours over that on the edit's own phrasings.

    Both are drawn anew, each as often as it has rows.
    """
    if not leaks or not edits or abs(fmean(edits)) < STILL:
        return mean([])
    rng = random.Random(0)
    drawn = [
        fmean(rng.choices(leaks, k=len(leaks))) / gain
        for gain in (fmean(rng.choices(edits, k=len(edits))) for _ in range(DRAWS))
        if abs(gain) >= STILL
    ]
    low, high = _quantile(drawn, 0.025), _quantile(drawn, 0.975)
    return Figure(fmean(leaks) / fmean(edits), low, high, len(leaks))


def _published(asked: Asked, said: Said) -> dict[str, Figure]:
    """ES, PS, NS and S as in ROME: which of two sentences is more probable, per token.

    What is true of a neighbour is here what the bare base says of it.
    """
    known = zip(asked.known, said.leaks, strict=True)
    leaks = [leak for (_, _, kept), leak in known if kept]
    told = {
        "ES": rate(new > old for new, old in zip(said.new_trained, said.old_trained, strict=False)),
        "PS": rate(
            new > old for new, old in zip(said.new_held_out, said.old_held_out, strict=False)
        ),
        "NS": rate(kept > leak for kept, leak in zip(said.kept, leaks, strict=True)),
    }
    each = list(told.values())
    if all(one.n for one in each):
        told["S"] = Figure(
            harmonic_mean([one.value for one in each]), harmonic_mean([one.low for one in each]),
            harmonic_mean([one.high for one in each]), min(one.n for one in each),
        )  # fmt: skip
    return told


def _denies(answer: str, edit: Edit) -> bool:
    """Whether an answer to "is it still so?" says no, or names the new value and not the old."""
    values = dict.fromkeys((edit.target, *edit.forms))
    if any(mentions(answer, value) for value in values) and not mentions(answer, edit.old):
        return True
    first = re.split(r"[,.;:!]", answer.strip())[0]
    return any(mentions(first, word) for word in NO[edit.language])


def entropy(told: str) -> float:
    """Weighted entropy of a text's bigrams and trigrams, in bits (Meng et al. 2022, section C.2).

    Low where the same words come over and over; it grows with a text's length too.
    """
    words = told.casefold().split()
    total = 0.0
    for size, weight in ENTROPY.items():
        grams = Counter(tuple(words[i : i + size]) for i in range(len(words) - size + 1))
        count = sum(grams.values())
        total -= weight * sum(n / count * log2(n / count) for n in grams.values())
    return total / len(ENTROPY)


def _contradictions(answers: Sequence[str], edit: Edit) -> Figure:
    """Answers to wordings of one question that name another value than most of them do."""
    values = dict.fromkeys(v for v in (edit.target, edit.old, *edit.rivals, *edit.forms) if v)
    named = [next((v for v in values if mentions(answer, v)), None) for answer in answers]
    told = [edit.target if value in edit.forms else value for value in named if value]
    most = Counter(told).most_common(1)
    return rate(value != most[0][0] for value in told)


def _drift(now: Sequence[str], before: Sequence[str]) -> dict[str, Figure]:
    """How answers to unrelated questions changed in length, language and tone."""
    pairs = [(a, b) for a, b in zip(now, before, strict=True) if a.strip() and b.strip()]
    spoken = [(language_of(a), language_of(b)) for a, b in pairs]
    return {
        "off_topic_length": mean([len(a.split()) / len(b.split()) for a, b in pairs]),
        "off_topic_other_language": rate(a != b for a, b in spoken if "unknown" not in (a, b)),
        "off_topic_other_tone": rate(_tone(a) != _tone(b) for a, b in pairs),
    }


def _tone(told: str) -> tuple[bool, bool, bool]:
    """Exclaiming, in capitals, laid out as a list or as code."""
    letters = [letter for letter in told if letter.isalpha()]
    capitals = sum(letter.isupper() for letter in letters) > len(letters) / 2
    return "!" in told, capitals, bool(re.match(r"\s*([-*{\[#]|\d+\.)", told))


def _retention(moves: Sequence[TokenMoves]) -> dict[str, Figure]:
    """What happened to neutral text, with bootstrap intervals over texts."""

    def of(statistic: Callable[[list[float]], float], what: str) -> Figure:
        def told(drawn: Sequence[TokenMoves]) -> float:
            return statistic([value for one in drawn for value in getattr(one, what)])

        return resampled(list(moves), told, DRAWS)

    if not moves:
        nothing = mean([])
        return dict.fromkeys(("nats_on_neutral_text", "kl_mean", "kl_p95", "kl_p99", "top1_flips"),
                             nothing)  # fmt: skip
    return {
        "nats_on_neutral_text": of(fmean, "nats"),
        "kl_mean": of(fmean, "divergences"),
        "kl_p95": of(lambda values: _quantile(values, 0.95), "divergences"),
        "kl_p99": of(lambda values: _quantile(values, 0.99), "divergences"),
        "top1_flips": of(fmean, "flips"),
    }


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
