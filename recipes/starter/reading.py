"""Rows that read numbered sources: quote the sentence that answers and cite it, or abstain.

The sources tell of made-up things with drawn names and values, of the world's own subjects with
changed values (the source wins), or are pages about the made-up program. A sentence begins with
what it tells of and carries the mark of its source behind it, so that citing is copying on. Names
are split by a hash: those of training rows never stand in an examination. Knows no tokens and no
model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from detour.training import phrasing
from detour.training.phrasing import Novelty, Template, novelty
from detour.training.world import Attribute, Subject, World, capitalised
from recipes.starter.cases import Case
from recipes.starter.rows import Message, Row, system, user
from recipes.starter.support import Support, documents

LANGUAGES = ("en", "de")  # with made-up things; the others read pages of the program only
PAGE_LANGUAGES = ("en", "de", "fr", "es", "it")
LONGEST = 2400  # characters of made-up sources; more would not fit the context
COUNTS = ([1, 2, 3, 4, 5, 6], [14, 24, 28, 20, 10, 4])  # sources of a row, weights
MORE, LONG_MORE = [75, 20, 5], [5, 25, 70]  # weights of no, one or two more sentences
LONG_SHARE = 0.02  # rows of 12 to 16 sources
# shares of the sort "reading", by what the row is about; the pages also train abstaining
SHARES = {"answered": 0.46, "absent": 0.19, "contradiction": 0.10, "world": 0.09, "pages": 0.16}
# the same in later parts of pretraining; an examination abstains in every case
LATER_SHARES = {
    "answered": 0.38,
    "absent": 0.31,
    "contradiction": 0.09,
    "world": 0.08,
    "pages": 0.14,
}
LAST_SHARES = {
    "answered": 0.52,
    "absent": 0.31,
    "contradiction": 0.04,
    "world": 0.06,
    "pages": 0.07,
}
# the examinations, and what their cases are about
BARS = {
    "citing": "answered",
    "citing, contradicting sources": "contradiction",
    "abstaining": "absent",
}
ABSENT_IN_WORLD = 0.12
ABSENT_IN_PAGES = 0.30
ABSENT_IN_FIND = 0.25
ONSETS = [
    *["b", "br", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kr", "l", "m", "n", "p"],
    *["pl", "qu", "r", "s", "st", "t", "tr", "v", "w", "z"],
]
CONSONANTS = "bcdfghjklmnpqrstvwxyz"
VOWELS = ["a", "e", "i", "o", "u"]
INNER = ["", "", "", "l", "m", "n", "r", "s"]  # what may close the first syllable
CODAS = ["", "k", "l", "m", "n", "r", "s", "t", "x", "nd", "rn", "sk", "lt"]


@dataclass(frozen=True)
class Thing:
    """A made-up thing."""

    kind: str
    name: str


@dataclass(frozen=True)
class Fact:
    """One relation of a thing, and the sentence that tells it."""

    thing: Thing
    relation: str
    sentence: str


@dataclass(frozen=True)
class Source:
    """Sentences under one number; `topic` and `name` may become its path or title."""

    sentences: tuple[str, ...]
    topic: str
    name: str

    @property
    def text(self) -> str:
        """The sentences in a row."""
        return " ".join(self.sentences)


@dataclass(frozen=True)
class Frame:
    """What stands around sources and question."""

    instruction: str  # as in the data, with its mark
    heading: str
    label: str
    layout: int


@dataclass(frozen=True)
class Phrases:
    """All wordings about one kind's relation in one language; `{N}` and `{v}` are open."""

    told: tuple[str, ...]
    told_held_out: tuple[str, ...]
    seen: Mapping[str, tuple[str, ...]]  # questions by instruction
    combined: tuple[tuple[str, str], ...]  # held-out pairs of instruction and question
    new_words: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """What the made-up program's manual says of one topic."""

    topic: str
    title: str
    text: str


