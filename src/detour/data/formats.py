"""What the columns of a row mean: eight formats, told from their names, or named by hand.

What was recognised is said aloud by `told`, and what is not learned too; a column that holds a part
of the question or an answer is not left out unless it is said so. Knows rows and names; knows no
files and no tokens.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Final

from detour.data.forms import Raw
from detour.data.meaning import RECORDS, Columns, valued
from detour.data.numbers import Mark, Numbers, is_number, number_of, numbers_of
from detour.data.records import Kind, Record
from detour.errors import ConfigError, DataError
from detour.language.catalogue import Text, joined, text

# role → other names under which people bring it; the first that is there counts
ALIASES: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "conversation"),
    "instruction": ("instruction", "instructions", "anweisung"),
    "input": ("input", "context", "eingabe"),
    "output": ("output", "response", "ausgabe"),
    "prompt": ("prompt", "question", "query", "frage", "input", "eingabe"),
    "completion": ("completion", "answer", "response", "output", "antwort", "ausgabe"),
    "system": ("system", "system_prompt"),
    "text": ("text", "sentence", "content", "review", "satz"),
    "label": ("label", "class", "category", "intent", "klasse", "kategorie"),
    "value": ("value", "score", "target", "rating", "wert"),
    "sni_input": ("sni_input",),
    "sni_output": ("sni_output",),
    "sni_definition": ("sni_definition",),
}
# format → roles it needs; in the order in which they are looked for
NEEDED: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("messages",),
    "sharegpt": ("conversations",),
    "sni": ("sni_input", "sni_output"),
    "alpaca": ("instruction", "output"),
    "prompt_completion": ("prompt", "completion"),
    "classification": ("text", "label"),
    "regression": ("text", "value"),
    "text": ("text",),
}
OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "messages": ("system",),
    "sharegpt": ("system",),
    "alpaca": ("input", "system"),
    "prompt_completion": ("system",),
    "sni": ("sni_definition",),
}
KINDS: Final[Mapping[str, Kind]] = {
    "classification": "classification", "regression": "regression", "text": "text",
}  # fmt: skip
# columns that are asked or answered; without a role a row would teach something else than it says
CONTEXTS: Final = frozenset({
    "context", "contexts", "passage", "passages", "document", "documents", "article", "input",
    "history", "tools", "functions", "kontext", "dokument", "artikel", "eingabe",
})  # fmt: skip
ANSWERS: Final = frozenset({
    "answer", "answers", "summary", "completion", "response", "output", "antwort", "antworten",
    "zusammenfassung", "ausgabe",
})  # fmt: skip
_CONTENT = CONTEXTS | ANSWERS
# columns that stand beside a text and are nothing to learn
BESIDE: Final = frozenset({
    "author", "autor", "date", "datei", "datum", "domain", "file", "filename", "id", "lang",
    "language", "licence", "license", "lizenz", "meta", "part", "path", "quelle", "source", "split",
    "sprache", "timestamp", "title", "titel", "url", "year",
})  # fmt: skip
A_CLASS = 4  # rows at least of a class, on average, by which a column is taken for classes
LONGEST_CLASS = 40  # characters
WORDS = 4  # of a column's name, beyond which it is rather a sentence
SHOWN = 8  # columns that are told


@dataclass(frozen=True)
class Format:
    """A format and which column plays which role."""

    name: str
    columns: Columns = field(default_factory=lambda: {})
    left: tuple[str, ...] = ()
    """Columns of the first rows that hold something and have no role."""
    settled: bool = False
    """Whether it was named by hand, so that what is left is meant to be."""
    numbers: Numbers = field(default_factory=Numbers)
    """How the numbers of a regression are written."""

    @property
    def kind(self) -> Kind:
        """What is trained on it."""
        return KINDS.get(self.name, "chat")

    @property
    def told(self) -> Text:
        """Such as "format prompt_completion: Frage is the prompt; not learned: id"."""
        parts = [
            text("{column!r} is the {role}", column=column, role=role)
            for role, column in self.columns.items()
            if column != role and not role.startswith("sni_")
        ]
        if "sni_definition" in self.columns:
            parts.append(text("the Definition is the system message"))
        if parts:
            told = text("format {name}: {parts}", name=self.name, parts=joined(", ", parts))
        else:
            told = text("format {name}", name=self.name)
        left = [text("not learned: {names}", names=listed(self.left))] if self.left else []
        written = [self.numbers.told] if self.numbers.told else []
        return joined("; ", [told, *written, *left])

    def record(self, raw: Raw) -> Record:
        """A row in its meaning; one with other columns is read by these, if it is of this kind.

        Raises:
            DataError: something is missing, empty or no text, or would be lost.
        """
        own = self.reading(raw)
        if not self.settled:
            _check_nothing_lost(own, raw)
        if own.name == "regression":
            return valued(raw, own.columns, self.numbers)
        return RECORDS[own.name](raw, own.columns)

    def beside(self, raw: Raw) -> list[str]:
        """The columns of a row that hold something and have no role."""
        used = self.reading(raw).columns.values()
        return [name for name, value in raw.values.items() if name not in used and _holds(value)]

    def reading(self, raw: Raw) -> Format:
        """The format of a row's own columns, where it has none of ours."""
        if not any(column in raw.values for column in self.columns.values()):
            with suppress(DataError):
                other = _recognised([raw], {}, None)
                if other.kind == self.kind:
                    return other
        return self


