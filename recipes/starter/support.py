"""Rows of a support desk in five languages, for a made-up program called Brelix.

How-to questions, error codes and plain facts, each asked in many phrasings; the answer always
comes in the language of the question. A question is an inner combination (a frame around an action
or a code; a fact's question within its opening words), and some combinations are held out, as
everywhere in the starter's world. The words around an inner combination may be any that were seen.
Knows no tokens and no model, and nothing of how the reading rows use its documents.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import product
from typing import Any

import yaml

from detour.training.phrasing import Novelty, bare, novelty
from detour.training.world import capitalised
from recipes.starter.cases import Case
from recipes.starter.rows import Message, Row, system, user

LANGUAGES = ("en", "de", "fr", "es", "it")

# share of the rows that ...
GREETING = 0.02
CONVERSATION = 0.15
TOLD = 0.25  # have a system turn; it is never needed for the answer
TOLD_OTHERWISE = 0.2  # of these: in another language than the question's
PLAIN = 0.6  # of the questions stand alone, without a greeting or thanks around them
ALONE, ALONE_WEIGHT = "{q}", 5  # the same for facts: so much heavier than each other wording


@dataclass(frozen=True)
class Topic:
    """One thing that can be asked in one language, with its answer and its questions."""

    name: str
    title: str
    statement: str
    answer: str
    seen: tuple[str, ...]
    held_out: tuple[str, ...]
    complete: bool = False  # the questions have their greeting or thanks already


@dataclass(frozen=True)
class Language:
    """All topics of one language and what is said around a question."""

    topics: dict[str, Topic]
    around: tuple[str, ...]
    system: tuple[str, ...]
    system_held_out: tuple[str, ...]
    greetings: tuple[tuple[str, str], ...]


def documents(language: str) -> list[tuple[str, str]]:
    """Title and text of every topic, in the order of `Support.topics`; a text is one sentence."""
    return [(topic.title, topic.statement) for topic in _languages()[language].topics.values()]


class Support:
    """Draws the rows of the support desk and its held-out examination."""

    def __init__(self) -> None:
        self.languages = _languages()
        self.topics = tuple(self.languages["en"].topics)
        self.sorts: dict[str, Callable[[random.Random], Row]] = {"support": self.row}
        self.bars: dict[str, tuple[str, ...]] = {"support": LANGUAGES}

    def row(self, rng: random.Random) -> Row:
        """A question and its answer, sometimes two in one conversation, or a greeting."""
        name = rng.choice(LANGUAGES)
        if rng.random() < GREETING:
            return self._greeting(name, rng)
        turns = self._told(name, False, rng)
        for _ in range(2 if rng.random() < CONVERSATION else 1):
            topic = rng.choice(self.topics)
            turns.append(user(self.questions(name, topic, False, rng)))
            turns.append(_assistant(self.answer(name, topic)))
        return Row(tuple(turns))

    def questions(self, language: str, topic: str, held_out: bool, rng: random.Random) -> str:
        """One question about the topic, either a seen or a held-out phrasing."""
        known = self.languages[language]
        found = known.topics[topic]
        asked = rng.choice(found.held_out if held_out else found.seen)
        if found.complete or rng.random() < PLAIN:
            return asked
        return rng.choice(known.around).replace("{q}", asked)

    def answer(self, language: str, topic: str) -> str:
        """The right answer, in that language."""
        return self.languages[language].topics[topic].answer

    def cases(self, bar: str, count: int, rng: random.Random) -> list[Case]:
        """Held-out questions, the languages in turn, one in four behind a held-out system turn.

        Raises:
            KeyError: there is no such bar.
        """
        names = self.bars[bar]
        return [self._case(names[index % len(names)], rng) for index in range(count)]

    def _case(self, name: str, rng: random.Random) -> Case:
        topic = rng.choice(self.topics)
        turns = [*self._told(name, True, rng), user(self.questions(name, topic, True, rng))]
        return Case(turns, self.answer(name, topic), name)

    def _told(self, name: str, held_out: bool, rng: random.Random) -> list[Message]:
        if rng.random() >= TOLD:
            return []
        spoken = rng.choice(LANGUAGES) if rng.random() < TOLD_OTHERWISE else name
        known = self.languages[spoken]
        return [system(rng.choice(known.system_held_out if held_out else known.system))]

    def _greeting(self, name: str, rng: random.Random) -> Row:
        """Always behind a system turn: alone, a greeting is answered by the starter itself."""
        known = self.languages[name]
        asked, answer = rng.choice(known.greetings)
        return Row((system(rng.choice(known.system)), user(asked), _assistant(answer)))


def _assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


@lru_cache(maxsize=1)
def _languages() -> dict[str, Language]:
    path = files("detour.starter") / "world" / "support.yaml"
    data: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return {name: _language(data, name) for name in LANGUAGES}


def _language(data: dict[str, Any], name: str) -> Language:
    words = data["languages"][name]
    topics = [_action(key, spec[name], words) for key, spec in data["topics"].items()]
    topics += [_error(code, spec[name], words) for code, spec in data["errors"].items()]
    topics += [_fact(key, spec[name], words) for key, spec in data["facts"].items()]
    return Language(
        topics={topic.name: topic for topic in topics},
        around=_marked(words["around"], False),
        system=_marked(words["system"], False),
        system_held_out=_marked(words["system"], True),
        greetings=tuple((asked, answer) for asked, answer in words["greetings"]),
    )


def _action(name: str, spec: dict[str, Any], words: dict[str, Any]) -> Topic:
    first, answer = spec["actions"][0], spec["answer"]
    asked = (
        (novelty(frame, action), bare(frame).format(a=bare(action), A=capitalised(bare(action))))
        for frame, action in product(words["action"], spec["actions"])
    )
    statement = words["statement"].format(a=first, how=_small(answer))
    return Topic(name, capitalised(first), statement, answer, *_parted(asked))


def _error(code: str, spec: dict[str, str], words: dict[str, Any]) -> Topic:
    said = {"e": code, "m": spec["meaning"], "Fix": spec["fix"], "fix": _small(spec["fix"])}
    asked = ((novelty(frame, code), bare(frame).format(e=code)) for frame in words["code"])
    title, statement, answer = (
        words[text].format(**said) for text in ("error_title", "error_statement", "error")
    )
    return Topic(code, title, statement, answer, *_parted(asked))


def _fact(name: str, spec: dict[str, Any], words: dict[str, Any]) -> Topic:
    """With so few words to combine, the words around a question take part in what is held out."""
    around = [*[ALONE] * ALONE_WEIGHT, *words["around"]]
    asked = (
        (novelty(frame, question), bare(frame).format(q=bare(question)))
        for frame, question in product(around, spec["questions"])
    )
    return Topic(name, spec["title"], spec["answer"], spec["answer"], *_parted(asked), True)


def _parted(asked: Iterable[tuple[Novelty, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The seen questions and the held-out ones."""
    every = list(asked)
    seen = tuple(text for degree, text in every if not degree.held_out)
    return seen, tuple(text for degree, text in every if degree.held_out)


def _marked(parts: Sequence[str], held_out: bool) -> tuple[str, ...]:
    return tuple(bare(part) for part in parts if part.startswith("~") is held_out)


def _small(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