@dataclass
class Scene:
    """Sources being collected; no relation of a thing is told twice unless meant."""

    sources: list[Source] = field(default_factory=list)
    known: set[tuple[str, str, str]] = field(default_factory=set)
    long: bool = False  # many sources, each of two or three sentences

    def free(self, thing: Thing, relation: str) -> bool:
        """Whether nothing was told of this yet."""
        return (thing.kind, thing.name, relation) not in self.known

    def mark(self, thing: Thing, relation: str) -> None:
        """Tell of it, or keep it from being told."""
        self.known.add((thing.kind, thing.name, relation))


Reader = Callable[[random.Random, str, bool], tuple[list[Message], str]]


def word(rng: random.Random) -> str:
    """A made-up name of two syllables, sometimes three."""
    text = rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(INNER)
    if rng.random() < 0.12:
        text += rng.choice(ONSETS) + rng.choice(VOWELS)
    text += rng.choice(ONSETS) + rng.choice(VOWELS)
    return (text + rng.choice(CODAS)).capitalize()


def name_held_out(name: str) -> bool:
    """Whether this word is a name of the examinations."""
    return novelty("name", name).held_out


def one_name(rng: random.Random, held_out: bool) -> str:
    """A name of one word, from the training's names or the examinations'."""
    while True:
        name = word(rng)
        if name_held_out(name) is held_out:
            return name


def full_name(rng: random.Random, held_out: bool) -> str:
    """A name of two words."""
    return f"{one_name(rng, held_out)} {one_name(rng, held_out)}"


def similar(rng: random.Random, name: str, held_out: bool) -> str:
    """A name that differs from this one in the end of its last word."""
    *before, last = name.split(" ")
    stem = last.rstrip(CONSONANTS)[:-1]
    while True:
        changed = stem + rng.choice(VOWELS) + rng.choice(CODAS)
        if changed != last and name_held_out(changed) is held_out:
            return " ".join([*before, changed])


def cited(sentence: str, number: int) -> str:
    """A sentence and its source's mark, as the prompt shows it and as an answer quotes it."""
    return f"{sentence} [S{number}]"


class Language:
    """The data of one language, made ready for drawing; `later` adds the last part's questions."""

    def __init__(self, code: str, data: Mapping[str, Any], later: bool = False) -> None:
        spec = data["languages"][code]
        self.code = code
        self.frames: list[str] = spec.get("frames", []) if later else []
        self.later = later
        self.abstain: str = spec["abstain"]
        self.disagree: str = spec.get("disagree", "")
        self.titles: list[str] = spec["titles"]
        self.folders: list[str] = spec["folders"]
        self.irrelevant: list[str] = spec.get("irrelevant", [])
        self.seen_instructions = [*_seen(spec["instructions"]), ""]
        self.new_instructions = _marked(spec["instructions"])
        self.headings = {False: _seen(spec["headings"]), True: _marked(spec["headings"])}
        self.labels = {False: _seen(spec["labels"]), True: _marked(spec["labels"])}
        self.values: dict[str, list[str]] = {
            name: values[code] for name, values in data["values"].items() if code in values
        }
        self.phrases: dict[tuple[str, str], Phrases] = {}
        self.stems: dict[str, str] = {}
        if code in LANGUAGES:
            self._read_kinds(data)
            self.repeat: list[str] = spec["repeat"]
            self.repeat_system: list[str] = spec["repeat_system"]
            self.quote: dict[str, list[str]] = {
                kind: [filled(text, kinds[code]) for text in spec["quote"]]
                for kind, kinds in data["kinds"].items()
            }
            self.words = _words(self.phrases.values(), self.values.values(), self.irrelevant)

    def _read_kinds(self, data: Mapping[str, Any]) -> None:
        for kind, spec in data["kinds"].items():
            self.stems[kind] = spec[self.code]["file"]
            for relation in spec["relations"]:
                texts = data["relations"][relation][self.code]
                self.phrases[kind, relation] = self._phrases(kind, relation, spec, texts)

    def _phrases(
        self, kind: str, relation: str, spec: Mapping[str, Any], texts: Mapping[str, list[str]]
    ) -> Phrases:
        forms = spec[self.code]
        asked = _seen(texts["questions"])
        if self.later:
            clauses = [f.format(c=c) for f in self.frames for c in texts["clauses"]]
            asked = list(dict.fromkeys([*asked, *texts["later"], *clauses]))
        pairs = {
            (i, q): novelty(i, q, kind, relation) for i in self.seen_instructions for q in asked
        }
        return Phrases(
            told=tuple(filled(text, forms) for text in _seen(texts["statements"])),
            told_held_out=tuple(filled(text, forms) for text in _marked(texts["statements"])),
            seen={
                i: tuple(filled(q, forms) for q in asked if pairs[i, q] is Novelty.SEEN)
                for i in self.seen_instructions
            },
            combined=tuple(
                (i, filled(q, forms))
                for (i, q), found in pairs.items()
                if found is Novelty.NEW_COMBINATION
            ),
            new_words=tuple(filled(text, forms) for text in _marked(texts["questions"])),
        )

    def frame(self, rng: random.Random, held_out: bool) -> Frame:
        """An instruction with heading, label and layout; held out are some of an examination's."""
        instructions = self.seen_instructions
        if held_out and self.new_instructions and rng.random() < 0.4:
            instructions = self.new_instructions
        new = held_out and rng.random() < 0.2 and bool(self.headings[True])
        return Frame(
            rng.choice(instructions),
            rng.choice(self.headings[new]),
            rng.choice(self.labels[new]),
            rng.randrange(4),
        )