def _check_nothing_lost(format: Format, raw: Raw) -> None:
    for column in format.beside(raw):
        if column.strip().casefold() in _CONTENT:
            raise DataError(
                text("{source}: column {column!r} would be lost", source=raw.source,
                     column=column),
                expected=text("a role for every column that is asked or answered"),
                found=format.told,
                hint=_advice(column, format),
            )  # fmt: skip


def _advice(column: str, format: Format) -> Text:
    roles = _roles_with(column, format)
    known = {role: c for role, c in format.columns.items() if c.casefold() not in ALIASES[role]}
    away = text("leave it out: {options}", options=f"--format {format.name}{_flags(known)}")
    if not roles:
        return away
    return joined("; ", [text("learn it: {options}", options=_flags(roles).strip()), away])


def _flags(columns: Columns) -> str:
    return "".join(f" --column {shlex.quote(f'{r}={c}')}" for r, c in columns.items())


def _roles_with(column: str, format: Format) -> Columns:
    """Roles by which a column that would be lost is learned; none where that cannot be told."""
    name, used = column.strip().casefold(), format.columns
    if name in ANSWERS:
        if format.kind == "chat":
            answer = {"alpaca": "output", "prompt_completion": "completion"}.get(format.name)
            return {answer: column} if answer else {}
        return {"prompt": used["text"], "completion": column}
    if name in ("history", "tools", "functions"):
        return {}
    if format.name == "prompt_completion":
        asked = {"instruction": used["prompt"], "input": column}
        return {**asked, "output": used["completion"]}
    return {"input": column} if format.name == "alpaca" else {}


def _holds(value: object) -> bool:
    return value is not None and value != "" and value != [] and value != {}


def listed(names: Sequence[str]) -> str:
    """The first few of them, in quotes."""
    return ", ".join(map(repr, names[:SHOWN])) + (", …" if len(names) > SHOWN else "")


def detect(
    rows: Sequence[Raw],
    columns: Columns | None = None,
    name: str | None = None,
    decimal: Mark | None = None,
) -> Format:
    """The format of some rows: by their columns' names, or as told.

    Args:
        rows: the first of a table; at least one.
        columns: role to column, where names say nothing; roles are those of `ALIASES`.
        name: a format by its name; then its roles must be found.
        decimal: the decimal mark of a regression's numbers, where they do not show it.

    Raises:
        DataError: the columns make no format, one that is asked or answered would be lost, or
            numbers can be read in two ways.
        ConfigError: an unknown role, column or format; a decimal mark for rows without numbers.
    """
    found = _recognised(rows, columns or {}, name)
    if found.name == "regression":
        column = found.columns["value"]
        values = [(row.values.get(column), row.source) for row in rows]
        found = replace(found, numbers=numbers_of(values, column, decimal))
    elif decimal:
        raise ConfigError(
            text("--decimal says nothing about rows of the format {name}", name=found.name),
            expected="regression",
            hint=text("leave it out, or name the column of numbers: --column value=…"),
        )
    left = dict.fromkeys(column for row in rows for column in found.beside(row))
    if not found.settled:
        for row in rows:
            _check_nothing_lost(found.reading(row), row)
    return replace(found, left=tuple(left))


def _recognised(rows: Sequence[Raw], columns: Columns, name: str | None) -> Format:
    there = list(dict.fromkeys(key for row in rows for key in row.values))
    chosen = dict(columns)
    _check(chosen, there, name)
    found = {**{role: c for role in ALIASES if (c := _named(role, there))}, **chosen}
    for candidate in [name] if name else _ordered(chosen):
        needed = NEEDED[candidate]
        if not all(role in found for role in needed):
            continue
        by_name = candidate == "classification" and name is None and "label" not in chosen
        if by_name and _are_numbers(row.values.get(found["label"]) for row in rows):
            return Format("regression", {"text": found["text"], "value": found["label"]})
        wanted = (*needed, *(r for r in OPTIONAL.get(candidate, ()) if r in found))
        used = {role: found[role] for role in wanted}
        if candidate == "text" and name is None and "text" not in chosen:
            _check_no_classes(rows, used["text"], there)
        if len(set(used.values())) == len(used):
            settled = name is not None or all(role in chosen for role in needed)
            return Format(candidate, used, settled=settled)
    raise _unknown(rows[0].source, there, name)


