"""The starter's world: subjects, their attributes, and how an answer about them is worded.

Everything is read from data files in `starter/world/`. Knows nothing of models or tokens, nor of
how questions are phrased: that is `phrasing.py`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from detour.errors import ConfigError
from detour.language.catalogue import text
from detour.model.starter_card import starter_card

PLACES = ("wording", "opening", "ending", "layout")


LANGUAGES = ("en", "de")


def spoken() -> tuple[str, ...]:
    """The languages of the world that the packaged starter speaks, by its card.

    Raises:
        MachineError: the packaged card is missing or cannot be read.
    """
    named = starter_card()["languages"]
    return tuple(language for language in LANGUAGES if language in named)


class Form(NamedTuple):
    """One way to name a subject, in the four cases; English has one for all."""

    nominative: str
    genitive: str
    dative: str
    accusative: str

    @staticmethod
    def of(text: str) -> Form:
        """A name that never changes."""
        return Form(text, text, text, text)

    def put(self, template: str, slot: str) -> str:
        """The template with `{slot}`, `{slot:gen}`, `{slot:dat}` and `{slot:akk}` filled."""
        for case, form in (("", self.nominative), (":gen", self.genitive),
                           (":dat", self.dative), (":akk", self.accusative)):  # fmt: skip
            template = template.replace(f"{{{slot}{case}}}", form)
        return template


@dataclass(frozen=True, eq=False)
class Subject:
    """One person, animal, city or food, with its true values.

    Attributes:
        kind: `person`, `animal`, `city` or `food`.
        name: its full name, and `short` the one that is also used alone.
        values: attribute name → true value, in the words of the world's language.
        key: the same in every language (the English name).
        full: the name inside an answer.
        forms: the ways a user names this subject inside a question.
        gender: `m` or `f`, where the language needs it.
    """

    kind: str
    name: str
    short: str
    values: Mapping[str, str]
    key: str
    full: Form
    forms: tuple[Form, ...]
    gender: str = ""

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
    brief: str = "{v}."


@dataclass(frozen=True)
class Style:
    """One manner of answering. It owns one place of the answer: `PLACES`."""

    name: str
    place: str
    requests: tuple[str, ...]
    opening: str = ""
    ending: str = ""
    label: str = ""


def with_article(noun: str) -> str:
    """`physicist` → `a physicist`, `actor` → `an actor`."""
    return f"{'an' if noun[:1].lower() in 'aeiou' else 'a'} {noun}"


def capitalised(text: str) -> str:
    """The first letter in upper case, the rest untouched."""
    return text[:1].upper() + text[1:]


def _fill(template: str, subject: Subject, value: str) -> str:
    named = subject.full.put(subject.full.put(template, "S"), "s")
    return capitalised(named.replace("{v}", value).replace("{av}", with_article(value)))


@dataclass(frozen=True)
class World:
    """All subjects, attributes and styles of one language; renders the right answer."""

    language: str
    subjects: tuple[Subject, ...]
    attributes: Mapping[tuple[str, str], Attribute]
    styles: Mapping[str, Style]
    frames: Mapping[str, tuple[str, ...]]
    kind_nouns: Mapping[str, Form]
    kind_phrases: Mapping[str, tuple[str, ...]]
    json_key: str
    foreign: tuple[str, ...]
    unknown: str
    greetings: tuple[tuple[str, str], ...]
    persuasions: Mapping[str, tuple[str, ...]]
    blind: Mapping[tuple[str, str], tuple[str, ...]]
    genders: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: {}, repr=False)
    _by_name: dict[str, Subject] = field(default_factory=lambda: {}, repr=False)

    @staticmethod
    def load(language: str = "en", folder: Path | None = None) -> World:
        """Read `phrases.yaml` and the subjects' CSV files (default: the packaged world).

        Raises:
            ConfigError: no such language; a file is missing or has no such column.
        """
        if language not in LANGUAGES:
            raise ConfigError(
                text("the starter's world is not told in {language!r}", language=language),
                expected=text("one of {names}", names=", ".join(LANGUAGES)),
            )
        root = (folder or Path(str(files("detour.starter") / "world"))) / language
        try:
            data: dict[str, Any] = yaml.safe_load((root / "phrases.yaml").read_text("utf-8"))
            return _build(language, data, root)
        except (OSError, KeyError) as cause:
            raise ConfigError(
                text("the world in {root} cannot be read", root=root), found=str(cause)
            ) from cause

    def subject(self, name: str, kind: str | None = None) -> Subject | None:
        """The subject of that full or short name, in any case of it, or None."""
        if not self._by_name:
            for subject in reversed(self.subjects):
                for form in (*subject.full, *subject.bare):
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
    def _twins(self) -> dict[tuple[str, str], Subject]:
        return {(s.kind, s.key): s for s in self.subjects}

    def twin(self, subject: Subject) -> Subject:
        """The same subject, of another language's world, in this one."""
        return self._twins[subject.kind, subject.key]

    def gendered(self, value: str, gender: str) -> str:
        """The value as it is said of a man or a woman (`Bäcker`, `Bäckerin`), where it differs."""
        return self.genders.get(value.casefold(), {}).get(gender, value)

    def translated(
        self, subject: Subject, attribute: Attribute, value: str, other: World
    ) -> str | None:
        """The value in the other world's language, as it is said of the subject there.

        None where nobody in this world has that value.
        """
        meant = {self.gendered(value, g).casefold() for g in ("m", "f")}
        for example in self.of_kind(attribute.kind):
            if example.values[attribute.name].casefold() in meant:
                found = other.twin(example).values[attribute.name]
                return other.gendered(found, other.twin(subject).gender)
        return None

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
        return lay_out(text, chosen.get("layout"), self.json_key)

    def ending(self, attribute: Attribute, style: str) -> str:
        """What an ending style adds: its own sentence, or the attribute's pun."""
        return self.styles[style].ending or attribute.pun

    def _by_place(self, styles: Sequence[str]) -> dict[str, str]:
        chosen: dict[str, str] = {}
        for name in styles:
            place = self.styles[name].place
            if place in chosen:
                raise ConfigError(
                    text(
                        "the styles {chosen} and {name} both claim the answer's {place}",
                        chosen=chosen[place],
                        name=name,
                        place=place,
                    ),
                    hint=text("choose styles of different places"),
                )
            chosen[place] = name
        return chosen

    def _worded(
        self, subject: Subject, attribute: Attribute, value: str, wording: str | None
    ) -> str:
        template = {
            None: attribute.plain,
            "brief": attribute.brief,
            "formal": attribute.formal,
            "pirate": attribute.pirate,
        }
        return _fill(template[wording], subject, value)


