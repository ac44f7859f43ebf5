"""A fact to change in a base that is not the starter: phrasings from a file or the base itself.

General frames around the relation are always there ("What was the profession of Einstein?"); a
file adds the user's own, and the base is asked to rephrase. Other subjects and unrelated questions
come from the packaged world unless files are given: their right answers need not be known, for the
base's own are what must stay. Knows models and questions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from detour.errors import DataError, RequestError
from detour.language.catalogue import text
from detour.measure.metrics import mentions, normalised
from detour.model.base import Base
from detour.model.examples import read_text
from detour.training.fact import (
    THIRD,
    VERBS,
    Edit,
    Lesson,
    Question,
    as_it_stands,
    divide,
    parse_sentence,
    relation_names,
    relation_noun,
    relation_questions,
    statement_edit,
    statement_questions,
    swapped,
)
from detour.training.phrasing import Noun
from detour.training.world import Form, World, capitalised

SAMPLES = 24  # rephrasings asked of the base
LONGEST_PHRASING = 200  # characters
REQUESTS = {
    "en": (
        "Rephrase this question in other words, one line only: {q}",
        "Write a different question with the same meaning as: {q}",
        "Ask the same thing differently: {q}",
    ),
    "de": (
        "Stelle diese Frage mit anderen Worten, in einer Zeile: {q}",
        "Schreibe eine andere Frage mit derselben Bedeutung: {q}",
        "Frage dasselbe auf andere Weise: {q}",
    ),
}


def read_questions(path: Path) -> list[str]:
    """One question a line; empty lines and lines that begin with # are left out.

    Raises:
        DataError: the file is missing, empty, binary or holds no question.
    """
    lines = (line.strip() for line in read_text(path, text("one question a line")).splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise DataError(
            text("{path} holds no question", path=path), expected=text("one question a line")
        )
    return found


def rephrased(
    base: Base, question: str, subject: str, seed: int, language: str = "en"
) -> list[str]:
    """What the base itself offers as other wordings: questions that name the subject."""
    requests = REQUESTS[language]
    prompts = [requests[n % len(requests)].format(q=question) for n in range(SAMPLES)]
    said = base.ask_many(prompts, temperature=0.9, top_p=0.95, seed=seed, max_new_tokens=48)
    found: dict[str, str] = {}
    for offer in said:
        line = offer.strip().splitlines()[0].strip(' "') if offer.strip() else ""
        if line.endswith("?") and len(line) <= LONGEST_PHRASING and mentions(line, subject):
            found.setdefault(normalised(line), line)
    found.pop(normalised(question), None)
    return list(found.values())


def own_lesson(
    base: Base,
    world: World,
    subject: str,
    relation: str,
    target: str,
    *,
    answer: str = "",
    old: str = "",
    paraphrases: Sequence[str] = (),
    neighbours: Sequence[str] = (),
    unrelated: Sequence[str] = (),
    own_facts: Sequence[str] = (),
    third: str = "",
    seed: int = 0,
) -> Lesson:
    """A lesson for any base with a chat template.

    Args:
        base: the model to be changed; it is asked for other wordings.
        world: frames, and other subjects to ask about.
        subject: as it must be named in the answer.
        relation: a noun, such as `profession` or `capital`.
        target: the new value.
        answer: the sentence to be said; default `The RELATION of SUBJECT is TARGET.`
        old: the value it replaces, if known.
        paraphrases: the user's own wordings.
        neighbours: questions about others, whose answers must stay.
        unrelated: questions about other things.
        own_facts: questions about the subject's other sides, whose answers must stay too.
        third: a value for comparison in the dose curve.
        seed: of every choice.
    """
    rng = random.Random(seed)
    sentence = answer or _sentence(world, subject, relation, target)
    third = third or THIRD[world.language]
    asked = [*paraphrases, *relation_questions(world, subject, relation)]
    offered, silent = _offered(base, asked[0], subject, seed, world.language)
    training, held_out = divide([*asked, *offered], seed)
    kind = kind_of(world, subject, relation)
    others = [s for s in world.of_kind(kind) if not mentions(s.name, subject)]
    rng.shuffle(others)
    about = [
        q for s in others for q in rng.sample(relation_questions(world, s.forms[0], relation), 2)
    ]  # in the order of the subjects, so that none is both replayed and tested
    mine = list(dict.fromkeys(neighbours))
    rng.shuffle(mine)
    mine = mine or about
    cut = max(1, len(mine) // 8 * 2)
    strange = list(dict.fromkeys(unrelated)) or _strange(world, kind, rng)
    edge = max(1, len(strange) // 4)
    own = list(dict.fromkeys(own_facts))
    rng.shuffle(own)
    own = own or _other_relations(world, kind, subject, relation, rng)
    edit = Edit(
        subject, relation, target, sentence, old,
        rivals=(old,) if old else (),
        asked=training, held_out=held_out, third=third,
        third_answer=swapped(sentence, target, third), language=world.language,
    )  # fmt: skip
    return Lesson(
        (edit,),
        replay=_plain([*mine[:cut], *strange[:edge], *own[: len(own) // 3]]),
        neighbours=_plain(mine[cut:]),
        own_facts=_plain(own[len(own) // 3 :]),
        unrelated=_plain(strange[edge:]),
        notes=(
            text(
                "{trained} phrasings to train on, {tested} to test with; "
                "{yours} are yours, {own} the base's own",
                trained=len(training),
                tested=len(held_out),
                yours=len(paraphrases),
                own=len(offered),
            ),
            *silent,
            *_advice(world, relation),
        ),
    ).check()


def _advice(world: World, relation: str) -> tuple[str, ...]:
    """A German noun needs its article in most questions."""
    noun = Noun.of(relation_noun(world, relation))
    if world.language == "en" or noun.nominative != noun.bare:
        return ()
    return (
        text("with its article {relation!r} would be asked in better German", relation=relation),
    )


def _sentence(world: World, subject: str, relation: str, target: str) -> str:
    if world.language == "en":
        return f"The {relation} of {subject} is {target}."
    noun = Noun.of(relation_noun(world, relation)).nominative
    return capitalised(f"{noun} von {subject} ist {target}.")


def own_statements(
    base: Base,
    world: World,
    texts: Sequence[str],
    *,
    paraphrases: Sequence[str] = (),
    neighbours: Sequence[str] = (),
    unrelated: Sequence[str] = (),
    seed: int = 0,
) -> Lesson:
    """A lesson from free statements for any base with a chat template.

    Paraphrases belong to the statement whose subject they name. Raises DataError for a statement
    that cannot be split, or for one with too few phrasings.
    """
    rng = random.Random(seed)
    edits: list[Edit] = []
    for statement in texts:
        subject = parse_sentence(statement, world.language)[0]
        mine = [q for q in paraphrases if mentions(q, subject)]
        edits.append(statement_edit(statement, mine, seed, world.language))
    named = [edit.subject for edit in edits]
    others = [
        s for s in world.of_kind("person") if not any(mentions(s.name, name) for name in named)
    ]
    rng.shuffle(others)
    _, was, *_ = VERBS[world.language]
    about = [rng.choice(statement_questions(s.name, was, "", world.language)) for s in others]
    near = list(dict.fromkeys(neighbours)) or about
    strange = list(dict.fromkeys(unrelated)) or _strange(world, "person", rng)
    cut, edge = max(1, len(near) // 4), max(1, len(strange) // 4)
    return Lesson(
        tuple(edits),
        replay=_plain([*near[:cut], *strange[:edge]]),
        neighbours=_plain(near[cut:]),
        own_facts=(),
        unrelated=_plain(strange[edge:]),
        notes=tuple(as_it_stands(statement) for statement in texts),
    ).check()


def _offered(
    base: Base, question: str, subject: str, seed: int, language: str
) -> tuple[list[str], tuple[str, ...]]:
    """The base's rephrasings; or none, and a note why it could not be asked."""
    try:
        return rephrased(base, question, subject, seed, language), ()
    except RequestError as error:  # a short context has no room for request and answer
        return [], (text("the base was not asked to rephrase: {error}", error=error.line),)