def _ordered(chosen: Columns) -> list[str]:
    """Formats that need what was named first, then the others."""
    return sorted(NEEDED, key=lambda name: -sum(role in chosen for role in NEEDED[name]))


def _check(chosen: Columns, there: Sequence[str], name: str | None) -> None:
    if name is not None and name not in NEEDED:
        raise ConfigError(
            text("unknown format {name!r}", name=name),
            expected=text("one of {names}", names=", ".join(NEEDED)), found=name,
        )  # fmt: skip
    for role, column in chosen.items():
        if role not in ALIASES:
            raise ConfigError(
                text("no column can be the {role!r}", role=role),
                expected=text("one of {names}", names=", ".join(ALIASES)), found=role,
            )  # fmt: skip
        if column not in there:
            close = get_close_matches(column, there, n=1)
            raise ConfigError(
                text("there is no column {column!r}", column=column),
                expected=text("one of {names}", names=", ".join(there)),
                found=column,
                hint=text("did you mean {close!r}?", close=close[0]) if close else "",
            )


def _named(role: str, there: Sequence[str]) -> str | None:
    folded = {name.strip().casefold(): name for name in reversed(there)}
    return next((folded[alias] for alias in ALIASES[role] if alias in folded), None)


def _are_numbers(values: Iterable[object]) -> bool:
    """Whether they are measured rather than counted: numbers, and not all of them whole."""
    there = list(values)
    if not there or not all(map(is_number, there)):
        return False
    known = [number_of(value) for value in there]
    return any(one is None or not one.is_integer() for one in known)


def _check_no_classes(rows: Sequence[Raw], told: str, there: Sequence[str]) -> None:
    """Refuse two columns, a text and what looks like its class or number: it would be lost.

    Raises:
        DataError: the other column holds few different words again and again, or numbers.
    """
    if len(there) != 2:
        return
    (other,) = (name for name in there if name != told)
    if other.strip().casefold() in BESIDE:
        return
    values = [row.values.get(other) for row in rows]
    measured = _are_numbers(values)
    kinds = {str(value).strip() for value in values if _holds(value)}
    repeated = 1 < len(kinds) <= len(values) // A_CLASS
    if not measured and not (repeated and all(len(kind) <= LONGEST_CLASS for kind in kinds)):
        return
    role = "value" if measured else "label"
    learn = text("learn it: {options}", options=_flags({role: other}).strip())
    away = text("leave it out: {options}", options="--format text")
    raise DataError(
        text("{source}: column {column!r} would be lost", source=rows[0].source, column=other),
        expected=text("a role for every column that is asked or answered"),
        found=listed(sorted(kinds)),
        hint=joined("; ", [learn, away]),
    )


def _unknown(source: str, there: Sequence[str], name: str | None) -> DataError:
    needs = [
        text("{roles} ({name})", roles=" + ".join(roles), name=one)
        for one, roles in NEEDED.items()
        if one != "sni" and name in (None, one)
    ]
    return DataError(
        text("{source}: the columns do not say what is asked and what is answered", source=source),
        expected=joined("; ", needs),
        found=", ".join(map(repr, there))[:200] or text("none"),
        hint=_how_to_say(there, name),
    )


def _how_to_say(there: Sequence[str], name: str | None) -> Text:
    """What to try where no column has a name that is known."""
    is_row = any(map(_is_said, there))
    roles = _missing(there) if name is None and not is_row else {}
    if not roles:
        roles = dict.fromkeys(NEEDED[name or "prompt_completion"], "…")
        if name is None and there and not is_row:
            roles["prompt"] = there[0]
    told = {role: one if one == "…" else shlex.quote(one) for role, one in roles.items()}
    options = " ".join(f"--column {role}={one}" for role, one in told.items())
    if not is_row:
        return text("say it: {options}", options=options)
    above = text("line 1 looks like a row: write a line of names above it")
    return joined("; ", [above, text("if it names the columns: {options}", options=options)])


def _missing(there: Sequence[str]) -> dict[str, str]:
    """The one role that a format lacks, with the column that must have it; or nothing."""
    known = {role: column for role in ALIASES if (column := _named(role, there))}
    taken = {*known.values(), *(name for name in there if name.strip().casefold() in BESIDE)}
    others = [name for name in there if name not in taken]
    for name in ("classification", "regression", "prompt_completion"):
        lacking = [role for role in NEEDED[name] if role not in known]
        if len(lacking) == 1 and others:
            return {lacking[0]: others[0] if len(others) == 1 else "…"}
    return {}


def _is_said(name: str) -> bool:
    """Whether a name of a column is rather something that is said, or a number."""
    return len(name.split()) > WORDS or name[-1:] in ".!?" or is_number(name)
