"""English text that remembers how it was made, and catalogues that say it in another language.

As in gettext the English template is the key: `text("no file {path}", path=path)` is an English
string to everybody, and a catalogue that knows the template fills the German one with the same
values. German stands in `de.yaml`, read when it is wanted first; it needs no build step. Knows
templates and values; knows nothing of terminals, errors or models.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType

LANGUAGES = ("en", "de")
VARIABLE = "DETOUR_LANG"  # environment variable that names the language


class Text(str):
    """English text; `template` and `values` let a catalogue say it in another language."""

    template: str
    values: Mapping[str, object]

    def __new__(cls, template: str, values: Mapping[str, object]) -> Text:
        """The template with its fields filled."""
        made = super().__new__(cls, template.format(**values))
        made.template = template
        made.values = MappingProxyType(dict(values))
        return made

    def __reduce__(self) -> tuple[type[Text], tuple[str, dict[str, object]]]:
        return Text, (self.template, dict(self.values))

    def __deepcopy__(self, _: object) -> Text:
        return self


def text(template: str, /, **values: object) -> Text:
    """English text from a template with `str.format` fields; values may be Text themselves."""
    return Text(template, values)


def joined(separator: str, parts: Sequence[str]) -> Text:
    """`separator.join(parts)` that can still be translated part by part."""
    values: dict[str, object] = {f"part{number}": part for number, part in enumerate(parts)}
    clean = separator.replace("{", "{{").replace("}", "}}")
    return Text(clean.join(f"{{{name}}}" for name in values), values)


@dataclass(frozen=True)
class Catalogue:
    """A language: what to say for an English template. English itself needs no entries."""

    language: str = "en"
    entries: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), repr=False)

    @staticmethod
    def load(language: str = "en") -> Catalogue:
        """The catalogue of `en` or `de`.

        Raises:
            ValueError: no such language.
        """
        if language not in LANGUAGES:
            raise ValueError(f"unknown language {language!r}, expected one of {LANGUAGES}")
        if language == "en":
            return ENGLISH
        import yaml  # costs 20 ms; help in English does not pay them

        source = files("detour.language").joinpath(f"{language}.yaml")
        return Catalogue(language, MappingProxyType(yaml.safe_load(source.read_text("utf-8"))))

    def __call__(self, template: str, /, **values: object) -> str:
        """The template in this language, filled; one without an entry stays English."""
        told = {name: self.say(v) if isinstance(v, str) else v for name, v in values.items()}
        return self.entries.get(template, template).format(**told)

    def say(self, anything: str) -> str:
        """A Text in this language; any other string as it is."""
        if isinstance(anything, Text):
            return self(anything.template, **anything.values)
        return anything


ENGLISH = Catalogue()
NAMES = MappingProxyType({"en": text("English"), "de": text("German")})


def wanted_language(arguments: Sequence[str] = ()) -> str:
    """What `--lang` in these arguments asks for, else $DETOUR_LANG, else English.

    For telling errors, also those of reading the arguments: what is no language is passed over.
    """
    named = [os.environ.get(VARIABLE, "")]
    for place, argument in enumerate(arguments):
        if argument == "--lang":
            named += arguments[place + 1 : place + 2]
        elif argument.startswith("--lang="):
            named.append(argument.removeprefix("--lang="))
    return next((name for name in reversed(named) if name in LANGUAGES), "en")
