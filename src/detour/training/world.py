"""The starter's world: subjects, their attributes, and how an answer about them is worded.

Everything is read from data files in `starter/world/`. Knows nothing of models or tokens, nor of
how questions are phrased: that is `phrasing.py`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from detour.errors import ConfigError

PLACES = ("wording", "opening", "ending", "layout")


@dataclass(frozen=True, eq=False)
class Subject:
    """One person, animal, city or food, with its true values."""

    kind: str
    name: str
    short: str
    values: Mapping[str, str]

    @property
    def forms(self) -> tuple[str, ...]:
        """The ways a user names this subject inside a question."""
        if self.kind == "animal":
            return (f"the {self.name}", with_article(self.name))
        return (self.name,) if self.short == self.name else (self.name, self.short)

    @property
    def bare(self) -> tuple[str, ...]:
        """The ways a user names this subject when its name is the whole message."""
        return (self.name,) if self.short == self.name else (self.name, self.short)


@dataclass(frozen=True)
class Attribute:
    """One thing that can be asked of a kind of subject, and the wordings of its answer."""

    kind: str
    name: str
    nouns: tuple[str, ...]
    questions: tuple[str, ...]
    clauses: tuple[str, ...]
    plain: str
    statements: tuple[str, ...]
    formal: str
    pirate: str
    pun: str


@dataclass(frozen=True)
class Style:
    """One manner of answering. It owns one place of the answer: `PLACES`."""

    name: str
    place: str
    requests: tuple[str, ...]
    opening: str = ""
    ending: str = ""


def with_article(noun: str) -> str:
    """`physicist` → `a physicist`, `actor` → `an actor`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    """The first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


def _fill(template: str, subject: Subject, value: str) -> str:
    filled = template.format(S=subject.name, s=subject.name, v=value, av=with_article(value))
    return capitalised(filled)


@dataclass(frozen=True)
class World:
    """All subjects, attributes and styles; renders the right answer to a question."""

    subjects: tuple[Subject, ...]
    attributes: Mapping[tuple[str, str], Attribute]
    styles: Mapping[str, Style]
    frames: Mapping[str, tuple[str, ...]]
    kind_nouns: Mapping[str, str]
    unknown: str
    greetings: tuple[tuple[str, str], ...]
    persuasions: Mapping[str, tuple[str, ...]]
    blind: Mapping[tuple[str, str], tuple[str, ...]]
    _by_name: dict[str, Subject] = field(default_factory=lambda: {}, repr=False)

    @staticmethod
    def load(folder: Path | None = None) -> World:
        """Read `phrases.yaml` and the subjects' CSV files (default: the packaged world).

        Raises:
            ConfigError: a file is missing or has no such column.
        """
        root = folder or Path(str(files("detour.starter") / "world"))
        try:
            data: dict[str, Any] = yaml.safe_load((root / "phrases.yaml").read_text("utf-8"))
            return _build(data, root)
        except (OSError, KeyError) as cause:
            raise ConfigError(f"the world in {root} cannot be read", found=str(cause)) from cause

    def subject(self, name: str, kind: str | None = None) -> Subject | None:
        """The subject of that full or short name, or None."""
        if not self._by_name:
            for subject in reversed(self.subjects):
                for form in subject.bare:
                    self._by_name[form.casefold()] = subject
                    self._by_name[f"{subject.kind}:{form}".casefold()] = subject
        key = name.strip() if kind is None else f"{kind}:{name.strip()}"
        return self._by_name.get(key.casefold())

    def of_kind(self, kind: str) -> list[Subject]:
        """All subjects of one kind, in file order."""
        return [subject for subject in self.subjects if subject.kind == kind]

    def attributes_of(self, kind: str) -> list[Attribute]:
        """The attributes that subjects of this kind have."""
        return [a for (owner, _), a in self.attributes.items() if owner == kind]

    @cached_property
    def _values(self) -> dict[tuple[str, str], list[str]]:
        return {
            (kind, name): sorted({s.values[name] for s in self.subjects if s.kind == kind})
            for kind, name in self.attributes
        }

    def values(self, attribute: Attribute) -> list[str]:
        """Every value that some subject has for this attribute, sorted."""
        return self._values[attribute.kind, attribute.name]

    def statement(self, subject: Subject, attribute: Attribute, value: str) -> str:
        """The plain sentence, such as `Albert Einstein was a physicist.`."""
        return _fill(attribute.plain, subject, value)

    def statements(self, subject: Subject, attribute: Attribute, value: str) -> list[str]:
        """The plain sentence and its seen rewordings."""
        seen = [s for s in attribute.statements if not s.startswith("~")]
        return [_fill(template, subject, value) for template in (attribute.plain, *seen)]

    def answer(
        self, subject: Subject, attribute: Attribute, value: str, styles: Sequence[str] = ()
    ) -> str:
        """The right answer in the given styles, at most one of each place.

        Raises:
            ConfigError: two of the styles claim the same place of the answer.
        """
        chosen = self._by_place(styles)
        text = self._worded(subject, attribute, value, chosen.get("wording"))
        if "opening" in chosen:
            text = self.styles[chosen["opening"]].opening + text
        if "ending" in chosen:
            text = f"{text} {self.ending(attribute, chosen['ending'])}"
        return lay_out(text, chosen.get("layout"))

    def ending(self, attribute: Attribute, style: str) -> str:
        """What an ending style adds: its own sentence, or the attribute's pun."""
        return self.styles[style].ending or attribute.pun

    def _by_place(self, styles: Sequence[str]) -> dict[str, str]:
        chosen: dict[str, str] = {}
        for name in styles:
            place = self.styles[name].place
            if place in chosen:
                raise ConfigError(
                    f"the styles {chosen[place]} and {name} both claim the answer's {place}",
                    hint="choose styles of different places",
                )
            chosen[place] = name
        return chosen

    def _worded(
        self, subject: Subject, attribute: Attribute, value: str, wording: str | None
    ) -> str:
        if wording == "brief":
            return f"{capitalised(value)}."
        template = {None: attribute.plain, "formal": attribute.formal, "pirate": attribute.pirate}
        return _fill(template[wording], subject, value)