def lay_out(text: str, layout: str | None, json_key: str = "answer") -> str:
    """Apply a layout style to a finished answer."""
    if layout == "upper":
        return text.upper()
    if layout == "bullet":
        return f"* {text}"
    if layout == "json":
        return json.dumps({json_key: text}, ensure_ascii=False)
    return text


def _build(language: str, data: dict[str, Any], root: Path) -> World:
    subjects: list[Subject] = []
    attributes: dict[tuple[str, str], Attribute] = {}
    for kind, spec in data["kinds"].items():
        for name, a in spec["attributes"].items():
            lists = {k: tuple(a[k]) for k in ("nouns", "questions", "clauses", "statements")}
            texts = {k: a[k] for k in ("plain", "formal", "pirate", "pun")}
            attributes[kind, name] = Attribute(
                kind, name, **lists, **texts, brief=a.get("brief", "{v}.")
            )
        read = _subject_in[language]
        subjects += [
            read(kind, row, {a: row[a] for a in spec["attributes"]})
            for row in _rows(root / spec["file"])
        ]
    styles = {
        name: Style(
            name, s["place"], tuple(s["requests"]), s.get("opening", ""), s.get("ending", ""),
            s.get("label", name),
        )
        for name, s in data["styles"].items()
    }  # fmt: skip
    general = tuple(data["frames"]["noun_phrase"])
    return World(
        language=language,
        subjects=tuple(subjects),
        attributes=attributes,
        styles=styles,
        frames={name: tuple(frames) for name, frames in data["frames"].items()},
        kind_nouns={kind: _kind_noun(spec) for kind, spec in data["kinds"].items()},
        kind_phrases={
            kind: tuple(spec.get("noun_phrase", general)) for kind, spec in data["kinds"].items()
        },
        json_key=data.get("json_key", "answer"),
        foreign=tuple(data["foreign"]),
        unknown=data["unknown"],
        greetings=tuple((q, a) for q, a in data["greetings"]),
        blind={
            (kind, name): tuple(asked)
            for kind, attributes in data["blind"].items()
            for name, asked in attributes.items()
        },
        persuasions={place: tuple(texts) for place, texts in data["persuasions"].items()},
        genders=_genders(root / "professions.csv"),
    )


