"""How questions about the starter's world are phrased, and which phrasings are held out.

A phrasing is a frame around a part ("Tell me {np}." around "the {n} of {s}"). Three degrees of
novelty are kept apart, because they are claims of different strength:

- SEEN: used in pretraining;
- NEW_COMBINATION: every part was seen, this combination never (one in eight, by hash);
- NEW_WORDS: it contains a part that is held out everywhere (marked "~" in the data).

Knows no model.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import product

from detour.training.world import Attribute, Form, Subject, World, capitalised

HELD_OUT_SHARE = 8  # one combination in eight


class Novelty(Enum):
    """How new a phrasing is to the starter."""

    SEEN = "seen"
    NEW_COMBINATION = "new combination"
    NEW_WORDS = "new words"

    @property
    def held_out(self) -> bool:
        """Whether this phrasing was kept out of pretraining."""
        return self is not Novelty.SEEN


@dataclass(frozen=True)
class Template:
    """A question with `{s}` still open."""

    text: str
    novelty: Novelty

    def fill(self, form: Form | str) -> str:
        """The question about the subject as the user names it."""
        named = Form.of(form) if isinstance(form, str) else form
        return capitalised(named.put(self.text, "s"))


def novelty(*parts: str) -> Novelty:
    """The novelty of one combination of parts, decided by their marks and a hash."""
    if any(part.startswith("~") for part in parts):
        return Novelty.NEW_WORDS
    digest = hashlib.sha256("\x1f".join(parts).encode()).digest()
    return Novelty.NEW_COMBINATION if digest[0] % HELD_OUT_SHARE == 0 else Novelty.SEEN


def bare(part: str) -> str:
    """A part of the data without its mark."""
    return part.removeprefix("~")


def _framed(
    frames: Sequence[str], slot: str, parts: Sequence[str], *key: str
) -> Iterator[Template]:
    for frame, part in product(frames, parts):
        inner = bare(part)
        text = bare(frame).replace("{" + slot + "}", inner)
        yield Template(text, novelty(frame, part, *key))


@dataclass(frozen=True)
class Noun:
    """A noun as it stands alone in a sentence, as an object, and without its article."""

    nominative: str
    accusative: str
    bare: str

    @staticmethod
    def of(text: str) -> Noun:
        """Read `der Beruf`, or all three where they do not follow: `nominative|accusative|bare`."""
        nominative, *rest = text.split("|")
        accusative = rest[0] if rest else re.sub(r"^der ", "den ", nominative)
        alone = rest[1] if len(rest) > 1 else re.sub(r"^(der|die|das) ", "", nominative)
        return Noun(nominative, accusative, alone)


def _noun_phrase(frame: str, phrase: str, noun: Noun) -> str:
    """A noun phrase put into a frame, in the case that the frame wants."""
    wanted = noun.accusative if "{np:akk}" in frame else noun.nominative
    inner = phrase.replace("{n:bare}", noun.bare).replace("{n}", wanted)
    text = frame.replace("{np:akk}", inner).replace("{np}", inner)
    return text.replace("{Np}", capitalised(inner))


def noun_questions(world: World, noun: str, form: Form) -> list[str]:
    """Every question after a noun of somebody, known to the world or not."""
    known = Noun.of(noun)
    return [
        capitalised(form.put(_noun_phrase(bare(frame), phrase, known), "s"))
        for phrase in world.frames["noun_phrase"]
        for frame in world.frames["noun"]
    ]


_Frames = tuple[tuple[str, tuple[str, ...]], ...]


@lru_cache(maxsize=64)
def _templates(frames: _Frames, phrases: tuple[str, ...], a: Attribute) -> list[Template]:
    named = dict(frames)
    found = list(_framed(named["question"], "q", a.questions, a.kind))
    found += _framed(named["clause"], "c", a.clauses, a.kind)
    for frame, phrase, noun in product(named["noun"], phrases, a.nouns):
        text = _noun_phrase(bare(frame), phrase, Noun.of(bare(noun)))
        found.append(Template(text, novelty(frame, phrase, noun, a.kind)))
    return found


def templates(world: World, attribute: Attribute, *wanted: Novelty) -> list[Template]:
    """All phrasings of a question for this attribute (of the wanted novelty, if given)."""
    frames = tuple(sorted(world.frames.items()))
    every = _templates(frames, world.kind_phrases[attribute.kind], attribute)
    return [t for t in every if not wanted or t.novelty in wanted]


def questions(
    world: World, subject: Subject, attribute: Attribute, *wanted: Novelty
) -> list[tuple[str, Novelty]]:
    """All filled phrasings, in every form of the subject's name."""
    return [
        (template.fill(form), template.novelty)
        for template in templates(world, attribute, *wanted)
        for form in subject.forms
    ]


def tasks(world: World, attribute: Attribute, *wanted: Novelty) -> list[Template]:
    """The attribute as a task for the system turn ("Give the profession of the person.")."""
    kind = world.kind_nouns[attribute.kind]
    found = [
        Template(
            _task(bare(frame), Noun.of(bare(part)), kind),
            novelty(frame, part, attribute.kind),
        )
        for frame, part in product(world.frames["task"], attribute.nouns)
    ]
    return [t for t in found if not wanted or t.novelty in wanted]


def _task(frame: str, noun: Noun, kind: Form) -> str:
    text = kind.put(frame.replace("{k:each}", kind.dative), "k")
    return capitalised(
        text.replace("{n:akk}", noun.accusative)
        .replace("{n:bare}", noun.bare)
        .replace("{n}", noun.nominative)
    )


def seen(parts: Iterable[str], held_out: bool = False) -> list[str]:
    """The parts that are not held out, or only those that are, without their marks."""
    return [bare(part) for part in parts if part.startswith("~") is held_out]


def style_requests(world: World, style: str, held_out: bool = False) -> list[str]:
    """The ways to ask for a style: `like a pirate`."""
    return seen(world.styles[style].requests, held_out)


def styled_frames(world: World, name: str, held_out: bool = False) -> list[str]:
    """Frames that put a style beside a question (`styled_question`) or alone (`styled_system`)."""
    return seen(world.frames[name], held_out)


def note_frames(world: World, held_out: bool = False) -> list[str]:
    """Frames that tell the model a changed fact in the prompt."""
    return seen(world.frames["note"], held_out)


def join_requests(requests: Iterable[str], language: str = "en") -> str:
    """`formally` and `and end with a pun` → `formally and end with a pun`."""
    word = {"en": "and", "de": "und"}[language]
    text = ""
    for request in requests:
        if not text:
            text = request
        else:
            joined = request.startswith(f"{word} ")
            text = f"{text} {request}" if joined else f"{text} {word} {request}"
    return text