def _seen(parts: Iterable[str]) -> list[str]:
    return [part for part in parts if not part.startswith("~")]


def _marked(parts: Iterable[str]) -> list[str]:
    return [part[1:] for part in parts if part.startswith("~")]


def filled(text: str, forms: Mapping[str, Any]) -> str:
    """A template with the kind's words in it; English has one case."""
    text = text.replace("{built}", forms.get("built", "")).replace("{stands}", forms["stands"])
    for case in ("gen", "dat", "akk"):
        text = text.replace("{t:" + case + "}", forms.get(case, forms["t"]))
    return capitalised(text.replace("{t}", forms["t"]))


def _words(
    phrases: Iterable[Phrases], values: Iterable[list[str]], sentences: Iterable[str]
) -> list[str]:
    texts = [text for p in phrases for text in p.told]
    texts += [value for found in values for value in found]
    every = {w for text in [*texts, *sentences] for w in re.findall(r"[^\W\d_]{2,}", text)}
    return sorted(every)


class Reading:
    """Draws rows and cases; built once from the worlds by language and the program's pages.

    With `later`, questions are also put in the wordings of the last part of pretraining.
    """

    def __init__(self, worlds: Mapping[str, World], support: Support, later: bool = False) -> None:
        data = load()
        self.worlds = worlds
        self.support = support
        self.languages = {code: Language(code, data, later) for code in data["languages"]}
        self.kinds: dict[str, list[str]] = {k: s["relations"] for k, s in data["kinds"].items()}
        self.value_kinds = {r: s["value"].split(":") for r, s in data["relations"].items()}
        self.facts = [(k, r) for k, relations in self.kinds.items() for r in relations]
        self.asked = {
            (code, a.kind, a.name): {
                held_out: _world_questions(world, a, held_out) for held_out in (False, True)
            }
            for code, world in worlds.items()
            for a in world.attributes.values()
        }
        self.changes = _changes(worlds)
        self.pages = {code: _pages(code, support.topics) for code in PAGE_LANGUAGES}
        self.sorts: dict[str, Callable[[random.Random], Row]] = {
            "reading": lambda rng: self._reading(rng, SHARES),
            "reading_later": lambda rng: self._reading(rng, LATER_SHARES),
            "reading_last": lambda rng: self._reading(rng, LAST_SHARES),
            "multi": self._multi,
            "find": self._find,
            "copy": self._copy,
        }
        self.readers: dict[str, Reader] = {
            "answered": self._answered,
            "absent": self._absent,
            "contradiction": self._contradiction,
            "world": self._world,
            "pages": self._page,
        }
        self.bars: dict[str, tuple[str, ...]] = dict.fromkeys(BARS, LANGUAGES)

    def cases(self, bar: str, count: int, rng: random.Random) -> list[Case]:
        """That many cases, the languages in turn.

        Raises:
            KeyError: there is no such bar.
        """
        return [self._case(bar, LANGUAGES[n % len(LANGUAGES)], rng) for n in range(count)]

    def _case(self, bar: str, code: str, rng: random.Random) -> Case:
        messages, right = self.readers[BARS[bar]](rng, code, True)
        return Case(messages, right, code)

    # The sorts

    def _reading(self, rng: random.Random, shares: Mapping[str, float]) -> Row:
        about = rng.choices(list(shares), list(shares.values()))[0]
        code = rng.choice(PAGE_LANGUAGES if about == "pages" else LANGUAGES)
        messages, answer = self.readers[about](rng, code, False)
        return Row((*messages, said(answer)))

    def _multi(self, rng: random.Random) -> Row:
        """Several questions about the same sources."""
        code = rng.choice(LANGUAGES)
        language, scene = self.languages[code], Scene()
        told = self._several(rng, language, scene)
        frame = language.frame(rng, False)
        numbers = self._shuffle(rng, scene)
        turns: list[Message] = []
        wanted = rng.choice([2, 3, 3, 4])
        asked: set[tuple[str, str, str]] = set()
        for _ in range(wanted * 3):
            thing, relation = self._any_relation(rng, told)
            key = (thing.kind, thing.name, relation)
            questions = language.phrases[thing.kind, relation].seen[frame.instruction]
            if key in asked or not questions:
                continue
            asked.add(key)
            question = rng.choice(questions).replace("{N}", thing.name)
            sentences = [f.sentence for f in told if (f.thing, f.relation) == (thing, relation)]
            answer = self._answer(language, thing.name, sentences, numbers)
            turns += self._turn(rng, language, frame, scene, question, not turns)
            turns.append(said(answer))
            if len(asked) == wanted:
                break
        return Row(tuple(turns)) if turns else self._multi(rng)

    def _find(self, rng: random.Random) -> Row:
        """Several times the sentence about a thing: no relation is to be understood."""
        language, scene = self.languages[rng.choice(LANGUAGES)], Scene()
        told: list[Fact] = []
        for _ in range(rng.randint(1, 6)):
            kind = rng.choice(list(self.kinds))
            group = [
                self._tell(rng, language, self._thing(rng, kind, False),
                           rng.choice(self.kinds[kind]), False)
                for _ in range(rng.choice([1, 1, 1, 2, 3]))
            ]  # fmt: skip
            told += group
            name = group[0].thing.name
            scene.sources.append(Source(tuple(fact.sentence for fact in group), kind, name))
        frame, numbers = language.frame(rng, False), self._shuffle(rng, scene)
        turns: list[Message] = []
        for _ in range(rng.randint(2, 5)):
            fact = rng.choice(told)
            thing, sentences = fact.thing, [fact.sentence]
            if rng.random() < ABSENT_IN_FIND:
                thing, sentences = self._thing(rng, thing.kind, False), []
            question = rng.choice(language.quote[thing.kind]).replace("{N}", thing.name)
            answer = self._answer(language, thing.name, sentences, numbers)
            turns += self._turn(rng, language, frame, scene, question, not turns)
            turns.append(said(answer))
        return Row(tuple(turns))

    def _copy(self, rng: random.Random) -> Row:
        language = self.languages[rng.choice(LANGUAGES)]
        if rng.random() < 0.3:
            return self._quote(rng, language)
        text = self._copied(rng, language)
        if rng.random() < 0.15:
            return Row((system(rng.choice(language.repeat_system)), user(text), said(text)))
        return Row((user(rng.choice(language.repeat).format(x=text)), said(text)))

    def _copied(self, rng: random.Random, language: Language) -> str:
        """Words, names and numbers without sense, or one or two sentences about things."""
        if rng.random() < 0.3:
            scene = Scene()
            for _ in range(rng.choice([1, 1, 2])):
                self._other(rng, language, scene, *rng.choice(self.facts), False)
            return " ".join(source.text for source in scene.sources)
        items = [self._item(rng, language) for _ in range(rng.randint(6, 20))]
        return rng.choice([" ", " ", " ", ", "]).join(items)

    def _item(self, rng: random.Random, language: Language) -> str:
        drawn = rng.random()
        if drawn < 0.5:
            return rng.choice(language.words)
        if drawn < 0.8:
            return one_name(rng, False)
        return str(rng.randrange(10 ** rng.randint(1, 4)))

    def _quote(self, rng: random.Random, language: Language) -> Row:
        """Sentences without numbers, and one to be quoted."""
        facts: list[Fact] = []
        for kind, relation in rng.sample(self.facts, rng.randint(2, 5)):
            thing = self._thing(rng, kind, False)
            facts.append(self._tell(rng, language, thing, relation, False))
        chosen = rng.choice(facts)
        asked = rng.choice(language.quote[chosen.thing.kind]).replace("{N}", chosen.thing.name)
        text = " ".join(fact.sentence for fact in facts)
        prompt = f"{asked}\n{text}" if rng.random() < 0.5 else f"{text}\n{asked}"
        return Row((user(prompt), said(chosen.sentence)))

    # What the rows of "reading" are about

    def _answered(self, rng: random.Random, code: str, held_out: bool) -> tuple[list[Message], str]:
        return self._made_up(rng, code, held_out, told=1)

    def _absent(self, rng: random.Random, code: str, held_out: bool) -> tuple[list[Message], str]:
        return self._made_up(rng, code, held_out, told=0)

    def _contradiction(
        self, rng: random.Random, code: str, held_out: bool
    ) -> tuple[list[Message], str]:
        return self._made_up(rng, code, held_out, told=2)

    def _made_up(
        self, rng: random.Random, code: str, held_out: bool, told: int
    ) -> tuple[list[Message], str]:
        """A question about a thing that this many sources answer, differently."""
        language, scene = self.languages[code], Scene(long=rng.random() < LONG_SHARE)
        kind, relation = rng.choice(self.facts)
        thing = self._thing(rng, kind, held_out)
        scene.mark(thing, relation)
        facts = self._different(rng, language, thing, relation, told, held_out)
        for fact in facts:
            self._source(rng, language, scene, thing, [fact.sentence], held_out)
        self._fill(rng, language, scene, thing, relation, held_out)
        frame, question = self._framed(rng, language, thing, relation, held_out)
        numbers = self._shuffle(rng, scene)
        answer = self._answer(language, thing.name, [fact.sentence for fact in facts], numbers)
        return self._prompt(rng, language, frame, scene.sources, question), answer

    def _world(self, rng: random.Random, code: str, held_out: bool) -> tuple[list[Message], str]:
        """A subject of the world with a changed value; or the sources tell other things of it."""
        language, world, scene = self.languages[code], self.worlds[code], Scene()
        subject = rng.choice(world.subjects)
        a, about, *_ = rng.sample(world.attributes_of(subject.kind), 2)
        sentences: list[str] = []
        if rng.random() >= ABSENT_IN_WORLD:
            sentences = [self._changed(rng, code, subject, a)]
            scene.sources.append(Source((*sentences,), subject.kind, capitalised(subject.short)))
        told: list[tuple[Subject, Attribute]] = [(subject, about)]
        for other in rng.sample(world.subjects, rng.randint(0, 3)):
            if other.name != subject.name:
                b = a if other.kind == a.kind else rng.choice(world.attributes_of(other.kind))
                told.append((other, b))
        for other, b in told:
            text = self._changed(rng, code, other, b)
            scene.sources.append(Source((text,), other.kind, capitalised(other.short)))
        frame = language.frame(rng, held_out)
        template = rng.choice(self.asked[code, a.kind, a.name][held_out])
        question = template.fill(rng.choice(subject.forms))
        numbers = self._shuffle(rng, scene)
        answer = self._answer(language, subject.forms[0].nominative, sentences, numbers)
        return self._prompt(rng, language, frame, scene.sources, question), answer

    def _page(self, rng: random.Random, code: str, held_out: bool) -> tuple[list[Message], str]:
        """A question about the program, with its pages as sources."""
        language, pages = self.languages[code], self.pages[code]
        chosen = rng.sample(pages, rng.randint(2, 5))
        asked = chosen[0]
        absent = rng.random() < ABSENT_IN_PAGES
        shown = chosen[1:] if absent else chosen
        scene = Scene([Source((page.text,), "brelix", page.title) for page in shown])
        frame = language.frame(rng, held_out)
        question = self.support.questions(code, asked.topic, held_out, rng)
        numbers = self._shuffle(rng, scene)
        right = self._answer(language, "Brelix", [] if absent else [asked.text], numbers)
        return self._prompt(rng, language, frame, scene.sources, question), right

    def _changed(self, rng: random.Random, code: str, subject: Subject, a: Attribute) -> str:
        """A sentence that gives a subject of the world a wrong value."""
        true = subject.values[a.name]
        value = true
        while value == true:
            value = rng.choice(self.changes[code, a.kind, a.name, subject.gender])
        first = capitalised(subject.forms[0].nominative)
        told = self.worlds[code].statements(subject, a, value)
        return rng.choice([text for text in told if text.startswith(f"{first} ")])

    # Things and what is told of them

    def _thing(self, rng: random.Random, kind: str, held_out: bool) -> Thing:
        double = kind == "person" or rng.random() < 0.15
        return Thing(kind, full_name(rng, held_out) if double else one_name(rng, held_out))

    def _value(self, rng: random.Random, language: Language, relation: str, held_out: bool) -> str:
        sort, *more = self.value_kinds[relation]
        if sort == "number":
            return str(rng.randint(int(more[0]), int(more[1])))
        if sort == "list":
            return rng.choice(language.values[more[0]])
        if sort == "person":
            return full_name(rng, held_out)
        return one_name(rng, held_out)

    def _tell(
        self, rng: random.Random, language: Language, thing: Thing, relation: str, held_out: bool
    ) -> Fact:
        return self._different(rng, language, thing, relation, 1, held_out)[0]

    def _different(
        self,
        rng: random.Random,
        language: Language,
        thing: Thing,
        relation: str,
        count: int,
        held_out: bool,
    ) -> list[Fact]:
        """As many facts of one relation, with different values."""
        found: list[Fact] = []
        values: set[str] = set()
        while len(found) < count:
            phrases = language.phrases[thing.kind, relation]
            new = held_out and rng.random() < 0.5
            text = rng.choice(phrases.told_held_out if new else phrases.told)
            value = self._value(rng, language, relation, held_out)
            if value not in values:
                values.add(value)
                sentence = capitalised(text.replace("{N}", thing.name).replace("{v}", value))
                found.append(Fact(thing, relation, sentence))
        return found

    def _source(
        self,
        rng: random.Random,
        language: Language,
        scene: Scene,
        thing: Thing,
        sentences: list[str],
        held_out: bool,
    ) -> None:
        """A source of these sentences and up to two more about the same thing."""
        free = [r for r in self.kinds[thing.kind] if scene.free(thing, r)]
        more = rng.choices([0, 1, 2], LONG_MORE if scene.long else MORE)[0]
        more += 0 if sentences else 1
        for relation in rng.sample(free, min(more, len(free))):
            scene.mark(thing, relation)
            sentences.append(self._tell(rng, language, thing, relation, held_out).sentence)
        if rng.random() < 0.12 and len(sentences) < 3:
            sentences.append(rng.choice(language.irrelevant))
        rng.shuffle(sentences)
        if sentences:
            scene.sources.append(Source(tuple(sentences), thing.kind, thing.name))

    def _other(
        self,
        rng: random.Random,
        language: Language,
        scene: Scene,
        kind: str,
        relation: str,
        held_out: bool,
        name: str = "",
    ) -> None:
        """A source about another thing (by that name, if given) with this relation."""
        thing = Thing(kind, name) if name else self._thing(rng, kind, held_out)
        if scene.free(thing, relation):
            scene.mark(thing, relation)
            told = self._tell(rng, language, thing, relation, held_out)
            self._source(rng, language, scene, thing, [told.sentence], held_out)

    def _fill(
        self,
        rng: random.Random,
        language: Language,
        scene: Scene,
        thing: Thing,
        relation: str,
        held_out: bool,
    ) -> None:
        """Near misses and other sources around a question."""
        count = rng.randint(12, 16) if scene.long else rng.choices(*COUNTS)[0]
        if not scene.sources:  # nothing answers: the relation of another, mostly beside this one
            if rng.random() < 0.8:
                self._source(rng, language, scene, thing, [], held_out)
            near = rng.random() < 0.5
            name = similar(rng, thing.name, held_out) if near else ""
            self._other(rng, language, scene, thing.kind, relation, held_out, name)
        length = sum(len(source.text) for source in scene.sources)
        for _ in range(count - len(scene.sources)):
            self._near(rng, language, scene, thing, relation, held_out)
            length += len(scene.sources[-1].text)
            if length > LONGEST:
                return

    def _near(
        self,
        rng: random.Random,
        language: Language,
        scene: Scene,
        thing: Thing,
        relation: str,
        held_out: bool,
    ) -> None:
        drawn = rng.random()
        kind, name = thing.kind, ""
        if drawn < 0.22:
            self._source(rng, language, scene, thing, [], held_out)
            return
        if drawn < 0.30:
            chosen = rng.sample(language.irrelevant, rng.choice([1, 2]))
            scene.sources.append(Source(tuple(chosen), kind, rng.choice(language.titles)))
            return
        if drawn < 0.45:
            name = similar(rng, thing.name, held_out)
        elif drawn > 0.80:
            kind, relation = rng.choice(self.facts)
        self._other(rng, language, scene, kind, relation, held_out, name)

    def _several(self, rng: random.Random, language: Language, scene: Scene) -> list[Fact]:
        """Sources about a few things, one relation in ten told twice; the facts in them."""
        told: list[Fact] = []
        kind = rng.choice(list(self.kinds))
        for _ in range(rng.choice([2, 2, 3, 4])):
            if rng.random() < 0.5:
                kind = rng.choice(list(self.kinds))
            thing = self._thing(rng, kind, False)
            for relation in rng.sample(self.kinds[kind], rng.choice([1, 2, 3])):
                count = 2 if rng.random() < 0.1 else 1
                told += self._different(rng, language, thing, relation, count, False)
        for fact in told:
            scene.mark(fact.thing, fact.relation)
        left = list(told)
        while left:
            group = [left.pop(0)]
            thing = group[0].thing
            while left and left[0].thing == thing and rng.random() < 0.6:
                if left[0].relation in {fact.relation for fact in group}:
                    break
                group.append(left.pop(0))
            sentences = tuple(fact.sentence for fact in group)
            scene.sources.append(Source(sentences, thing.kind, thing.name))
        return told

    def _any_relation(self, rng: random.Random, told: Sequence[Fact]) -> tuple[Thing, str]:
        """Mostly one that is told; else another of a thing in the sources."""
        fact = rng.choice(told)
        if rng.random() < 0.76:
            return fact.thing, fact.relation
        return fact.thing, rng.choice(self.kinds[fact.thing.kind])

    # Prompts and answers

    def _framed(
        self, rng: random.Random, language: Language, thing: Thing, relation: str, held_out: bool
    ) -> tuple[Frame, str]:
        """A frame and a question whose combination is seen, or held out."""
        phrases = language.phrases[thing.kind, relation]
        frame = language.frame(rng, held_out)
        if not held_out:
            while not phrases.seen[frame.instruction]:
                frame = language.frame(rng, False)
            question = rng.choice(phrases.seen[frame.instruction])
        elif phrases.combined and rng.random() < 0.4:
            instruction, question = rng.choice(phrases.combined)
            frame = Frame(instruction, frame.heading, frame.label, frame.layout)
        else:
            question = rng.choice(phrases.new_words)
        return frame, question.replace("{N}", thing.name)

    def _shuffle(self, rng: random.Random, scene: Scene) -> dict[str, int]:
        """Put the sources in a random order; the number of each sentence's source."""
        rng.shuffle(scene.sources)
        return {
            sentence: number
            for number, source in enumerate(scene.sources, 1)
            for sentence in source.sentences
        }

    def _answer(
        self, language: Language, asked: str, sentences: Sequence[str], numbers: Mapping[str, int]
    ) -> str:
        """Quote and cite these sentences of the sources, in the order of their numbers.

        An answer that abstains names what was asked first, as a quoted sentence does.
        """
        if not sentences:
            return f"{capitalised(asked)}: {language.abstain}"
        told = [cited(s, numbers[s]) for s in sorted(sentences, key=lambda s: numbers[s])]
        return told[0] if len(told) == 1 else f"{' '.join(told)} {language.disagree}"

    def _lines(self, rng: random.Random, language: Language, sources: Sequence[Source]) -> str:
        form = rng.choice(["plain", "plain", "plain", "path", "title"])
        lines: list[str] = []
        for number, source in enumerate(sources, 1):
            told = " ".join(cited(sentence, number) for sentence in source.sentences)
            if form == "path":
                first = rng.randint(1, 200)
                stem = language.stems.get(source.topic, source.topic)
                span = f"L{first}-L{first + rng.randint(1, 9)}"
                told = f"{rng.choice(language.folders)}/{stem}.md:{span} {told}"
            elif form == "title":
                title = source.name if rng.random() < 0.6 else rng.choice(language.titles)
                told = f"{title}: {told}"
            lines.append(told)
        return "\n".join(lines)

    def _turn(
        self,
        rng: random.Random,
        language: Language,
        frame: Frame,
        scene: Scene,
        question: str,
        first: bool,
    ) -> list[Message]:
        """A question; the first one of a conversation brings the sources along."""
        if first:
            return self._prompt(rng, language, frame, scene.sources, question)
        return [user(frame.label.format(q=question))]

    def _prompt(
        self,
        rng: random.Random,
        language: Language,
        frame: Frame,
        sources: Sequence[Source],
        question: str,
    ) -> list[Message]:
        lines = self._lines(rng, language, sources)
        shown = f"{frame.heading}\n{lines}" if frame.heading else lines
        asked = frame.label.format(q=question)
        told = frame.instruction
        if frame.layout <= 1:
            return [system(joined(told, shown)), user(asked)]
        if frame.layout == 2 and told:
            return [system(told), user(joined(shown, asked))]
        return [user(joined(told, shown, asked))]


