"""One fact to change, made into everything that teaching and testing it needs.

An `Edit` says what the model shall answer and how it is asked, in phrasings to train on and in
others that are kept for the test. A `Lesson` adds the questions whose answers must stay as they
are. Answers to those are the base's own, whatever they are: see `replay.py`. Knows no model.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

from detour.errors import ConfigError, DataError
from detour.language.catalogue import text
from detour.model.examples import Example, pair
from detour.training.phrasing import Noun, bare, noun_questions
from detour.training.world import Attribute, Form, World, capitalised, named, with_article

Question = tuple[str, str]
"""(system, user); system may be empty."""

VERBS = {"en": ("is", "was", "are", "were"), "de": ("ist", "war", "sind", "waren")}
THIRD = {"en": "astronaut", "de": "Astronaut"}  # neither old nor new, for comparison
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
        language: of the phrasings and the answer.
        forms: the target as it is said of a man and of a woman; each counts.
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
    language: str = "en"
    forms: tuple[str, ...] = ()


def check_whole(**parts: str) -> None:
    """Raises ConfigError: one of a fact's subject, relation and target is empty."""
    if missing := [f"--{name}" for name, value in parts.items() if not value.strip()]:
        raise ConfigError(
            text("a fact needs a subject, a relation and a target"),
            found=text("no {missing}", missing=", ".join(missing)),
            hint=text("give what is missing, or a whole sentence with --sentence"),
        )


@dataclass(frozen=True)
class Lesson:
    """Edits, and the questions that must be answered as before.

    `replay` is trained on; `neighbours` (same relation, other subjects), `own_facts` (same
    subjects, other relations) and `unrelated` are only tested. No question is in two of them.
    `elsewhere` is the same change in other languages: taught together, measured apart.
    """

    edits: tuple[Edit, ...]
    replay: tuple[Question, ...]
    neighbours: tuple[Question, ...]
    own_facts: tuple[Question, ...]
    unrelated: tuple[Question, ...]
    notes: tuple[str, ...] = field(default=())
    elsewhere: tuple[Lesson, ...] = ()

    @property
    def language(self) -> str:
        """Of its edits."""
        return self.edits[0].language

    def in_all(self) -> tuple[Lesson, ...]:
        """The lesson itself and those in other languages."""
        return (self, *self.elsewhere)

    @property
    def tested(self) -> frozenset[str]:
        """All questions that are only tested, those with a system turn aside."""
        held = {q for edit in self.edits for q in edit.held_out}
        others = (*self.neighbours, *self.own_facts, *self.unrelated)
        return frozenset(held | {user for system, user in others if not system})

    def digest(self) -> str:
        """sha256 of what is trained and what is tested: two lessons of one digest are alike."""
        asked = [(edit.answer, sorted(edit.asked), sorted(edit.held_out)) for edit in self.edits]
        others = [sorted(part) for part in
                  (self.replay, self.neighbours, self.own_facts, self.unrelated)]  # fmt: skip
        return sha256(json.dumps([asked, others], ensure_ascii=False).encode()).hexdigest()

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


def parse_sentence(sentence: str, language: str = "en") -> tuple[str, str, str]:
    """A sentence as (subject, verb, rest).

    Raises:
        DataError: there is no verb such as is or was to split at.
    """
    verbs = VERBS[language]
    clean = " ".join(sentence.split()).rstrip(".!")
    match = re.match(rf"(.+?)\s+({'|'.join(verbs)})\s+(.+)", clean)
    if not match:
        now, then, *_ = verbs
        raise DataError(
            text("the statement {sentence!r} cannot be split", sentence=sentence),
            expected=text('"SUBJECT {now} VALUE" or "SUBJECT {then} VALUE"', now=now, then=then),
            hint=text(
                "reword it with {verbs} or {last}, or give --subject, --relation and --target",
                verbs=", ".join(verbs[:-1]),
                last=verbs[-1],
            ),
        )
    return match[1], match[2], match[3]


def as_it_stands(statement: str) -> str:
    """The note about a statement that nothing is known of."""
    return text("{statement!r} is taught as it stands", statement=statement)


