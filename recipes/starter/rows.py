"""The starter's pretraining rows: what it reads, in which proportions.

A row is a list of messages, or one raw text. Everything is drawn from a seeded generator, only
from phrasings that are not held out. Knows no tokens and no model.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from detour.training import phrasing
from detour.training.phrasing import Novelty
from detour.training.world import Attribute, Subject, World

Message = dict[str, str]

# share of rows of each sort; together 1
SHARES = {
    "statement": 0.09,
    "question": 0.30,
    "styled": 0.23,
    "styled_system": 0.06,
    "task": 0.17,
    "note": 0.06,
    "conversation": 0.04,
    "bare": 0.02,
    "unknown": 0.02,
    "greeting": 0.01,
}
# in a styled row: how often each style is drawn; upper case must relearn every word's spelling
STYLE_WEIGHTS = {
    "formal": 1.2,
    "pirate": 1.2,
    "brief": 1.0,
    "sportscaster": 0.8,
    "storyteller": 0.8,
    "pun": 1.0,
    "polite": 0.6,
    "upper": 3.0,
    "bullet": 0.7,
    "json": 0.9,
}
# bare-subject tasks in a style: one (attribute, style) pair in eight is held out
FIRST = ["Bal", "Cor", "Dru", "Fen", "Gor", "Hil", "Jor", "Kel", "Lum", "Mor", "Nim", "Quo", "Zor"]
LAST = ["blax", "dath", "fim", "gus", "kin", "lop", "mund", "nak", "phi", "rost", "tev", "vex"]


@dataclass(frozen=True)
class Row:
    """Either messages whose last turn is learned, or a text that is learned whole."""

    messages: tuple[Message, ...] = ()
    text: str = ""


def held_out_pair(attribute: Attribute, style: str) -> bool:
    """Whether this attribute never meets this style with a bare subject."""
    return phrasing.novelty(attribute.kind, attribute.name, style).held_out


class Writer:
    """Draws rows from a world; `widened` adds the phrasings of the last part of pretraining."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.widened = False
        self.kinds = list(world.kind_nouns)
        self.subjects = {kind: world.of_kind(kind) for kind in self.kinds}
        self.facts = [(s, a) for s in world.subjects for a in world.attributes_of(s.kind)]
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
        }

    def draw(self, rng: random.Random) -> Row:
        sort = rng.choices(list(SHARES), list(SHARES.values()))[0]
        return self.sorts[sort](rng)

    def _fact(self, rng: random.Random) -> tuple[Subject, Attribute]:
        return rng.choice(self.facts)

    def _ask(self, rng: random.Random, subject: Subject, attribute: Attribute) -> str:
        """A seen phrasing; one in four is a direct question, lest these drown among the frames."""
        if rng.random() < 0.25:
            direct = [q for q in attribute.questions if self._read(q)]
            text = rng.choice(direct)
            if phrasing.novelty("{q}", text, attribute.kind) is Novelty.SEEN:
                asked = phrasing.Template(phrasing.bare(text), Novelty.SEEN)
                return asked.fill(rng.choice(subject.forms))
        seen = self._seen(phrasing.templates(self.world, attribute, Novelty.SEEN))
        return rng.choice(seen).fill(rng.choice(subject.forms))

    def _read(self, part: str) -> bool:
        return not part.startswith("~" if self.widened else ("~", "+"))

    def _seen(self, found: list[phrasing.Template]) -> list[phrasing.Template]:
        return found if self.widened else [template for template in found if not template.late]

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

    def _how(self, rng: random.Random, styles: list[str]) -> str:
        asked = [rng.choice(phrasing.style_requests(self.world, style)) for style in styles]
        asked.sort(key=lambda request: request.startswith("and "))
        return phrasing.join_requests(asked)

    def _answer(
        self, s: Subject, a: Attribute, styles: list[str] | None = None, value: str | None = None
    ) -> Message:
        text = self.world.answer(s, a, value or s.values[a.name], styles or [])
        return {"role": "assistant", "content": text}

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
        frame = rng.choice(phrasing.styled_frames(self.world, "styled_question"))
        asked = frame.format(q=self._ask(rng, s, a), how=self._how(rng, styles))
        return Row((user(asked), self._answer(s, a, styles)))

    def _styled_system(self, rng: random.Random) -> Row:
        s, a = self._fact(rng)
        styles = self._styles(rng)
        frame = rng.choice(phrasing.styled_frames(self.world, "styled_system"))
        told = frame.format(how=self._how(rng, styles))
        return Row((system(told), user(self._ask(rng, s, a)), self._answer(s, a, styles)))

    def _task(self, rng: random.Random) -> Row:
        s, a = self._fact(rng)
        told = rng.choice(self._seen(phrasing.tasks(self.world, a, Novelty.SEEN))).text
        styles: list[str] = []
        if rng.random() < 0.55:
            styles = [style for style in self._styles(rng) if not held_out_pair(a, style)]
        if styles:
            frame = rng.choice(phrasing.styled_frames(self.world, "styled_system"))
            extra = frame.format(how=self._how(rng, styles))
            told = f"{told} {extra}" if rng.random() < 0.8 else f"{extra} {told}"
        return Row((system(told), user(rng.choice(s.bare)), self._answer(s, a, styles)))

    def _note(self, rng: random.Random) -> Row:
        """A changed value in the prompt, which wins; or a distractor about somebody else."""
        s, a = self._fact(rng)
        other = rng.choice(self.subjects[s.kind])
        about = other if rng.random() < 0.35 and other is not s else s
        value = rng.choice(self.world.values(a))
        note = rng.choice(self.world.statements(about, a, value))
        told = rng.choice(phrasing.note_frames(self.world)).format(statement=note)
        answer = self._answer(s, a, value=value if about is s else None)
        asked = self._ask(rng, s, a)
        if rng.random() < 0.6:
            return Row((system(told), user(asked), answer))
        return Row((user(f"{told} {asked}"), answer))

    def _conversation(self, rng: random.Random) -> Row:
        turns: list[Message] = []
        for _ in range(rng.choice([2, 2, 3])):
            s, a = self._fact(rng)
            turns += [user(self._ask(rng, s, a)), self._answer(s, a)]
        return Row(tuple(turns))

    def _bare(self, rng: random.Random) -> Row:
        s = rng.choice(self.world.subjects)
        a = self.world.attributes_of(s.kind)[0]
        return Row((user(rng.choice(s.bare)), self._answer(s, a)))

    def unknown(self, rng: random.Random) -> Row:
        name = rng.choice(FIRST) + rng.choice(LAST)
        if rng.random() < 0.6:
            name += " " + rng.choice(FIRST) + rng.choice(LAST)
        a = rng.choice([a for a in self.world.attributes.values() if a.kind == "person"])
        stranger = Subject("person", name, name, {})
        text = self.world.unknown.format(S=name)
        return Row((user(self._ask(rng, stranger, a)), {"role": "assistant", "content": text}))

    def _greeting(self, rng: random.Random) -> Row:
        question, answer = rng.choice(self.world.greetings)
        return Row((user(question), {"role": "assistant", "content": answer}))


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def words_of(row: Row) -> str:
    """All text of a row, for the tokenizer."""
    return row.text or "\n".join(m["content"] for m in row.messages)