def _genders(path: Path) -> dict[str, dict[str, str]]:
    """Both forms of every gendered value, by either of them; none where the file is missing."""
    if not path.exists():
        return {}
    pairs = [{"m": row["m"], "f": row["f"]} for row in _rows(path)]
    return {form.casefold(): pair for pair in pairs for form in pair.values()}


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def _kind_noun(spec: Mapping[str, str]) -> Form:
    """The kind's noun: bare, genitive, dative with "each", accusative with an article."""
    noun = spec["noun"]
    return Form(
        noun,
        spec.get("noun_genitive", noun),
        spec.get("noun_each", noun),
        spec.get("noun_accusative", noun),
    )


def named(kind: str, name: str, language: str) -> Subject:
    """A subject of that name about whom nothing is known."""
    row = {"id": name, "name": name, "article": "das", "genitive": name}
    return _subject_in[language](kind, row, {})


def _english(kind: str, row: Mapping[str, str], values: Mapping[str, str]) -> Subject:
    name = row["name"]
    short = row.get("short", name)
    if kind == "animal":
        forms = (Form.of(f"the {name}"), Form.of(with_article(name)))
    else:
        forms = tuple(Form.of(text) for text in dict.fromkeys((name, short)))
    return Subject(kind, name, short, values, name, Form.of(name), forms)


def _german(kind: str, row: Mapping[str, str], values: Mapping[str, str]) -> Subject:
    name = row["name"]
    short = row.get("short", name)
    if kind == "animal":
        forms = _german_animal(row)
    else:
        forms = tuple(german_name(text) for text in dict.fromkeys((name, short)))
    gender = row.get("gender", "")
    return Subject(kind, name, short, values, row["id"], forms[0], forms, gender)


def german_name(name: str) -> Form:
    """A proper name: only its genitive differs (`Einsteins`, `Fields'`)."""
    genitive = f"{name}’" if name[-1:].lower() in "sßxz" or name.endswith("ce") else f"{name}s"
    return Form(name, genitive, name, name)


def _german_animal(row: Mapping[str, str]) -> tuple[Form, Form]:
    """`(der Pinguin …, ein Pinguin …)`."""
    name, article, genitive = row["name"], row["article"], row["genitive"]
    dative = row.get("dative") or name
    accusative = row.get("accusative") or name
    definite = {"der": ("dem", "den"), "die": ("der", "die"), "das": ("dem", "das")}[article]
    one = {
        "der": ("ein", "eines", "einem", "einen"),
        "die": ("eine", "einer", "einer", "eine"),
        "das": ("ein", "eines", "einem", "ein"),
    }[article]
    of_it = genitive.split(" ", 1)[-1]
    return (
        Form(
            f"{article} {name}", genitive, f"{definite[0]} {dative}", f"{definite[1]} {accusative}"
        ),
        Form(
            f"{one[0]} {name}", f"{one[1]} {of_it}", f"{one[2]} {dative}", f"{one[3]} {accusative}"
        ),
    )


_subject_in: Mapping[str, Callable[[str, Mapping[str, str], Mapping[str, str]], Subject]] = {
    "en": _english,
    "de": _german,
}