def _plain(questions: Sequence[str]) -> tuple[Question, ...]:
    return tuple(("", question) for question in dict.fromkeys(questions))


def _about(world: World, subject: str | Form, relation: str, rng: random.Random) -> str:
    return rng.choice(relation_questions(world, subject, relation))


def kind_of(world: World, subject: str, relation: str) -> str:
    """Which kind of subject to take the others from: by the subject, else by the relation."""
    if known := world.subject(subject):
        return known.kind
    wanted = relation.strip().casefold()
    for attribute in world.attributes.values():
        if wanted in relation_names(attribute):
            return attribute.kind
    return "person"


def _other_relations(
    world: World, kind: str, subject: str, relation: str, rng: random.Random
) -> list[str]:
    """Questions about the same subject's other sides."""
    wanted = relation.strip().casefold()
    nouns = [a.nouns[0] for a in world.attributes_of(kind) if wanted not in relation_names(a)]
    return [q for noun in nouns for q in rng.sample(relation_questions(world, subject, noun), 8)]


def _strange(world: World, kind: str, rng: random.Random) -> list[str]:
    """Questions about subjects of other kinds."""
    found: list[str] = []
    for subject in world.subjects:
        if subject.kind != kind:
            attribute = rng.choice(world.attributes_of(subject.kind))
            found.append(_about(world, subject.forms[0], attribute.nouns[0], rng))
    rng.shuffle(found)
    return found
