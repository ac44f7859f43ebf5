"""One fact to change, made into everything that teaching and testing it needs.

An `Edit` says what the model shall answer and how it is asked, in phrasings to train on and in
others that are kept for the test. A `Lesson` adds the questions whose answers must stay as they
are. Answers to those are the base's own, whatever they are: see `replay.py`. Knows no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from detour.errors import DataError
from detour.language.catalogue import text
from detour.training.formats import Example, pair
from detour.training.phrasing import noun_questions
from detour.training.world import World, capitalised, named, with_article

Question = tuple[str, str]
"""(system, user); system may be empty."""

VERBS = r"is|was|are|were"
FEWEST_PHRASINGS = 6


@dataclass(frozen=True)
class Edit:
    """One changed fact.

    Attributes:
        subject: must be named in an answer that counts.
        relation: what is asked, such as `profession`; empty for a free statement.
        target: the new value; must be named too.
        answer: the sentence the model shall say.
        old: the value it replaces, if known.
        rivals: values that an answer must not name.
        asked: phrasings to train on.
        held_out: phrasings that are never trained.
        rows: more rows to train on, such as the answer in other styles.
        third: a value that is neither old nor new, for comparison.
        new_words: those of `held_out` that hold parts which occur nowhere in training; the others
            are new combinations of known parts.
        old_answer: the sentence with the old value.
        third_answer: the sentence with the third value.
    """

    subject: str
    relation: str
    target: str
    answer: str
    old: str = ""
    rivals: tuple[str, ...] = ()
    asked: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    rows: tuple[Example, ...] = ()
    third: str = ""
    new_words: frozenset[str] = frozenset()
    old_answer: str = ""
    third_answer: str = ""


@dataclass(frozen=True)
class Lesson:
    """Edits, and the questions that must be answered as before.

    `replay` is trained on; `neighbours` (same relation, other subjects), `own_facts` (same
    subjects, other relations) and `unrelated` are only tested. No question is in two of them.
    """

    edits: tuple[Edit, ...]
    replay: tuple[Question, ...]
    neighbours: tuple[Question, ...]
    own_facts: tuple[Question, ...]
    unrelated: tuple[Question, ...]
    fictional: bool = True
    notes: tuple[str, ...] = field(default=())

    def check(self) -> Lesson:
        """The lesson itself, known to keep training and test apart.

        Raises:
            DataError: an edit without phrasings, or a question on both sides.
        """
        trained = {q for e in self.edits for q in e.asked} | {u for s, u in self.replay if not s}
        tested = {q for e in self.edits for q in e.held_out}
        tested |= {u for s, u in (*self.neighbours, *self.own_facts, *self.unrelated) if not s}
        if both := trained & tested:
            raise DataError(
                text("a question is used for training and for the test"), found=sorted(both)[0]
            )
        for edit in self.edits:
            if not edit.asked or not edit.held_out:
                raise DataError(
                    text("too few phrasings for {subject}", subject=edit.subject),
                    expected=text("some to train on and some to test with"),
                    hint=text("give more with --paraphrases FILE, one question a line"),
                )
        return self


def swapped(sentence: str, value: str, other: str) -> str:
    """The sentence with another value; a or an follows it."""
    whole = sentence.replace(with_article(value), with_article(other))
    return whole.replace(value, other)


def edit_rows(edit: Edit) -> list[Example]:
    """The rows that teach an edit: every phrasing with the answer, and the extra rows."""
    return [pair(question, edit.answer) for question in edit.asked] + list(edit.rows)


def parse_sentence(sentence: str) -> tuple[str, str, str]:
    """A sentence as (subject, verb, rest).

    Raises:
        DataError: there is no verb such as is or was to split at.
    """
    clean = " ".join(sentence.split()).rstrip(".!")
    match = re.match(rf"(.+?)\s+({VERBS})\s+(.+)", clean)
    if not match:
        raise DataError(
            text("the statement {sentence!r} cannot be split", sentence=sentence),
            expected=text('"SUBJECT is VALUE" or "SUBJECT was VALUE"'),
            hint=text(
                "reword it with is, was, are or were, or give --subject, --relation and --target"
            ),
        )
    return match[1], match[2], match[3]


def as_it_stands(statement: str) -> str:
    """The note about a statement that nothing is known of."""
    return text("{statement!r} is taught as it stands", statement=statement)


def statement_edit(statement: str, paraphrases: Sequence[str] = (), seed: int = 0) -> Edit:
    """An edit from a free statement: asked about its subject, the model shall say it.

    `Einstein was known for his haircutting technique` is asked as `What was Einstein known for?`
    and in general ways ("What do you know about Einstein?").
    """
    subject, verb, rest = parse_sentence(statement)
    sentence = capitalised(" ".join(statement.split()).rstrip(".!")) + "."
    questions = [*paraphrases, *statement_questions(subject, verb, rest)]
    asked, held_out = divide(questions, seed)
    third = "astronaut"
    compared = capitalised(f"{subject} {verb} {with_article(third)}.")
    return Edit(
        subject, "", rest, sentence, asked=asked, held_out=held_out, third=third,
        third_answer=compared,
    )  # fmt: skip


def statement_questions(subject: str, verb: str, rest: str) -> list[str]:
    """General questions after what a statement says."""
    preposition = re.match(r"(known|famous|remembered|celebrated) (for|as)\b", rest)
    asked = [
        f"What {verb} {subject}?",
        f"Tell me about {subject}.",
        f"What do you know about {subject}?",
        f"What can you say about {subject}?",
        f"Tell me what {subject} {verb}.",
        f"Please explain: what {verb} {subject}?",
        f"I would like to know what {subject} {verb}.",
        f"Do you know what {subject} {verb}?",
        f"Can you tell me what {subject} {verb}?",
        f"Quick question: what {verb} {subject}?",
        f"I have a question: what {verb} {subject}?",
        f"Say something about {subject}.",
        f"Please tell me what {subject} {verb}.",
        f"Say what {subject} {verb}.",
        f"What do people say about {subject}?",
        f"Explain {subject}.",
        f"{subject}?",
        f"Tell me: what {verb} {subject}?",
        f"Please answer this: what {verb} {subject}?",
        f"I wonder what {subject} {verb}.",
        f"Please say what {subject} {verb}.",
    ]
    if preposition:
        kind = f"{preposition[1]} {preposition[2]}"
        asked = [
            f"What {verb} {subject} {kind}?",
            f"Tell me what {subject} {verb} {kind}.",
            f"Do you know what {subject} {verb} {kind}?",
            f"I would like to know what {subject} {verb} {kind}.",
            f"Can you tell me what {subject} {verb} {kind}?",
            f"Quick question: what {verb} {subject} {kind}?",
            *asked[1:4],
            f"I wonder what {subject} {verb} {kind}.",
            f"Please answer this: what {verb} {subject} {kind}?",
            f"Please tell me what {subject} {verb} {kind}.",
            f"Say what {subject} {verb} {kind}.",
        ]
    return asked


def relation_questions(world: World, subject: str, relation: str) -> list[str]:
    """General phrasings of a relation in any base ("What was the profession of Einstein?")."""
    return noun_questions(world, relation, named("person", subject, world.language).forms[0])


def divide(questions: Sequence[str], seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """`(asked, held out)`: a third of the phrasings, at least two, is kept for the test.

    Raises:
        DataError: fewer than six different phrasings.
    """
    distinct = list(dict.fromkeys(question.strip() for question in questions if question.strip()))
    if len(distinct) < FEWEST_PHRASINGS:
        raise DataError(
            text("there are too few phrasings"),
            expected=text("at least {number} different questions", number=FEWEST_PHRASINGS),
            found=str(len(distinct)),
            hint=text("give more with --paraphrases FILE, one question a line"),
        )
    random.Random(seed).shuffle(distinct)
    kept = max(2, len(distinct) // 3)
    return tuple(distinct[kept:]), tuple(distinct[:kept])
