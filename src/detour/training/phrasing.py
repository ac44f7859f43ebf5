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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import product

from detour.training.world import Attribute, Subject, World, capitalised

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
    late: bool = False  # read in the last part of pretraining only

    def fill(self, form: str) -> str:
        """The question about the subject as the user names it."""
        return capitalised(self.text.replace("{s}", form))


def novelty(*parts: str) -> Novelty:
    """The novelty of one combination of parts, decided by their marks and a hash."""
    if any(part.startswith("~") for part in parts):
        return Novelty.NEW_WORDS
    digest = hashlib.sha256("\x1f".join(part.removeprefix("+") for part in parts).encode()).digest()
    return Novelty.NEW_COMBINATION if digest[0] % HELD_OUT_SHARE == 0 else Novelty.SEEN


def bare(part: str) -> str:
    """A part of the data without its mark."""
    return part.removeprefix("~").removeprefix("+")


def late(*parts: str) -> bool:
    """Whether one of the parts came in the last part of pretraining only."""
    return any(part.startswith("+") for part in parts)


def _framed(
    frames: Sequence[str], slot: str, parts: Sequence[str], *key: str
) -> Iterator[Template]:
    for frame, part in product(frames, parts):
        inner = bare(part)
        text = bare(frame).replace("{" + slot + "}", inner)
        yield Template(text, novelty(frame, part, *key), late(frame, part))


@lru_cache(maxsize=64)
def _templates(frames: tuple[tuple[str, tuple[str, ...]], ...], a: Attribute) -> list[Template]:
    named = dict(frames)
    found = list(_framed(named["question"], "q", a.questions, a.kind))
    found += _framed(named["clause"], "c", a.clauses, a.kind)
    for frame, phrase, noun in product(named["noun"], named["noun_phrase"], a.nouns):
        inner = phrase.replace("{n}", bare(noun))
        text = bare(frame).replace("{np}", inner).replace("{Np}", capitalised(inner))
        found.append(Template(text, novelty(frame, phrase, noun, a.kind), late(frame, noun)))
    return found


def templates(world: World, attribute: Attribute, *wanted: Novelty) -> list[Template]:
    """All phrasings of a question for this attribute (of the wanted novelty, if given)."""
    every = _templates(tuple(sorted(world.frames.items())), attribute)
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
    noun = world.kind_nouns[attribute.kind]
    found = [
        Template(
            bare(frame).replace("{n}", bare(part)).replace("{k}", noun),
            novelty(frame, part, attribute.kind),
            late(frame, part),
        )
        for frame, part in product(world.frames["task"], attribute.nouns)
    ]
    return [t for t in found if not wanted or t.novelty in wanted]


def style_requests(world: World, style: str, held_out: bool = False) -> list[str]:
    """The ways to ask for a style: `like a pirate`."""
    return [bare(r) for r in world.styles[style].requests if r.startswith("~") is held_out]


def styled_frames(world: World, name: str, held_out: bool = False) -> list[str]:
    """Frames that put a style beside a question (`styled_question`) or alone (`styled_system`)."""
    return [bare(f) for f in world.frames[name] if f.startswith("~") is held_out]


def note_frames(world: World, held_out: bool = False) -> list[str]:
    """Frames that tell the model a changed fact in the prompt."""
    return [bare(f) for f in world.frames["note"] if f.startswith("~") is held_out]


def join_requests(requests: Iterable[str]) -> str:
    """`formally` and `and end with a pun` → `formally and end with a pun`."""
    text = ""
    for request in requests:
        if not text:
            text = request
        else:
            text = f"{text} {request}" if request.startswith("and ") else f"{text} and {request}"
    return text