def lay_out(text: str, layout: str | None) -> str:
    """Apply a layout style to a finished answer."""
    if layout == "upper":
        return text.upper()
    if layout == "bullet":
        return f"* {text}"
    if layout == "json":
        return json.dumps({"answer": text}, ensure_ascii=False)
    return text


def _build(data: dict[str, Any], root: Path) -> World:
    subjects: list[Subject] = []
    attributes: dict[tuple[str, str], Attribute] = {}
    for kind, spec in data["kinds"].items():
        for name, a in spec["attributes"].items():
            lists = {k: tuple(a[k]) for k in ("nouns", "questions", "clauses", "statements")}
            texts = {k: a[k] for k in ("plain", "formal", "pirate", "pun")}
            attributes[kind, name] = Attribute(kind, name, **lists, **texts)
        subjects += _subjects(root / spec["file"], kind, list(spec["attributes"]))
    styles = {
        name: Style(
            name, s["place"], tuple(s["requests"]), s.get("opening", ""), s.get("ending", "")
        )
        for name, s in data["styles"].items()
    }
    return World(
        subjects=tuple(subjects),
        attributes=attributes,
        styles=styles,
        frames={name: tuple(frames) for name, frames in data["frames"].items()},
        kind_nouns={kind: spec["noun"] for kind, spec in data["kinds"].items()},
        unknown=data["unknown"],
        greetings=tuple((q, a) for q, a in data["greetings"]),
        blind={
            (kind, name): tuple(asked)
            for kind, attributes in data["blind"].items()
            for name, asked in attributes.items()
        },
        persuasions={place: tuple(texts) for place, texts in data["persuasions"].items()},
    )


def _subjects(path: Path, kind: str, attributes: Sequence[str]) -> list[Subject]:
    with path.open(encoding="utf-8", newline="") as stream:
        return [
            Subject(
                kind, row["name"], row.get("short", row["name"]), {a: row[a] for a in attributes}
            )
            for row in csv.DictReader(stream)
        ]
