"""The starter's rows about its world: questions, styles, tasks, notes, in one language.

A row is a list of messages, or one raw text. Everything is drawn from a seeded generator, only
from phrasings that are not held out. Knows no tokens and no model.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import Attribute, Subject, World, named

Message = dict[str, Any]
"""`role` and `content`; an assistant's turn with `learned: False` is read, not learned."""

# share of rows of each sort; together 1
SHARES = {
    "statement": 0.08,
    "question": 0.29,
    "styled": 0.24,
    "styled_system": 0.06,
    "task": 0.18,
    "note": 0.05,
    "conversation": 0.03,
    "bare": 0.01,
    "unknown": 0.03,
    "greeting": 0.01,
    "translated": 0.02,
}
# in a styled row: how often each style is drawn; upper case must relearn every word's spelling
STYLE_WEIGHTS = {
    "formal": 1.2,
    "pirate": 1.2,
    "brief": 1.3,
    "sportscaster": 1.0,
    "storyteller": 0.8,
    "pun": 1.0,
    "polite": 0.6,
    "upper": 2.5,
    "bullet": 0.7,
    "json": 0.9,
}
LONG_TALK = 0.06  # of the conversations: up to 24 questions, so that the whole context is read
# syllables of names that nobody bears
FIRST = [
    "Bal", "Cor", "Dru", "Fen", "Gor", "Hil", "Jor", "Kel", "Lum", "Mor", "Nim", "Quo", "Zor",
    "Ar", "Bre", "Dal", "Ek", "Fro", "Gre", "Hol", "Ix", "Jun", "Kra", "Lis", "Mul", "Ner", "Ost",
    "Pra", "Rul", "Ske", "Tar", "Ul", "Vol", "Wex", "Yl",
]  # fmt: skip
LAST = [
    "blax", "dath", "fim", "gus", "kin", "lop", "mund", "nak", "phi", "rost", "tev", "vex", "bor",
    "cham", "dil", "esk", "for", "gath", "hum", "iva", "jek", "kolt", "lin", "mex", "nor", "oth",
    "pel", "rim", "sund", "tik", "ulf", "wen", "yra", "zan",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """Either messages whose assistant's turns are learned, or a text that is learned whole."""

    messages: tuple[Message, ...] = ()
    text: str = ""


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def words_of(row: Row) -> str:
    """All text of a row, for the tokenizer."""
    return row.text or "\n".join(m["content"] for m in row.messages)


def made_up_name(rng: random.Random) -> str:
    """One or two words that name nobody."""
    words = rng.choices([1, 2], [0.4, 0.6])[0]
    return " ".join(rng.choice(FIRST) + rng.choice(LAST) for _ in range(words))


def held_out_pair(attribute: Attribute, style: str) -> bool:
    """Whether this attribute never meets this style with a bare subject."""
    return phrasing.novelty(attribute.kind, attribute.name, style).held_out


class Writer:
    """Draws rows from a world; `other` is the same world in another language."""

    def __init__(self, world: World, other: World) -> None:
        self.world = world
        self.other = other
        self.twins = {(s.kind, s.key): s for s in other.subjects}
        self.subjects = {kind: world.of_kind(kind) for kind in world.kind_nouns}
        self.facts = [(s, a) for s in world.subjects for a in world.attributes_of(s.kind)]
        self.asked = {
            (a.kind, a.name): phrasing.templates(world, a, Novelty.SEEN)
            for a in world.attributes.values()
        }
        self.direct = {
            (a.kind, a.name): [
                phrasing.Template(q, Novelty.SEEN)
                for q in a.questions
                if phrasing.novelty("{q}", q, a.kind) is Novelty.SEEN
            ]
            for a in world.attributes.values()
        }
        self.told = {
            (a.kind, a.name): [t.text for t in phrasing.tasks(world, a, Novelty.SEEN)]
            for a in world.attributes.values()
        }
        self.requests = {name: phrasing.style_requests(world, name) for name in world.styles}
        self.frames = {
            name: phrasing.styled_frames(world, name)
            for name in ("styled_question", "styled_system")
        }
        self.notes = phrasing.note_frames(world)
        self.sorts: dict[str, Callable[[random.Random], Row]] = {
            "statement": self._statement,
            "question": self._question,
            "styled": self._styled,
            "styled_system": self._styled_system,
            "task": self._task,
            "note": self._note,
            "conversation": self._conversation,
            "bare": self._bare,
            "unknown": self.unknown,
            "greeting": self._greeting,
            "translated": self._translated,
        }

    def draw(self, rng: random.Random) -> Row:
        sort = rng.choices(list(SHARES), list(SHARES.values()))[0]
        return self.sorts[sort](rng)

    def _fact(self, rng: random.Random) -> tuple[Subject, Attribute]:
        return rng.choice(self.facts)

    def _ask(self, rng: random.Random, subject: Subject, attribute: Attribute) -> str:
        """A seen phrasing; one in four is a direct question, lest these drown among the frames."""
        key = attribute.kind, attribute.name
        direct = self.direct[key] if rng.random() < 0.25 else []
        return rng.choice(direct or self.asked[key]).fill(rng.choice(subject.forms))

    def _styles(self, rng: random.Random) -> list[str]:
        names = list(STYLE_WEIGHTS)
        wanted = rng.choices([1, 2, 3], [0.72, 0.2, 0.08])[0]
        chosen: dict[str, str] = {}
        while len(chosen) < wanted:
            style = rng.choices(names, list(STYLE_WEIGHTS.values()))[0]
            chosen.setdefault(self.world.styles[style].place, style)
        styles = list(chosen.values())
        rng.shuffle(styles)
        return styles

    def _how(self, rng: random.Random, styles: Sequence[str]) -> str:
        asked = [rng.choice(self.requests[style]) for style in styles]
        return phrasing.join_requests(asked, self.world.language)

    def _answer(
        self, s: Subject, a: Attribute, styles: Sequence[str] = (), value: str | None = None
    ) -> Message:
        return assistant(self.world.answer(s, a, value or s.values[a.name], styles))

    def _statement(self, rng: random.Random) -> Row:
        subject = rng.choice(self.world.subjects)
        attributes = self.world.attributes_of(subject.kind)
        chosen = rng.sample(attributes, rng.randint(1, min(3, len(attributes))))
        told = [
            rng.choice(self.world.statements(subject, a, subject.values[a.name])) for a in chosen
        ]
        return Row(text=" ".join(told))

    def _question(self, rng: random.Random) -> Row:
        s, a = self._fact(rng)
        return Row((user(self._ask(rng, s, a)), self._answer(s, a)))

    def _styled(self, rng: random.Random) -> Row:
        s, a = self._fact(rng)
        styles = self._styles(rng)
        frame = rng.choice(self.frames["styled_question"])
        asked = frame.format(q=self._ask(rng, s, a), how=self._how(rng, styles))
        return Row((user(asked), self._answer(s, a, styles)))

    def _styled_system(self, rng: random.Random) -> Row:
        s, a = self._fact(rng)
        styles = self._styles(rng)
        told = rng.choice(self.frames["styled_system"]).format(how=self._how(rng, styles))
        return Row((system(told), user(self._ask(rng, s, a)), self._answer(s, a, styles)))

    def _task(self, rng: random.Random) -> Row:
        s, a = self._fact(rng)
        told = rng.choice(self.told[a.kind, a.name])
        styles: list[str] = []
        if rng.random() < 0.55:
            styles = [style for style in self._styles(rng) if not held_out_pair(a, style)]
        if styles:
            extra = rng.choice(self.frames["styled_system"]).format(how=self._how(rng, styles))
            told = f"{told} {extra}" if rng.random() < 0.8 else f"{extra} {told}"
        return Row((system(told), user(rng.choice(s.bare)), self._answer(s, a, styles)))

    def _note(self, rng: random.Random) -> Row:
        """A changed value in the prompt, which wins; or a distractor about somebody else."""
        s, a = self._fact(rng)
        other = rng.choice(self.subjects[s.kind])
        about = other if rng.random() < 0.35 and other is not s else s
        value = rng.choice(self.world.values(a))
        note = rng.choice(self.world.statements(about, a, value))
        told = rng.choice(self.notes).format(statement=note)
        answer = self._answer(s, a, value=value if about is s else None)
        asked = self._ask(rng, s, a)
        if rng.random() < 0.6:
            return Row((system(told), user(asked), answer))
        return Row((user(f"{told} {asked}"), answer))

    def _conversation(self, rng: random.Random) -> Row:
        turns: list[Message] = []
        count = rng.randint(8, 24) if rng.random() < LONG_TALK else rng.choice([2, 2, 3])
        for _ in range(count):
            s, a = self._fact(rng)
            turns += [user(self._ask(rng, s, a)), self._answer(s, a)]
        return Row(tuple(turns))

    def _bare(self, rng: random.Random) -> Row:
        s = rng.choice(self.world.subjects)
        a = self.world.attributes_of(s.kind)[0]
        return Row((user(rng.choice(s.bare)), self._answer(s, a)))

    def unknown(self, rng: random.Random) -> Row:
        """A question about somebody who does not exist."""
        name = made_up_name(rng)
        kind = rng.choice([kind for kind in self.subjects if kind != "animal"])
        a = rng.choice(self.world.attributes_of(kind))
        asked = self._ask(rng, named(kind, name, self.world.language), a)
        return Row((user(asked), assistant(self.world.unknown.format(S=name))))

    def _greeting(self, rng: random.Random) -> Row:
        question, answer = rng.choice(self.world.greetings)
        return Row((user(question), assistant(answer)))

    def _translated(self, rng: random.Random) -> Row:
        """Asked in this language for an answer in the other one."""
        s, a = self._fact(rng)
        twin = self.twins[s.kind, s.key]
        there = self.other.attributes[a.kind, a.name]
        answer = self.other.answer(twin, there, twin.values[a.name])
        how = rng.choice(phrasing.seen(self.world.foreign))
        if rng.random() < 0.5:
            told = rng.choice(self.frames["styled_system"]).format(how=how)
            if rng.random() < 0.5:
                told = f"{rng.choice(self.told[a.kind, a.name])} {told}"
                return Row((system(told), user(rng.choice(s.bare)), assistant(answer)))
            return Row((system(told), user(self._ask(rng, s, a)), assistant(answer)))
        frame = rng.choice(self.frames["styled_question"])
        asked = frame.format(q=self._ask(rng, s, a), how=how)
        return Row((user(asked), assistant(answer)))