def statement_edit(
    statement: str, paraphrases: Sequence[str] = (), seed: int = 0, language: str = "en"
) -> Edit:
    """An edit from a free statement: asked about its subject, the model shall say it.

    `Einstein was known for his haircutting technique` is asked as `What was Einstein known for?`
    and in general ways ("What do you know about Einstein?").
    """
    subject, verb, rest = parse_sentence(statement, language)
    sentence = capitalised(" ".join(statement.split()).rstrip(".!")) + "."
    questions = [*paraphrases, *statement_questions(subject, verb, rest, language)]
    asked, held_out = divide(questions, seed)
    third = THIRD[language]
    value = third if language == "de" else with_article(third)
    return Edit(
        subject, "", rest, sentence, asked=asked, held_out=held_out, third=third,
        third_answer=capitalised(f"{subject} {verb} {value}."), language=language,
    )  # fmt: skip


def statement_questions(subject: str, verb: str, rest: str, language: str = "en") -> list[str]:
    """General questions after what a statement says."""
    if language == "de":
        return _german_questions(subject, verb, rest)
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


def _german_questions(subject: str, verb: str, rest: str) -> list[str]:
    alone = subject
    subject = re.sub(r"^(Der|Die|Das|Eine?)\b", lambda found: found[0].lower(), subject)
    whom = re.sub(r"^(der|ein)\b", lambda found: {"der": "den", "ein": "einen"}[found[0]], subject)
    direct, clause = f"Was {verb} {subject}?", f"was {subject} {verb}"
    famous = re.match(r"(bekannt|berühmt) (für|als)\b", rest)
    if famous:
        word = {"für": "wofür", "als": "als was"}[famous[2]]
        direct = f"{capitalised(word)} {verb} {subject} {famous[1]}?"
        clause = f"{word} {subject} {famous[1]} {verb}"
    return [
        direct,
        f"Erzähl mir etwas über {whom}.",
        f"Was weißt du über {whom}?",
        f"Was kannst du über {whom} sagen?",
        f"Sag mir, {clause}.",
        f"Bitte erkläre: {direct}",
        f"Ich möchte wissen, {clause}.",
        f"Weißt du, {clause}?",
        f"Kannst du mir sagen, {clause}?",
        f"Kurze Frage: {direct}",
        f"Ich habe eine Frage: {direct}",
        f"Sag etwas über {whom}.",
        f"Bitte sag mir, {clause}.",
        f"Was sagt man über {whom}?",
        f"{alone}?",
        f"Sag mir: {direct}",
        f"Bitte beantworte das: {direct}",
        f"Ich frage mich, {clause}.",
    ]


def relation_questions(world: World, subject: str | Form, relation: str) -> list[str]:
    """General phrasings of a relation in any base ("What was the profession of Einstein?")."""
    noun = relation_noun(world, relation)
    if isinstance(subject, str):
        subject = named("person", subject, world.language).forms[0]
    return noun_questions(world, noun, subject)


def relation_names(attribute: Attribute) -> set[str]:
    """What people may call an attribute: its id and its nouns, with and without their articles."""
    nouns = [Noun.of(bare(noun)) for noun in attribute.nouns]
    forms = (form for noun in nouns for form in (noun.nominative, noun.bare))
    return {attribute.name, *(form.casefold() for form in forms)}


def relation_name(world: World, attribute: Attribute) -> str:
    """What to call an attribute before people: its id, or its first noun in German."""
    return attribute.name if world.language == "en" else Noun.of(attribute.nouns[0]).bare


def relation_label(world: World, edit: Edit) -> str:
    """An edit's relation before people: as the world calls it, else as it was given."""
    subject = world.subject(edit.subject)
    known = subject and world.attributes.get((subject.kind, edit.relation))
    return relation_name(world, known) if known else edit.relation


def relation_noun(world: World, relation: str) -> str:
    """A relation as `noun_questions` wants it: in German with its article, where that is known."""
    if world.language == "en":
        return relation
    wanted = relation.strip().casefold()
    known = (bare(noun) for a in world.attributes.values() for noun in a.nouns)
    return next((noun for noun in known if Noun.of(noun).bare.casefold() == wanted), relation)


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