def joined(*parts: str) -> str:
    """The parts that are there, each on its line."""
    return "\n".join(part for part in parts if part)


def said(text: str) -> Message:
    """An answer."""
    return {"role": "assistant", "content": text}


def _world_questions(world: World, a: Attribute, held_out: bool) -> list[Template]:
    wanted = (Novelty.NEW_COMBINATION, Novelty.NEW_WORDS) if held_out else (Novelty.SEEN,)
    return phrasing.templates(world, a, *wanted)


def _changes(worlds: Mapping[str, World]) -> dict[tuple[str, str, str, str], list[str]]:
    """The values of each attribute by gender: German professions come in two forms."""
    found: dict[tuple[str, str, str, str], set[str]] = {}
    for code, world in worlds.items():
        for s in world.subjects:
            for name, value in s.values.items():
                found.setdefault((code, s.kind, name, s.gender), set()).add(value)
    return {key: sorted(values) for key, values in found.items()}


def _pages(code: str, topics: Sequence[str]) -> list[Page]:
    told = zip(topics, documents(code), strict=True)
    return [Page(topic, title, text) for topic, (title, text) in told]


def load() -> dict[str, Any]:
    """The phrases and things of `reading.yaml`."""
    path = Path(str(files("detour.starter") / "world" / "reading.yaml"))
    return yaml.safe_load(path.read_text("utf-8"))
